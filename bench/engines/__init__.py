"""The engines that are measured, side by side; a third one is a module more and its line here."""

from bench.engines.base import Engine, Load, Setting
from bench.engines.mysql import MySQL
from bench.engines.postgresql import PostgreSQL

ENGINES: tuple[type[Engine], ...] = (PostgreSQL, MySQL)

__all__ = ["ENGINES", "Engine", "Load", "MySQL", "PostgreSQL", "Setting"]
