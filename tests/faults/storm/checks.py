"""What must be true when a storm is over and nothing is under way."""

from __future__ import annotations

from contextlib import suppress

import psycopg
from scaleway.rdb.v1 import Instance

from tests.faults.storm.actors import (
    SQL_ERRORS,
    Actor,
    DatabaseActor,
    InstanceActor,
    UserActor,
    Writer,
)
from tests.faults.storm.storm import Storm
from tests.support.service import PASSWORD
from tests.support.tenants import tenant_of

_RECENT = 12
"""How many of a user's last passwords are tried."""
_KINDS = {
    **{"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW"},
    **{"S": "SEQUENCE", "f": "FOREIGN TABLE"},
}
_RELATIONS = """
    SELECT c.oid::regclass::text, relkind::text, pg_get_userbyid(relowner)::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^(pg_|information_schema)' AND relkind = ANY(%s)
"""
_DEFINERS = """
    SELECT proname::text FROM pg_proc
    WHERE prosecdef AND pronamespace <> 'pg_catalog'::regnamespace
        AND pg_get_userbyid(proowner) ~ '^_rdb'
"""
_POWERFUL = """
    SELECT rolname || ' is superuser' FROM pg_roles
    WHERE rolsuper AND rolname NOT IN ('_rdb_superadmin', '_rdb_replication')
    UNION ALL
    SELECT rolname || ' can log in' FROM pg_roles WHERE rolname ~ '^_rdb_former' AND rolcanlogin
    UNION ALL
    SELECT member::regrole || ' is in ' || roleid::regrole FROM pg_auth_members
    WHERE roleid = '_rdb_superadmin'::regrole
        OR roleid = '_rdb_admin'::regrole AND member::regrole::text = ANY(%s)
"""


def check(storm: Storm) -> None:
    """Note whatever is not as the clients were told."""
    for one in storm.service.sdk().list_instances_all():
        if one.status != "ready":
            storm.journal.fault(f"{one.name} is {one.status}")
    for instance in storm.instances:
        storm.trust(instance)
        for actor in storm.actors:
            if actor.instance is instance:
                try:
                    _check_actor(storm, actor)
                except SQL_ERRORS as error:
                    storm.journal.fault(f"{actor.who}: {type(error).__name__}: {error}")
        if instance.engine.startswith("PostgreSQL"):
            _check_postgresql(storm, instance)
    _check_log(storm)


def _check_actor(storm: Storm, actor: Actor) -> None:
    instance, fault = actor.instance, storm.journal.fault
    if isinstance(actor, UserActor):
        _check_user(storm, actor)
    elif isinstance(actor, DatabaseActor):
        found = storm.service.sdk().list_databases_all(instance_id=instance.id)
        if (is_there := actor.name in [one.name for one in found]) not in actor.truth.may_be:
            fault(f"{actor.who}: is there: {is_there}, should be {actor.truth.may_be}")
    elif isinstance(actor, Writer):
        with storm.login(instance, "admin", PASSWORD).connect() as session:
            rows = {number for (number,) in session.execute("SELECT n FROM journal").fetchall()}
        if lost := actor.written - rows:
            fault(f"{actor.who}: rows are lost: {sorted(lost)[:20]}")
        if rows - set(range(actor.tried + 1)):
            fault(f"{actor.who}: rows that nobody wrote")
    elif isinstance(actor, InstanceActor):
        _check_instance(storm, actor)


