"""Extensions that a major upgrade brings to the newer server's version, with what users have in them.

The modules of some have their version in their names, and the newer server has another version:
pg_upgrade refuses them. What users have in them, as the partitions of a hypertable, cannot be made by
a script. So in the old files their functions become one of the server's own that answers with an error.
Nothing calls them: the script that brings the extension to the new version, which runs right after
pg_upgrade, defines all of them again.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openrdb.catalog import extensions
from openrdb.engines.postgresql import aside
from openrdb.engines.postgresql.clusters import one_line
from openrdb.system.bundle import Bundle

_VERSION = re.compile(r"^default_version = '([^']+)'", re.MULTILINE)

# An operator class makes the server ask its access method what that can do: of those that the extension
# has made none is left, and the script makes what there is in the new version.
_MOVE = """
    DECLARE
        needed text;
        one record;
        part record;
        given text;
    BEGIN
        SELECT oid, extnamespace, extversion INTO one FROM pg_extension WHERE extname = '{name}';
        IF one.extversion IS NULL OR one.extversion = '{version}' THEN
            RETURN;
        END IF;
        IF one.extversion <> ALL ('{{{sources}}}') THEN
            needed := format('{name} %s cannot be brought to {version}', one.extversion);
        ELSIF one.extnamespace::regnamespace::text ~ '^pg_temp' THEN
            needed := '{name} is in a temporary schema';
        ELSIF EXISTS (
            SELECT FROM pg_depend d JOIN pg_class c ON d.objid = c.oid
            WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relowner = 10
                AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = one.oid
                AND c.relnamespace <> one.extnamespace AND NOT EXISTS (
                    SELECT FROM pg_depend s
                    WHERE s.classid = 'pg_namespace'::regclass AND s.objid = c.relnamespace
                        AND s.refclassid = d.refclassid AND s.refobjid = one.oid AND s.deptype = 'e'
                )
        ) THEN
            needed := '{name} is not what its script has made';
        END IF;
        IF needed IS NULL THEN
            BEGIN
                FOR part IN
                    SELECT o.opcname AS name, opcnamespace::regnamespace AS schema, amname
                    FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod
                    JOIN pg_depend d ON d.classid = 'pg_am'::regclass AND d.objid = a.oid
                    WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = one.oid
                        AND d.deptype = 'e'
                LOOP
                    given := format('%s.%I USING %I', part.schema, part.name, part.amname);
                    EXECUTE 'ALTER EXTENSION {name} DROP OPERATOR CLASS ' || given;
                    EXECUTE 'ALTER EXTENSION {name} DROP OPERATOR FAMILY ' || given;
                    EXECUTE 'DROP OPERATOR FAMILY ' || given || ' CASCADE';
                END LOOP;
            EXCEPTION
                WHEN dependent_objects_still_exist THEN
                    GET STACKED DIAGNOSTICS needed = PG_EXCEPTION_DETAIL;
                    needed := split_part(needed, E'\\n', 1);
            END;
        END IF;
        UPDATE pg_proc p SET prolang = own.oid, prosrc = 'any_out', probin = NULL
        FROM pg_depend d, pg_language own, pg_language c
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = one.oid
            AND prolang = c.oid AND c.lanname = 'c' AND own.lanname = 'internal';
        IF needed IS NOT NULL THEN
            EXECUTE format($$COPY (SELECT %L) TO '{kept}' (ENCODING 'UTF8')$$, needed);
        END IF;
    END
"""
# What fails is said in the server's log: the module lets nothing run after that.
_UPDATE = """
    BEGIN
        IF EXISTS (
            SELECT FROM pg_extension WHERE extname = '{name}' AND extversion <> '{version}'
        ) THEN
            {away}
            ALTER EXTENSION {name} UPDATE;
            {back}
            {after}
        END IF;
    END
"""
_TELL_CODES = "SET log_error_verbosity = verbose"
_SAID = re.compile(r"\b(?!53|58|XX)[0-9A-Z]{5}: +(.+)", re.DOTALL)
"""An error that is not the host's, with its code."""


@dataclass(frozen=True)
class Carried:
    """One such extension of the newer server's."""

    name: str
    version: str
    sources: tuple[str, ...]
    """The versions that can be brought to this one."""
    settings: dict[str, str]
    """What the new server needs until it has the new version."""
    after: str
    """What follows the script that brings it there."""

    def move(self, kept: Path) -> list[str]:
        """Return what is done in each database of the old version; the file `kept` says why the
        extension cannot come along."""
        sources = ",".join(self.sources)
        text = _MOVE.format(name=self.name, version=self.version, sources=sources, kept=kept)
        return [one_line(f"DO $do${text}$do$")]

    def update(self) -> list[str]:
        """Return what is done in each database of the new version; `refused` reads what it says."""
        told = {"away": aside.AWAY, "back": aside.BACK, "after": self.after}
        text = _UPDATE.format(name=self.name, version=self.version, **told)
        return [_TELL_CODES, one_line(f"DO $do${text}$do$")]


def those_of(bundle: Bundle) -> list[Carried]:
    """Return those that the newer server's bundle has."""
    directory = bundle.share / "extension"
    found = []
    for name, told in extensions.carried().items():
        control = directory / f"{name}.control"
        if not control.exists():
            continue  # pg_upgrade refuses those that the new version does not have
        (version,) = _VERSION.findall(control.read_text())
        scripts = directory.glob(f"{name}--*--{version}.sql")
        sources = tuple(path.stem.split("--")[1] for path in scripts)
        found.append(Carried(name, version, sources, told["settings"], told["after"]))
    return found


def refused(said: str) -> str | None:
    """Return what of the users' keeps an extension from the newer version; None for another failure.

    Args:
        said: the error that ended `Carried.update`.
    """
    return found[1] if (found := _SAID.search(said)) else None
