"""What is left of an administrator's power after they are dismissed or deleted: nothing."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.support.postgresql_server import VERIFIER, Connection, Server
from tests.support.service import PASSWORD

LOGIN = f"LOGIN PASSWORD '{PASSWORD}'"


@pytest.fixture
def shop(server: Server) -> Server:
    """A database, the administrator boss, and bob, who has nothing."""
    server.inside.create_database("shop")
    server.inside.create_user("boss", VERIFIER, is_admin=True)
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    return server


def refused(session: Connection, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(statement)


def dismiss(server: Server) -> None:
    """Dismiss boss, who can still come into the database."""
    server.inside.set_privilege("shop", "boss", "readonly")
    server.inside.update_user("boss", verifier=None, is_admin=False)


# -- roles -------------------------------------------------------------------------------------------


def test_what_they_granted_themselves_goes_with_them(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE r NOLOGIN CREATEROLE; GRANT r TO boss; GRANT r TO bob")
        if shop.major < 16:
            boss.execute("GRANT admin TO boss")
        else:
            boss.execute("GRANT pg_monitor TO boss")
    dismiss(shop)
    with shop.session("boss", "shop") as boss:
        refused(boss, "GRANT r TO boss")
        for role in ("r", "admin", "pg_monitor", "_rdb_admin"):
            refused(boss, f"SET ROLE {role}")
    with shop.superuser() as superuser:
        kept = "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members"
        found = superuser.execute(kept).fetchall()
    assert ("r", "bob") in found, "what they granted others stays"
    assert "boss" not in {member for _, member in found}


def test_a_name_that_is_no_utf8_stops_nothing(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with shop.session("boss", "latin") as boss:
        boss.execute('CREATE ROLE "é" CREATEROLE CREATEDB; CREATE ROLE "ö"; GRANT "ö" TO bob')
    try:
        shop.inside.create_user("next", VERIFIER, is_admin=True)
        dismiss(shop)
        shop.inside.set_privilege("shop", "bob", "readonly")
        with shop.superuser() as superuser:
            superuser.execute("ALTER DATABASE latin OWNER TO admin")
        shop.inside.check_delete_user("boss")
        shop.inside.delete_user("boss")
    finally:
        with shop.superuser("latin") as superuser:
            superuser.execute('DROP ROLE "é", "ö"')
        with shop.superuser() as superuser:
            superuser.execute("DROP DATABASE latin")
