"""PostgreSQL 11 to 18."""

from openrdb.engines.postgresql.engine import PostgreSQL

__all__ = ["PostgreSQL"]
