"""What PostgreSQL's tenants alone have: schemas, extensions, functions that run as their owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import errors
from scaleway.rdb.v1 import Instance

from tests.support.service import PASSWORD, Service, gone, wait_until


@pytest.fixture
def instance(service: Service, postgresql: str) -> Iterator[Instance]:
    made = service.create(postgresql, name="own")
    yield made
    sdk = service.sdk()
    sdk.delete_instance(instance_id=made.id)
    wait_until(lambda: gone(sdk, made.id))


def test_what_an_administrator_is_for(service: Service, instance: Instance) -> None:
    """Roles, schemas, trusted extensions: all of it in `rdb`."""
    with service.connection(instance) as connection:
        for statement in (
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.things (id int PRIMARY KEY)",
            "CREATE EXTENSION pgcrypto",
            "CREATE EXTENSION hstore",
            "CREATE ROLE reader LOGIN PASSWORD 'Correct-horse-8'",
            "GRANT USAGE ON SCHEMA shop TO reader",
            "GRANT SELECT ON shop.things TO reader",
        ):
            connection.execute(statement)
    # Who is to come into a managed database has a level there, whoever made the role.
    where = {"instance_id": instance.id, "database_name": "rdb", "user_name": "reader"}
    service.sdk().set_privilege(**where, permission="readonly")
    with service.connection(instance, "reader", "Correct-horse-8") as connection:
        assert connection.execute("SELECT * FROM shop.things").fetchall() == []
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DELETE FROM shop.things")
    service.sdk().set_privilege(**where, permission="none")
    with service.connection(instance) as connection:
        for statement in (
            "DROP SCHEMA shop CASCADE",
            "DROP EXTENSION hstore",
            "DROP EXTENSION pgcrypto",
            "DROP ROLE reader",
        ):
            connection.execute(statement)


def test_orphans_are_nobodys_superpower(service: Service, instance: Instance) -> None:
    """What a deleted user leaves behind does not run as superuser."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.create_user(**where, name="eve", password=PASSWORD, is_admin=True)
    with service.connection(instance, "eve") as eve:
        eve.execute(
            "CREATE FUNCTION who() RETURNS text LANGUAGE sql SECURITY DEFINER "
            "AS 'SELECT current_user::text'"
        )
    sdk.delete_user(**where, name="eve")
    with service.connection(instance) as admin:
        assert admin.execute("SELECT who()").fetchone() == ("admin",)


def test_administrators_and_whoever_sql_makes(service: Service, instance: Instance) -> None:
    """Access whatever level is set, the levels from before afterwards, and nobody hidden."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    with service.connection(instance) as admin:
        admin.execute("CREATE ROLE _rdb_stealth LOGIN CREATEDB CREATEROLE")
    assert {user.name for user in sdk.list_users_all(**where)} == {"_rdb_stealth", "admin"}
    sdk.delete_user(**where, name="_rdb_stealth")
    sdk.create_user(**where, name="boss", password=PASSWORD, is_admin=True)
    named = {"database_name": "rdb", "user_name": "boss"}
    for level in ("none", "readonly"):
        sdk.set_privilege(**where, **named, permission=level)
        (found,) = sdk.list_privileges_all(**where, **named)
        assert found.permission == ("all" if level == "none" else level)
        with service.connection(instance, "boss") as boss:
            boss.execute(f"CREATE TABLE made_at_{level} ()")
    for name, level in (("boss", "readonly"), ("admin", "all")):
        sdk.update_user(**where, name=name, is_admin=False)
        (found,) = sdk.list_privileges_all(**where, database_name="rdb", user_name=name)
        assert found.permission == level
    with service.connection(instance, "boss") as boss:
        with pytest.raises(errors.InsufficientPrivilege):
            boss.execute("DROP TABLE made_at_none")
        boss.execute("TABLE made_at_none")
