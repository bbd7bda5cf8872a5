"""What a tenant's administrator may try to get out of his database: tried, and seen to be contained."""
