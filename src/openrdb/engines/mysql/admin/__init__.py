"""Users, databases and privileges inside a running MySQL server."""
