"""Users, databases and privileges of a running server: the `Administration` of MySQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from pymysql import MySQLError
from pymysql.constants import CR, ER

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import session as sessions
from openrdb.engines.mysql.admin import databases, levels, privileges, user_sessions, users
from openrdb.engines.mysql.session import Session
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed, TransientState
from openrdb.spec import ContentNames, Database, Permission, Privilege, User

_HINDERED = {
    ER.LOCK_WAIT_TIMEOUT,  # a transaction, LOCK TABLES, a global read lock, a prepared XA transaction
    ER.LOCK_DEADLOCK,
    ER.QUERY_INTERRUPTED,
    ER.QUERY_TIMEOUT,
}
_UNREACHABLE = {
    CR.CR_CONNECTION_ERROR,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    ER.SERVER_SHUTDOWN,
    ER.ACCESS_DENIED_ERROR,  # of a copy that has the secret of what it was made of, for a moment
}


class Administration:
    def __init__(self, node: EngineNode) -> None:
        self._node = node

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """Yield a session of the superuser's.

        Raises:
            TransientState: the server is not there at the moment.
            PreconditionFailed: another session is in the way.
        """
        try:
            with sessions.use(self._node) as session:
                yield session
        except MySQLError as error:
            number = error.args[0] if error.args else None
            if number in _HINDERED:
                why = f"another session, or a prepared transaction, is in the way: {error.args[1]}"
                raise PreconditionFailed("not_locked", why) from None
            if number == ER.CON_COUNT_ERROR:
                why = "clients have taken all connections: end some, or raise max_connections"
                raise PreconditionFailed("connections_available", why) from None
            if number in _UNREACHABLE:
                instance_id = str(self._node.spec.instance_id)
                raise TransientState("instance", instance_id, "autohealing") from error
            raise

    @contextmanager
    def _change(self) -> Iterator[Session]:
        """Yield a session for a change, which begins with what an earlier one left to be done."""
        with self._session() as session:
            user_sessions.finish(session)
            yield session

    # -- users ---------------------------------------------------------------------------------

    def users(self) -> list[User]:
        with self._session() as session:
            return users.listed(session)

    def check_create_user(self, name: str) -> None:
        with self._session() as session:
            users.check_create(session, name)

    def create_user(self, name: str, verifier: str, *, is_admin: bool) -> None:
        with self._change() as session:
            users.ensure(session, name, verifier, is_admin=is_admin)

    def check_update_user(self, name: str) -> None:
        with self._session() as session:
            users.check_known(session, name)

    def update_user(self, name: str, *, verifier: str | None, is_admin: bool | None) -> None:
        with self._change() as session:
            users.change(session, name, verifier, is_admin)

    def check_delete_user(self, name: str) -> None:
        with self._session() as session:
            users.check_delete(session, name)

    def delete_user(self, name: str) -> None:
        with self._change() as session:
            users.ensure_none(session, name)

    # -- databases -----------------------------------------------------------------------------

    def databases(self, *, sizes: bool) -> list[Database]:
        with self._session() as session:
            return databases.listed(session, sizes=sizes)

    def check_create_database(self, name: str) -> None:
        with self._session() as session:
            databases.check_create(session, name)

    def create_database(self, name: str) -> None:
        with self._change() as session:
            databases.ensure(session, name)

    def check_delete_database(self, name: str) -> None:
        with self._session() as session:
            databases.check_delete(session, name)

    def delete_database(self, name: str) -> None:
        with self._change() as session:
            databases.ensure_none(session, name)

    # -- privileges ----------------------------------------------------------------------------

    def names(self) -> ContentNames:
        with self._session() as session:
            granted = levels.read(session, databases=())
            return ContentNames(databases.managed(session), granted.users())

    def levels(self, databases: Collection[str], users: Collection[str]) -> list[Privilege]:
        with self._session() as session:
            granted = levels.read(session, databases)
        return [
            Privilege(one, name, granted.level(name, one)) for one in databases for name in users
        ]

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        names = self.names()
        return self.levels(
            [one for one in names.databases if database in (None, one)],
            [one for one in names.users if user in (None, one)],
        )

    def check_set_privilege(self, database: str, user: str) -> None:
        with self._session() as session:
            _managed(session, database)
            users.find(session, user)

    def set_privilege(self, database: str, user: str, permission: Permission) -> None:
        with self._change() as session:
            users.find(session, user)
            granted = levels.read(session)
            privileges.apply(session, granted, _managed(session, database), user, permission)


def _managed(session: Session, database: str) -> str:
    """Return the name of a managed database as the server has it; NotFound, InvalidArguments."""
    found = databases.find(session, database)
    if found is None:
        raise NotFound("database", database)
    kept, is_managed = found
    if not is_managed:
        help_message = f"{database} is not a managed database: grant privileges by SQL"
        raise InvalidArguments(("database_name", "constraint", help_message))
    return kept
