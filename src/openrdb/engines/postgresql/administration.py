"""Users, databases and privileges of a running server: the `Administration` of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg import Connection, errors

from openrdb.engines.base import Database, NodeSpec, Permission, Privilege, User
from openrdb.engines.postgresql import databases, privileges, server, users
from openrdb.engines.postgresql.levels import Row
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed, TransientState
from openrdb.host.layout import NodePaths

T = TypeVar("T")

_ATTEMPTS = 10
_AGAIN = (
    # "tuple concurrently updated": a tenant changed the same object at the same time.
    errors.InternalError_,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.UndefinedObject,
)
_HINDERED = (errors.LockNotAvailable, errors.QueryCanceled, errors.ObjectInUse)
_ENDED = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND datname = %s"
)


class Administration:
    def __init__(self, spec: NodeSpec, paths: NodePaths, secret: str) -> None:
        self._spec = spec
        self._paths = paths
        self._secret = secret

    def _in(
        self, database: str, work: Callable[[Connection[Row]], T], *, autocommit: bool = False
    ) -> T:
        """Work in a database, in one transaction that is tried again where a tenant's came between.

        Raises:
            TransientState: the server is not there at the moment.
            PreconditionFailed: another session is in the way.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with server.connect(self._spec, self._paths, self._secret, database) as connection:
                    connection.autocommit = autocommit
                    return work(connection)
            except _HINDERED as error:
                why = f"another session is in the way: {databases.reason(error)}"
                raise PreconditionFailed("not_locked", why) from None
            except _AGAIN as error:
                if attempt == _ATTEMPTS - 1:
                    why = f"something in {database} is in the way: {databases.reason(error)}"
                    raise PreconditionFailed("not_locked", why) from error
            except psycopg.OperationalError as error:
                raise self._unreachable(database, error) from error
        raise AssertionError

    def _unreachable(self, database: str, error: psycopg.OperationalError) -> Exception:
        if "not currently accepting connections" in str(error):
            why = f"the database {database} accepts no connections"
            return PreconditionFailed("database_accepts_connections", why)
        return TransientState("instance", str(self._spec.instance_id), "autohealing")

    # -- users ---------------------------------------------------------------------------------

    def users(self) -> list[User]:
        return self._in("postgres", users.listed)

    def check_create_user(self, name: str) -> None:
        self._in("postgres", lambda connection: users.check_create(connection, name))

    def create_user(self, name: str, verifier: str, *, is_admin: bool) -> None:
        def work(connection: Connection[Row]) -> None:
            users.ensure(connection, name, verifier, is_admin=is_admin)

        self._in("postgres", work)
        if is_admin:
            self._give_all(name)

    def check_update_user(self, name: str) -> None:
        users.check_not_reserved("name", name)
        self._in("postgres", lambda connection: users.find(connection, name))

    def update_user(self, name: str, *, verifier: str | None, is_admin: bool | None) -> None:
        self._in("postgres", lambda connection: users.change(connection, name, verifier, is_admin))
        if is_admin:
            self._give_all(name)

    def _give_all(self, name: str) -> None:
        """Administrators have access to all databases (the document, "Database engines")."""
        for database in self.databases(sizes=False):
            if database.managed:
                self._in(database.name, lambda found: privileges.apply(found, name, "all"))

    def check_delete_user(self, name: str) -> None:
        self._in("postgres", lambda connection: users.check_delete(connection, name))

    def delete_user(self, name: str) -> None:
        role = self._in("postgres", lambda connection: users.oid(connection, name))
        if role is None:
            return
        self._in("postgres", lambda connection: users.shut_out(connection, name))
        for database in self._in("postgres", lambda found: users.databases_of(found, name)):
            self._in(database, lambda connection: users.strip(connection, role))
        self._in("postgres", lambda connection: users.drop(connection, name))

    # -- databases -----------------------------------------------------------------------------

    def databases(self, *, sizes: bool) -> list[Database]:
        return self._in("postgres", lambda found: databases.listed(found, sizes=sizes))

    def check_create_database(self, name: str) -> None:
        self._in("postgres", lambda connection: databases.check_create(connection, name))

    def create_database(self, name: str) -> None:
        self._in("postgres", lambda found: databases.ensure(found, name), autocommit=True)

        def give_all(connection: Connection[Row]) -> None:
            for user in users.listed(connection):
                if user.is_admin:
                    privileges.apply(connection, user.name, "all")

        self._in(name, give_all)

    def check_delete_database(self, name: str) -> None:
        self._in("postgres", lambda connection: databases.check_delete(connection, name))

    def delete_database(self, name: str) -> None:
        self._in("postgres", lambda found: databases.ensure_none(found, name), autocommit=True)

    # -- privileges ----------------------------------------------------------------------------

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        rows: list[Privilege] = []
        for found in self.databases(sizes=False):
            if found.managed and database in (None, found.name):
                rows += self._in(found.name, lambda at: self._levels(at, user))
        return rows

    def _levels(self, connection: Connection[Row], user: str | None) -> list[Privilege]:
        wanted = {oid: name for oid, name in users.ids(connection).items() if user in (None, name)}
        return privileges.listed(connection, connection.info.dbname, wanted)

    def set_privilege(self, database: str, user: str, permission: Permission) -> None:
        if permission == "custom":
            help_message = "custom is what grants made by SQL are; it cannot be set"
            raise InvalidArguments(("permission", "constraint", help_message))
        managed = self._in("postgres", lambda found: databases.is_managed(found, database))
        if managed is None:
            raise NotFound("database", database)
        if not managed:
            help_message = f"{database} is not a managed database: grant privileges by SQL"
            raise InvalidArguments(("database_name", "constraint", help_message))

        def work(connection: Connection[Row]) -> None:
            users.find(connection, user)
            privileges.apply(connection, user, permission)

        self._in(database, work)
        if permission == "none":
            self._in("postgres", lambda found: found.execute(_ENDED, [user, database]))
