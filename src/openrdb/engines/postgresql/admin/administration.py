"""Users, databases and privileges of a running server: the `Administration` of PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import TypeVar

import psycopg
from psycopg import Connection, errors

from openrdb.engines.base import EngineNode
from openrdb.engines.names import FIRST_DATABASE
from openrdb.engines.postgresql import jobs, session
from openrdb.engines.postgresql.admin import (
    administrators,
    databases,
    former,
    privileges,
    record,
    roles,
    users,
)
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.errors import (
    InvalidArguments,
    NotFound,
    OpenRDBError,
    PreconditionFailed,
    TransientState,
)
from openrdb.spec import ContentNames, Database, Permission, Privilege, User

T = TypeVar("T")

_ATTEMPTS = 10
_AGAIN = (
    *privileges.CHANGED_MEANWHILE,
    errors.DependentObjectsStillExist,
    errors.UniqueViolation,  # two calls made the same role
    errors.DuplicateObject,
    errors.AdminShutdown,  # what a database's deletion does to its sessions
)
_HINDERED = (errors.LockNotAvailable, errors.QueryCanceled, errors.ObjectInUse)
_GOING_DOWN = (errors.CrashShutdown, errors.CannotConnectNow)
_NOT_LET_IN = ("not currently accepting connections", "cannot connect to invalid database")
_NO_LOCK = "out of shared memory"
_ALL_LOCKS = "sessions hold all locks of the server: end them, or restart the instance"
_NO_CONNECTION = "clients have taken all connections: end some, or raise max_connections"


class Administration:
    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def _in(
        self, database: str, work: Callable[[Connection[Row]], T], *, autocommit: bool = False
    ) -> T:
        """Work in a database, in one transaction that is tried again where a tenant's came between.

        Raises:
            TransientState: the server is not there at the moment.
            PreconditionFailed: another session is in the way.
        """
        for attempt in range(_ATTEMPTS):
            let_in, last = False, attempt == _ATTEMPTS - 1
            try:
                with session.use(self._node, database) as connection:
                    let_in = True
                    connection.autocommit = autocommit
                    return work(connection)
            except _AGAIN as error:
                if last:
                    why = f"something in {database} is in the way: {databases.reason(error)}"
                    raise PreconditionFailed("not_locked", why) from error
            except psycopg.OperationalError as error:
                # A session that the server ends tells no reason when its database is deleted.
                if last or not let_in or error.sqlstate is not None:
                    raise self._refusal(database, error) from error
        raise AssertionError

    def _refusal(self, database: str, error: psycopg.OperationalError) -> Exception:
        said = databases.reason(error)
        if any(text in str(error) for text in _NOT_LET_IN):
            why = f"the database {database} accepts no connections"
            return PreconditionFailed("database_accepts_connections", why)
        if session.is_full(error):
            return PreconditionFailed("connections_available", _NO_CONNECTION)
        if error.sqlstate is None and f'database "{database}" does not exist' in str(error):
            return NotFound("database", database)
        no_lock = _NO_LOCK in str(error)
        if (error.sqlstate is None and not no_lock) or isinstance(error, _GOING_DOWN):
            return TransientState("instance", str(self._node.spec.instance_id), "autohealing")
        if isinstance(error, _HINDERED):
            return PreconditionFailed("not_locked", f"another session is in the way: {said}")
        return PreconditionFailed("resources", _ALL_LOCKS if no_lock else said)

    def ensure_ready(self) -> None:
        """Bring a server of older code, or that SQL has changed since, to what it is at birth."""
        dismissed = self._change(administrators.dismiss_earlier)
        if dismissed:  # a session may go on acting as another role
            self._in("postgres", lambda connection: roles.end_sessions(connection, dismissed))

    def _change(self, work: Callable[[Connection[Row]], T]) -> T:
        """Change roles, in a server that is ready for it."""

        def prepared(connection: Connection[Row]) -> tuple[T, list[str]]:
            roles.ensure(connection)
            roles.disable_reserved(connection)
            former.settle(connection)
            done = work(connection)
            administrators.appoint(connection)
            return done, databases.unprepared(connection)

        done, unprepared = self._in("postgres", prepared)
        for database in unprepared:
            self._in(database, privileges.prepare)
        return done

    # -- users ---------------------------------------------------------------------------------

    def users(self) -> list[User]:
        return self._in("postgres", users.listed)

    def check_create_user(self, name: str) -> None:
        self._in("postgres", lambda connection: users.check_create(connection, name))

    def create_user(self, name: str, verifier: str, *, is_admin: bool) -> None:
        if self._in("postgres", lambda connection: roles.oid(connection, name)) is None:
            self._delete_jobs(name)  # of one whom SQL has dropped
        self._change(lambda found: users.ensure(found, name, verifier, is_admin=is_admin))

    def check_update_user(self, name: str) -> None:
        self._in("postgres", lambda connection: users.find(connection, name))

    def update_user(self, name: str, *, verifier: str | None, is_admin: bool | None) -> None:
        def work(connection: Connection[Row]) -> None:
            users.find(connection, name)
            users.change(connection, name, verifier, is_admin)

        self._change(work)
        if is_admin is False:
            # A session may go on acting as another role. Always: an earlier attempt may have revoked
            # what makes an administrator, and got no further.
            self._in("postgres", lambda connection: users.end_sessions(connection, name))
            if (user_id := self._in("postgres", lambda found: roles.oid(found, name))) is not None:
                self._end_running(self._running_as(user_id))
            self._restore_levels(name)

    def _running_as(self, user_id: int) -> list[str]:
        """Return the databases in which others may be running code as a user."""
        running = []
        for database in self._in("postgres", lambda found: users.owning(found, user_id)):
            with contextlib.suppress(NotFound):  # deleted meanwhile
                if self._in(database, lambda found: users.runs_as(found, user_id)):
                    running.append(database)
        return running

    def _end_running(self, databases: list[str]) -> None:
        if databases:
            self._in("postgres", lambda connection: users.end_running(connection, databases))

    def _restore_levels(self, name: str) -> None:
        """Give a former administrator the levels that they have besides what administrators have."""
        for database in self._managed():
            with contextlib.suppress(NotFound):  # deleted meanwhile
                self.set_privilege(database, name, self._recorded(database, name))

    def _recorded(self, database: str, name: str) -> Permission:
        def level(connection: Connection[Row]) -> Permission:
            privileges.prepare(connection)
            user_id = roles.oid(connection, name)
            return record.recorded(connection).get(user_id or 0, "none")

        return self._in(database, level)

    def check_delete_user(self, name: str) -> None:
        self._in("postgres", lambda connection: users.check_delete(connection, name))

    def delete_user(self, name: str) -> None:
        def begin(connection: Connection[Row]) -> tuple[int, bool, int] | None:
            if (user_id := roles.oid(connection, name)) is None:
                return None
            is_admin = User(name, is_admin=True) in users.listed(connection)
            return user_id, is_admin, users.shut_out(connection, name)

        begun = self._change(begin)
        if begun is None:
            return
        # It is 0 where an earlier attempt shut the user out, and got no further.
        user_id, is_admin, limit = begun
        try:
            self._delete_jobs(name)
            self._in("postgres", lambda connection: users.end_sessions(connection, name))
            running = self._running_as(user_id) if is_admin else []
            for database in self._in("postgres", lambda found: users.leave(found, name)):
                self._in(database, lambda connection: users.strip(connection, user_id))
            self._end_running(running)
            self._in("postgres", lambda connection: users.drop(connection, name))
        except OpenRDBError:
            self._in("postgres", lambda connection: users.limit(connection, name, limit or -1))
            raise
        self._delete_jobs(name)  # which the last ones may have scheduled

    def _delete_jobs(self, name: str) -> None:
        """Delete a user's jobs. A database that cannot be entered is in the way of those who have
        jobs only."""
        try:
            self._in(FIRST_DATABASE, lambda connection: jobs.delete(connection, name))
        except NotFound:
            pass
        except PreconditionFailed:
            if jobs.SETTING in self._node.spec.settings:
                raise

    # -- databases -----------------------------------------------------------------------------

    def databases(self, *, sizes: bool) -> list[Database]:
        return self._in("postgres", lambda found: databases.listed(found, sizes=sizes))

    def check_create_database(self, name: str) -> None:
        self._in("postgres", lambda connection: databases.check_create(connection, name))

    def create_database(self, name: str) -> None:
        self._in("postgres", lambda found: databases.ensure(found, name), autocommit=True)

        self._in(name, privileges.prepare)

    def check_delete_database(self, name: str) -> None:
        self._in("postgres", lambda connection: databases.check_delete(connection, name))

    def delete_database(self, name: str) -> None:
        session.close_idle(self._node)
        self._in("postgres", lambda found: databases.ensure_none(found, name), autocommit=True)

    # -- privileges ----------------------------------------------------------------------------

    def names(self) -> ContentNames:
        def find(connection: Connection[Row]) -> ContentNames:
            return ContentNames(databases.managed(connection), list(users.ids(connection).values()))

        return self._in("postgres", find)

    def levels(self, databases: Collection[str], users: Collection[str]) -> list[Privilege]:
        rows: list[Privilege] = []
        for database in databases:
            with contextlib.suppress(NotFound):  # deleted meanwhile
                rows += self._in(database, lambda connection: _levels(connection, users))
        return rows

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        names = self.names()
        return self.levels(
            [one for one in names.databases if database in (None, one)],
            [one for one in names.users if user in (None, one)],
        )

    def _managed(self) -> list[str]:
        return self._in("postgres", databases.managed)

    def check_set_privilege(self, database: str, user: str) -> None:
        def check(connection: Connection[Row]) -> None:
            managed = databases.is_managed(connection, database)
            if managed is None:
                raise NotFound("database", database)
            if not managed:
                help_message = f"{database} is not a managed database: grant privileges by SQL"
                raise InvalidArguments(("database_name", "constraint", help_message))
            users.find(connection, user)

        self._in("postgres", check)

    def set_privilege(self, database: str, user: str, permission: Permission) -> None:
        shut_out: list[privileges.ShutOut] = []

        def work(connection: Connection[Row]) -> None:
            if permission == "all":
                privileges.give_back(connection, user)
            elif before := privileges.shut_out(connection, user):
                shut_out.append(before)
                privileges.take_over(connection, before.user_id)
            privileges.apply(connection, user, permission)

        try:
            self._in(database, work)
        except OpenRDBError:
            if shut_out:  # the first attempt took it
                self._in(database, lambda found: privileges.let_in(found, user, shut_out[0]))
            raise


def _levels(connection: Connection[Row], names: Collection[str]) -> list[Privilege]:
    privileges.prepare(connection)
    wanted = {oid: name for oid, name in users.ids(connection).items() if name in names}
    above = roles.administrators(connection)
    return privileges.listed(connection, connection.info.dbname, wanted, above)
