"""MySQL 8 and 9."""

from openrdb.engines.mysql.engine import MySQL

__all__ = ["MySQL"]
