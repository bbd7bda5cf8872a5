"""What official clients call around the database API: private networks, their addresses, projects, and
the key in use. Only as much of those products as that needs, in the form of the recorded traffic
(tests/support/recordings/companions.jsonl)."""
