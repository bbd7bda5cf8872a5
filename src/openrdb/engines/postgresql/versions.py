"""The versions of collations and time zone data that a server's databases depend on."""

from __future__ import annotations

import psycopg

from openrdb.engines import versions
from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session
from openrdb.errors import HostError

# One collation stands for its provider. Collations of the C library that sort by code point ("C",
# "C.UTF-8") have no version and need none.
_PROVIDERS = """
    SELECT DISTINCT ON (collprovider) collprovider::text, NULL, pg_collation_actual_version(oid)
    FROM pg_collation
    WHERE collprovider IN ('c', 'b') AND pg_collation_actual_version(oid) IS NOT NULL
        OR collprovider = 'i' AND collname IN ('und-x-icu', 'unicode')
    ORDER BY collprovider, collname
"""
# Locales of databases may be those of none of the collations in pg_collation.
_DATABASES = """
    SELECT DISTINCT datlocprovider::text, {locale}, pg_database_collation_actual_version(oid)
    FROM pg_database WHERE pg_database_collation_actual_version(oid) IS NOT NULL
"""
_NAMES = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCALE = {15: "coalesce(daticulocale, datcollate)", 17: "coalesce(datlocale, datcollate)"}


def read(node: EngineNode) -> dict[str, str]:
    """Return versions by what they are of: collations by provider and locale, time zones.

    Raises:
        HostError: the server lets nobody in, as one that still has the secret of what it is a copy of.
    """
    try:
        with session.connect(node, "postgres") as connection:
            found = connection.execute(_PROVIDERS).fetchall()
            major = session.major(node.spec)
            if major >= 15:
                locale = _LOCALE[17 if major >= 17 else 15]
                found += connection.execute(_DATABASES.format(locale=locale)).fetchall()
    except psycopg.OperationalError as error:
        raise HostError(f"the server cannot be asked: {str(error).strip()}") from error
    share = node.bundle.share
    zones = versions.of_time_zones([share / "zoneinfo", share / "timezone"])
    named = {
        " ".join(
            ["collations of", _NAMES[str(provider)], *([str(locale)] if locale else [])]
        ): version
        for provider, locale, version in found
    }
    return {name: str(version) for name, version in named.items() if version} | (
        {versions.TIME_ZONES: zones} if zones else {}
    )
