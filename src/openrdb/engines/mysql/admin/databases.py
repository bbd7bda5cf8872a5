"""Databases: names, the list, creating and dropping them.

MySQL's databases have no owner, and it does not record who created one: what SQL made counts as the
first administrator's. A grant to the superuser, who does not need it, marks the managed ones:
nobody but a superuser can grant or revoke it, and it is copied and restored with the server's other
grants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from pymysql import MySQLError

from openrdb.engines import names
from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.admin import levels, privileges, user_sessions
from openrdb.engines.mysql.admin.grants import SYSTEM
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_account, quoted_identifier, rows, run
from openrdb.engines.names import SUPERUSER
from openrdb.engines.transfers import OF_RESTORES
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import Database

_LONGEST_NAME = 64
_LONGEST_FILE_NAME = 255
_REFERRED_TO = 3730  # ER_FK_CANNOT_DROP_PARENT
_LAST_CHARACTER = "\uffff"
"""The server keeps names in UTF-8 of at most three bytes."""
_LISTED = "SELECT schema_name FROM information_schema.schemata"
_MANAGED = "SELECT db FROM mysql.db WHERE user = %s AND host = %s"
_KEPT_NAME = "SELECT IF(@@lower_case_table_names, LOWER(CONVERT(%s USING utf8mb3)), %s)"
_FILES = "SELECT name, file_size FROM information_schema.innodb_tablespaces"


_SHORT = {
    chr(code)
    for block in (range(0xC0, 0x130), range(0x386, 0x3CF), range(0x400, 0x482))
    for code in block
    if chr(code).isalpha()
}
"""Latin, Greek and Cyrillic letters, of those that the server writes in three bytes."""


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a new database may have this name."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        help_message = f"must have 1 to {_LONGEST_NAME} characters"
        raise InvalidArguments((argument, "constraint", help_message))
    if not name.isprintable() or name.endswith(" ") or max(name) > _LAST_CHARACTER:
        help_message = "must not contain control characters or emoji, nor end in a space"
        raise InvalidArguments((argument, "format", help_message))
    names.check_new_database_name(argument, name)
    if sum(map(_bytes_on_disk, name)) > _LONGEST_FILE_NAME:
        raise InvalidArguments((argument, "constraint", "is too long for a directory's name"))
    names.check_not_reserved(
        argument, name, names={*SYSTEM, names.FIRST_DATABASE}, prefixes=("#mysql50#",)
    )


def _bytes_on_disk(character: str) -> int:
    """Return how the server writes it in file names: as it is, as `@1e`, or as `@00e9`."""
    if character == "_" or (character.isascii() and character.isalnum()):
        return 1
    return 3 if character in _SHORT else 5


def listed(session: Session, *, sizes: bool) -> list[Database]:
    found = _found(session)
    creator = "" if all(found.values()) else _creator(session)
    taken = _sizes(session, found) if sizes else Counter()
    return [
        Database(name, SUPERUSER if is_managed else creator, is_managed, taken[name])
        for name, is_managed in found.items()
    ]


def _found(session: Session) -> dict[str, bool]:
    """Return the tenant's databases, and whether each is a managed one."""
    # Compared here: the server's own comparison of these columns is not by case.
    managed = {row[0] for row in rows(session, _MANAGED, *reserved.SUPERUSER)}
    found = {str(name) for (name,) in rows(session, _LISTED)} - SYSTEM
    found = {name for name in found if not OF_RESTORES.fullmatch(name)}
    return {name: name in managed for name in found}


def _creator(session: Session) -> str:
    """Return the first administrator by name; administrators alone can create databases by SQL."""
    granted = levels.read(session)
    return next(filter(granted.is_administrator, granted.users()), "")


def _sizes(session: Session, databases: Collection[str]) -> Counter[str]:
    """Bytes of each database's files, `database/table`; the tables' statistics are of some time ago."""
    taken: Counter[str] = Counter()
    for name, size in rows(session, _FILES):
        parts = str(name).split("/")  # which may be in either
        heads = ("/".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
        taken[next((head for head in heads if head in databases), "")] += int(str(size))
    return taken


def managed(session: Session) -> list[str]:
    return [name for name, is_managed in _found(session).items() if is_managed]


def find(session: Session, name: str) -> tuple[str, bool] | None:
    """Return the name that the server has a database under, and whether it is a managed one.

    None if users see no such database.
    """
    kept = _kept(session, name)
    found = _found(session)
    return (kept, found[kept]) if kept in found else None


def _kept(session: Session, name: str) -> str:
    """Return a database's name as the server keeps it, which may be in lower case."""
    if max(name, default="") > _LAST_CHARACTER:
        return name  # there is none
    ((kept,),) = rows(session, _KEPT_NAME, name, name)
    return str(kept)


def check_create(session: Session, name: str) -> None:
    check_name("name", name)
    if find(session, name):
        raise InvalidArguments(("name", "constraint", f"the database {name} exists already"))


def ensure(session: Session, name: str) -> str:
    """Create the managed database, without grants; return the name that the server has it under."""
    kept = _kept(session, name)
    quoted = quoted_identifier(kept)
    if kept not in _found(session):
        privileges.forget(session, kept)
        run(session, f"CREATE DATABASE IF NOT EXISTS {quoted}")
    run(session, managing(kept))
    return kept


def managing(name: str) -> str:
    """Return the statement that makes a database a managed one."""
    grantee = quoted_account(reserved.SUPERUSER)
    return f"GRANT ALL PRIVILEGES ON {quoted_identifier(name)}.* TO {grantee}"


def check_delete(session: Session, name: str) -> None:
    found = find(session, name)
    if name.lower() in SYSTEM or (found and found[0] == names.FIRST_DATABASE):
        raise InvalidArguments(("name", "constraint", f"the database {name} cannot be deleted"))
    if found is None:
        raise NotFound("database", name)


def ensure_none(session: Session, name: str) -> None:
    """End the database's sessions, the database, and what is granted on it.

    Raises:
        PreconditionFailed: a foreign key of another database's refers to a table of it.
    """
    kept = _kept(session, name)
    if kept in _found(session):
        user_sessions.end_within(session, kept)
        quoted = quoted_identifier(kept)
        run(session, f"ALTER DATABASE {quoted} READ ONLY = 0")
        try:
            run(session, f"DROP DATABASE IF EXISTS {quoted}")
        except MySQLError as error:
            if error.args[0] != _REFERRED_TO:
                raise
            why = f"a foreign key of another database refers to it: {error.args[1]}"
            raise PreconditionFailed("database_in_use", why) from None
    privileges.forget(session, kept)
