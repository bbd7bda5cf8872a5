"""MySQL 8 and 9."""
