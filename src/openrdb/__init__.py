"""OpenRDB: managed PostgreSQL and MySQL with the Scaleway RDB v1 API."""

from importlib.metadata import version

__version__ = version("openrdb")
