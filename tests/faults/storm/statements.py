"""What users do in SQL: whatever may be in the way of changes of them, and of whoever comes after."""

from __future__ import annotations

import random

from tests.support.service import PASSWORD

_NAMES = ("t", "T%s", "t'x", "tä😀", "t\\", "t--", "t$$")

IMPATIENT = {"PostgreSQL": "SET lock_timeout = '2s'", "MySQL": "SET lock_wait_timeout = 2"}
"""For sessions of an engine: users must not wait for each other for good."""


def statements(engine: str, user: str, number: int, chance: random.Random) -> tuple[str, ...]:
    """Return statements of one session, each of its own; many are refused, by the user's level."""
    name = f"{chance.choice(_NAMES)}_{user}_{number}"
    other = f"u{chance.randrange(4)}"
    if engine.startswith("PostgreSQL"):
        return chance.choice(_postgresql(f'"{name}"', f'"{name}2"', user, other, number))
    return chance.choice(_mysql(f"`{name}`", f"`{name}2`", user, other, number))


def _postgresql(
    name: str, second: str, user: str, other: str, number: int
) -> tuple[tuple[str, ...], ...]:
    definer = "LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'"
    return (
        (f"CREATE TABLE {name}(id serial primary key)", f"GRANT ALL ON {name} TO PUBLIC"),
        (
            f"CREATE FUNCTION {name}() RETURNS text "
            "LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'",
        ),
        (
            f"CREATE SCHEMA {name}",
            f"CREATE TABLE {name}.t(x int)",
            f"CREATE VIEW {name}.w AS SELECT * FROM {name}.t",
        ),
        (f"CREATE TABLE {name}(x int)", f"GRANT ALL ON {name} TO {other} WITH GRANT OPTION"),
        (f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {other}",),
        (f"CREATE TYPE {name} AS ENUM ('a')", f"CREATE DOMAIN {second} AS int CHECK (value > 0)"),
        (f"CREATE ROLE {name} LOGIN CREATEROLE CREATEDB", f"GRANT {name} TO {user}"),
        (f"CREATE ROLE _rdb_{user}_{number} LOGIN PASSWORD '{PASSWORD}'",),
        (
            f"CREATE ROLE {name}",
            f"GRANT {name} TO {other} WITH ADMIN OPTION",
            f"SET ROLE {name}",
            f"CREATE TABLE {second}(x int)",
        ),
        (f"GRANT {user} TO {other}",),
        (f"CREATE DATABASE {name}",),
        ("SELECT lo_create(0)",),
        (
            f"CREATE TABLE {name}(x int)",
            f"CREATE FUNCTION {name}() RETURNS trigger {definer}",
            f"CREATE TRIGGER t BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}()",
        ),
        (
            f"CREATE TABLE {name}(x int) PARTITION BY RANGE (x)",
            f"CREATE TABLE {second} PARTITION OF {name} DEFAULT",
        ),
        (f"CREATE MATERIALIZED VIEW {name} AS SELECT 1 AS n",),
        (f"CREATE PUBLICATION {name}",),
        (f"CREATE TEXT SEARCH CONFIGURATION {name} (COPY = simple)",),
        (f"CREATE OPERATOR FAMILY {name} USING btree",),
        (f"CREATE AGGREGATE {name}(int) (sfunc = int4pl, stype = int)",),
        (f"ALTER ROLE {user} SET search_path = {name}",),
        (
            f"CREATE TABLE {name}(x int)",
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY p ON {name} TO {user}, {other} USING (true)",
        ),
        (f"CREATE FOREIGN DATA WRAPPER {name}",),
        ("CREATE EXTENSION IF NOT EXISTS hstore",),
        (f"CREATE EVENT TRIGGER {name} ON ddl_command_end EXECUTE FUNCTION nothing()",),
    )


def _mysql(
    name: str, second: str, user: str, other: str, number: int
) -> tuple[tuple[str, ...], ...]:
    return (
        (f"CREATE TABLE {name}(id int auto_increment primary key)",),
        (
            f"CREATE TABLE {name}(x int)",
            f"CREATE SQL SECURITY DEFINER VIEW {second} AS SELECT * FROM {name}",
        ),
        (f"CREATE PROCEDURE {name}() SQL SECURITY DEFINER SELECT 1",),
        (f"CREATE EVENT {name} ON SCHEDULE EVERY 1 HOUR DO SELECT 1",),
        (
            f"CREATE USER {name} IDENTIFIED BY '{PASSWORD}'",
            f"GRANT SELECT ON rdb.* TO {name}",
        ),
        (f"CREATE ROLE {name}", f"GRANT {name} TO {other} WITH ADMIN OPTION"),
        (f"CREATE DATABASE {name}",),
        (f"CREATE USER _rdb_{user}_{number} IDENTIFIED BY '{PASSWORD}'",),
    )
