"""What official clients call around the database API (recordings/companions.jsonl): private networks,
their addresses, projects, and the key that is used. No more of those products than that needs."""