def _check_user(storm: Storm, actor: UserActor) -> None:
    api, instance, fault = storm.service.sdk(), actor.instance, storm.journal.fault
    maybe = actor.truth.may_be
    users = {one.name: one.is_admin for one in api.list_users_all(instance_id=instance.id)}
    levels = {
        one.user_name: str(one.permission)
        for one in api.list_privileges_all(instance_id=instance.id, database_name="rdb")
    }
    if actor.name not in users:
        if None not in maybe:
            fault(f"{actor.who} is missing, should be {maybe}")
    else:
        admin, level = users[actor.name], levels.get(actor.name, "none")
        fits = [one for one in maybe if one is not None and one[1] == admin]
        if not fits:
            fault(f"{actor.who} has is_admin {admin}, should be {maybe}")
        elif not admin and level not in {
            *(one[2] for one in fits),
            *(["custom"] if actor.may_be_custom else []),
        }:
            fault(f"{actor.who} has level {level}, should be {maybe}")
    allowed = {one[0] for one in maybe if one is not None}
    recent = [one for one in storm.passwords if f"-{actor.name}-" in one][-_RECENT:]
    entered = set()
    for password in dict.fromkeys([*recent, *allowed]):
        with suppress(*SQL_ERRORS), storm.login(instance, actor.name, password).connect():
            entered.add(password)
    if entered - allowed:
        fault(f"{actor.who} comes in with {entered}, should with {allowed}")
    if not entered and all(one is not None and (one[1] or one[2] != "none") for one in maybe):
        fault(f"{actor.who} does not come in with {allowed}")


def _check_instance(storm: Storm, actor: InstanceActor) -> None:
    instance, fault = actor.instance, storm.journal.fault
    shown = storm.service.request("GET", actor.path).json()
    listed = {one["name"]: one["value"] for one in shown["settings"]}.get(actor.setting)
    if listed not in actor.value.may_be:
        fault(f"{actor.who}: {actor.setting} is {listed}, should be {actor.value.may_be}")
    with storm.login(instance, "admin", PASSWORD).connect() as session:
        value = tenant_of(instance.engine).setting(session, actor.setting)
    if listed is not None and float(value) != float(listed):
        fault(f"{actor.who}: {actor.setting} is {value} in force, listed as {listed}")
    if shown["name"] not in actor.named.may_be:
        fault(f"{actor.who}: named {shown['name']}, should be {actor.named.may_be}")
    count = storm.service.request("GET", f"{actor.path}/acls").json()["total_count"]
    if count not in actor.rules.may_be:
        fault(f"{actor.who}: {count} rules, should be {actor.rules.may_be}")


def _check_postgresql(storm: Storm, instance: Instance) -> None:
    """Nobody has power who should not, and an administrator can drop what former users left."""
    api = storm.service.sdk()
    users = {one.name: one.is_admin for one in api.list_users_all(instance_id=instance.id)}
    ordinary = [name for name, admin in users.items() if not admin]
    with storm.service.superuser(instance) as session:
        for (text,) in session.execute(_POWERFUL, [ordinary]).fetchall():
            storm.journal.fault(f"{instance.engine}: {text}")
    for database in api.list_databases_all(instance_id=instance.id):
        try:
            _check_ownership(storm, instance, database.name, users.keys())
        except psycopg.Error as error:
            storm.journal.fault(f"{instance.engine} {database.name}: {error}")


def _check_ownership(storm: Storm, instance: Instance, database: str, users: object) -> None:
    where = f"{instance.engine} {database}"
    with storm.service.superuser(instance, database) as session:
        for (name,) in session.execute(_DEFINERS).fetchall():
            storm.journal.fault(f"{where}: {name} is SECURITY DEFINER, and nobody's")
        relations = session.execute(_RELATIONS, [list(_KINDS)]).fetchall()
    login = storm.login(instance, "admin", PASSWORD, database)
    with login.connect(autocommit=False) as session:
        for name, kind, owner in relations:
            session.execute("SAVEPOINT before")
            try:
                session.execute(f"DROP {_KINDS[kind]} {name} CASCADE")
            except psycopg.errors.InsufficientPrivilege as error:
                if owner not in users:  # type: ignore[operator]
                    storm.journal.fault(f"{where}: of {owner}: {error}")
            session.execute("ROLLBACK TO before")
        session.execute("ROLLBACK")


def _check_log(storm: Storm) -> None:
    text = (storm.service.home / "serve.log").read_text(errors="replace")
    if "Traceback" in text:
        at = text.index("Traceback")
        storm.journal.fault(f"the log has tracebacks: {text[max(0, at - 500) : at + 3000]}")
    for secret in (*storm.passwords, "SCRAM-SHA-256$", "$A$005"):
        if secret in text:
            storm.journal.fault(f"the log has {secret}")
