"""Extensions that an upgrade to a newer major version drops, and creates again.

The modules of some have their version in their names, and the newer server has another version:
pg_upgrade refuses them. What they have is made by their scripts. So they are dropped and created again,
unless that would take something of the tenant's, or their scripts would refuse to run.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from openrdb.engines.postgresql import aside
from openrdb.engines.postgresql.clusters import one_line

_FOUND = """
    SELECT e.oid, extname, nspname, rolname, obj_description(e.oid, 'pg_extension') AS comment, (
        SELECT string_agg(DISTINCT quote_ident(s.nspname), ', ') FROM pg_namespace s
        WHERE s.oid = n.oid OR s.oid IN (
            SELECT other.extnamespace FROM pg_depend d JOIN pg_extension other ON other.oid = refobjid
            WHERE d.classid = 'pg_extension'::regclass AND d.objid = e.oid
                AND d.refclassid = 'pg_extension'::regclass
        )
    ) AS searched
    FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace JOIN pg_roles r ON r.oid = extowner
    WHERE extname = ANY ('{{{}}}')
"""
# What a tenant has made part of the extension, or said to depend on it, goes with it without a word.
# Casts and transforms have no owner, and the scripts make none.
_DROP = """
    DECLARE
        one record;
        guard text;
        needed text;
    BEGIN
        CREATE TEMPORARY TABLE kept (why text);
        FOR one IN {found} LOOP
            SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' goes with ' || one.extname
            INTO needed FROM pg_depend d
            WHERE d.deptype = 'x' AND (
                (d.refclassid = 'pg_extension'::regclass AND d.refobjid = one.oid) OR EXISTS (
                    SELECT FROM pg_depend m WHERE m.classid = d.refclassid AND m.objid = d.refobjid
                        AND m.refclassid = 'pg_extension'::regclass AND m.refobjid = one.oid
                        AND m.deptype = 'e'
                )
            ) OR d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = one.oid
                AND (
                    d.classid IN ('pg_cast'::regclass, 'pg_transform'::regclass)
                    OR EXISTS (
                        SELECT FROM pg_shdepend s JOIN pg_database b ON b.oid = s.dbid
                        WHERE datname = current_database() AND s.deptype = 'o'
                            AND s.classid = d.classid AND s.objid = d.objid
                    )
                )
            LIMIT 1;
            IF needed IS NULL AND one.nspname ~ '^pg_temp' THEN
                needed := one.extname || ' is in a temporary schema';
            END IF;
            IF needed IS NULL THEN
                guard := pg_read_file('{work}/' || one.extname || '.guard');
                BEGIN
                    {away}
                    PERFORM set_config('search_path', one.searched, true);
                    EXECUTE guard;
                    PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);
                    {back}
                    EXECUTE format('DROP EXTENSION %I', one.extname);
                EXCEPTION
                    WHEN dependent_objects_still_exist THEN
                        GET STACKED DIAGNOSTICS needed = PG_EXCEPTION_DETAIL;
                        needed := split_part(needed, E'\\n', 1);
                    WHEN insufficient_privilege THEN
                        needed := one.extname || ' cannot be created again: ' || SQLERRM;
                END;
            END IF;
            IF needed IS NOT NULL THEN
                INSERT INTO kept VALUES (needed);
                EXIT;
            END IF;
        END LOOP;
        COPY kept TO '{kept}' (ENCODING 'UTF8');
        DROP TABLE kept;
    END
"""
# As their owners, who are no superusers: their scripts act as whom they find there.
_CREATE = """
    DECLARE
        one record;
        lacks bool;
    BEGIN
        CREATE TEMPORARY TABLE dropped (name text, schema text, owner text, comment text);
        COPY dropped FROM '{found}';
        FOR one IN SELECT *, current_database() AS database FROM dropped LOOP
            lacks := NOT has_database_privilege(one.owner, one.database, 'CREATE');
            IF lacks THEN
                EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', one.database, one.owner);
            END IF;
            {away}
            EXECUTE format('SET LOCAL ROLE %I', one.owner);
            EXECUTE format('CREATE EXTENSION %I SCHEMA %I', one.name, one.schema);
            EXECUTE format('COMMENT ON EXTENSION %I IS %L', one.name, one.comment);
            RESET ROLE;
            {back}
            IF lacks THEN
                EXECUTE format('REVOKE CREATE ON DATABASE %I FROM %I', one.database, one.owner);
            END IF;
        END LOOP;
        DROP TABLE dropped;
    EXCEPTION WHEN OTHERS THEN
        IF SQLSTATE !~ '^(53|58|XX)' THEN
            CREATE TEMPORARY TABLE kept AS SELECT SQLERRM AS why;
            COPY kept TO '{kept}' (ENCODING 'UTF8');
        END IF;
        RAISE;
    END
"""


def drop(names: Iterable[str], work: Path, found: Path, kept: Path) -> list[str]:
    """Return what drops extensions in a database of the old version.

    Args:
        work: where there is the guard of each.
        found: the file that is written of what there was.
        kept: the file that says, in a line, why one cannot be dropped; it is empty if all were.
    """
    query = _FOUND.format(",".join(names))
    block = _DROP.format(found=query, work=work, kept=kept, away=aside.AWAY, back=aside.BACK)
    copied = f"SELECT extname, nspname, rolname, comment FROM ({query}) found"  # noqa: S608
    return [
        one_line(f"COPY ({copied}) TO '{found}'"),
        one_line(f"DO $do${block}$do$"),
    ]


def create(found: Path, kept: Path) -> list[str]:
    """Return what creates them in a database of the new version, as `drop` has written of them; the
    file `kept` says why one cannot be created."""
    block = _CREATE.format(found=found, kept=kept, away=aside.AWAY, back=aside.BACK)
    return [one_line(f"DO $do${block}$do$")]
