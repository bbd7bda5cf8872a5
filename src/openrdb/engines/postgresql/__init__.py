"""PostgreSQL 11 to 18."""
