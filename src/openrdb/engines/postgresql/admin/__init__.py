"""Users, databases and privileges inside a running PostgreSQL server."""
