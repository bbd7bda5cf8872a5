"""Backups of MySQL's databases: what comes back, whole, with its definers and grants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.engines.mysql.sql import rows
from tests.support.mysql_server import Server
from tests.support.transfers import Transfers

MADE = [
    "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) COLLATE utf8mb4_bin,"
    " bytes VARBINARY(40), size INT AS (LENGTH(bytes)) STORED, CHECK (LENGTH(name) > 0))"
    " COMMENT 'it''s `the` one'",
    "CREATE TABLE child (id INT PRIMARY KEY, parent INT, j JSON, g GEOMETRY, t TIMESTAMP,"
    " FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE)",
    "INSERT INTO parent (id, name, bytes) VALUES (1, 'Zoë', X'00FF27'), (2, 'back\\\\slash\\n', NULL)",
    "INSERT INTO child VALUES (1, 1, '{\"a\": 1}', POINT(1, 2), '2020-01-01 00:00:00')",
    "CREATE TABLE logged (what VARCHAR(200))",
    "CREATE TABLE parts (n INT) PARTITION BY HASH (n) PARTITIONS 3",
    "INSERT INTO parts VALUES (1), (2), (3)",
    "CREATE TABLE `odd``na.me` (`col``umn` INT)",
    "CREATE FUNCTION uno() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE PROCEDURE p(INOUT x INT) BEGIN SET x = x + 1; INSERT INTO logged VALUES ('p'); END",
    "CREATE VIEW b AS SELECT * FROM parent",
    "CREATE VIEW a AS SELECT id, uno() AS uno FROM b",
    "CREATE TRIGGER first BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
    "CREATE TRIGGER second BEFORE INSERT ON parent FOR EACH ROW"
    " INSERT INTO logged VALUES (CURRENT_USER())",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00' DO CALL p(@x)",
    "ALTER DATABASE {} CHARACTER SET latin1 COLLATE latin1_swedish_ci",
]
DESCRIBED = {
    "columns": "SELECT table_name, column_name, column_type, collation_name, generation_expression "
    "FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, ordinal_position",
    "keys": "SELECT constraint_name, table_name, referenced_table_name "
    "FROM information_schema.referential_constraints WHERE constraint_schema = %s ORDER BY 1",
    "routines": "SELECT routine_name, routine_type, definer, routine_definition, sql_mode "
    "FROM information_schema.routines WHERE routine_schema = %s ORDER BY 1",
    "triggers": "SELECT trigger_name, definer, action_statement, action_order, sql_mode "
    "FROM information_schema.triggers WHERE trigger_schema = %s ORDER BY 1",
    "views": "SELECT table_name, definer, view_definition FROM information_schema.views "
    "WHERE table_schema = %s ORDER BY 1",
    "events": "SELECT event_name, definer, event_definition, starts, status, time_zone "
    "FROM information_schema.events WHERE event_schema = %s ORDER BY 1",
    "charset": "SELECT default_collation_name FROM information_schema.schemata "
    "WHERE schema_name = %s",
    "grants": "SELECT * FROM mysql.db WHERE db = %s ORDER BY user",
    "on tables": "SELECT user, table_name, table_priv, column_priv FROM mysql.tables_priv "
    "WHERE db = %s ORDER BY 1, 2",
    "on columns": "SELECT user, table_name, column_name, column_priv FROM mysql.columns_priv "
    "WHERE db = %s ORDER BY 1, 2",
    "on routines": "SELECT user, routine_name, proc_priv FROM mysql.procs_priv "
    "WHERE db = %s ORDER BY 1, 2",
}


def described(server: Server, database: str) -> dict[str, object]:
    """Everything that a tenant sees of a database."""
    with server.superuser() as session:
        found: dict[str, object] = {
            name: rows(session, query, database) for name, query in DESCRIBED.items()
        }
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        for (table,) in rows(session, tables, database):
            quoted = str(table).replace("`", "``")
            found[str(table)] = sorted(
                map(str, rows(session, f"SELECT * FROM `{database}`.`{quoted}`"))
            )
    found["levels"] = {
        one.user: one.permission for one in server.administration.privileges(database=database)
    }
    return found


def leftovers(server: Server) -> list[object]:
    with server.superuser() as session:
        schemas = rows(session, "SHOW DATABASES LIKE '\\_rdb%%'")
        return [*schemas, *rows(session, "SELECT user FROM mysql.user WHERE user = '_rdb_restore'")]


@pytest.fixture
def filled(mysql: Server, office: str) -> Iterator[str]:
    """A database with all that there can be, and users of each level."""
    inside = mysql.administration
    for user, level in (("bob", "readonly"), ("mig", "all"), ("cus", "none")):
        inside.create_user(user, mysql.verifier, is_admin=False)
        inside.set_privilege(office, user, level)  # type: ignore[arg-type]
    with mysql.session("mig", office) as mig:
        for statement in MADE:
            mig(statement.replace("{}", office))
    with mysql.session("admin") as admin:
        admin(f"GRANT SELECT (id), UPDATE (name) ON {office}.parent TO cus")
        admin(f"GRANT EXECUTE ON PROCEDURE {office}.p TO cus")
        admin(f"GRANT INSERT ON {office}.`odd``na.me` TO cus")
    yield office


@pytest.fixture
def transfers(mysql: Server, short_tmp: Path) -> Transfers:
    return Transfers(mysql.node, short_tmp)


def test_a_dropped_database_comes_back(mysql: Server, filled: str, transfers: Transfers) -> None:
    before = described(mysql, filled)
    done = transfers.dump(filled)
    assert done.status == "done", done
    mysql.administration.delete_database(filled)
    restored = transfers.restore(done, filled)
    assert restored.status == "done", restored
    assert described(mysql, filled) == before
    assert not leftovers(mysql)
    with mysql.session("mig", filled) as mig:
        mig("INSERT INTO parent (name) VALUES ('ann')")
        assert mig("SELECT name FROM parent ORDER BY id DESC LIMIT 1") == [("ANN",)]


def test_the_first_database_comes_back(mysql: Server, office: str, transfers: Transfers) -> None:
    """Its name is no new database's, but an administrator may have dropped it by SQL."""
    with mysql.session("admin", "rdb") as admin:
        admin("CREATE TABLE kept AS SELECT 7 AS n")
        done = transfers.dump("rdb")
        admin("DROP DATABASE rdb")
    restored = transfers.restore(done, "rdb")
    assert restored.status == "done", restored
    assert {one.name: one.managed for one in mysql.administration.databases(sizes=False)}["rdb"]
    with mysql.session("admin", "rdb") as admin:
        assert admin("SELECT n FROM kept") == [(7,)]
        admin("DROP TABLE kept")


def test_what_was_changed_since_is_as_at_the_dump(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    before = described(mysql, filled)
    done = transfers.dump(filled)
    mysql.administration.set_privilege(filled, "bob", "readwrite")
    with mysql.session("mig", filled) as mig:
        mig("DELETE FROM parent WHERE id = 1")
        mig("DROP TRIGGER first")
        mig("CREATE VIEW later AS SELECT 1")
        mig("CREATE TABLE later_too (n INT)")
        mig("CREATE TRIGGER later BEFORE INSERT ON later_too FOR EACH ROW SET NEW.n = 1")
        mig("DROP EVENT e")
    restored = transfers.restore(done, filled)
    assert restored.status == "done", restored
    assert described(mysql, filled) == before
    assert not leftovers(mysql)


@pytest.mark.parametrize("client", ["binary", "geostd8", "latin1"])
def test_what_clients_of_any_character_set_defined(
    mysql: Server, filled: str, transfers: Transfers, client: str
) -> None:
    """Also what Python knows no name of, and bytes that its tables leave undefined."""
    with mysql.session("mig", filled) as mig:
        mig(f"SET NAMES {client}")
        mig.connection.query(b"CREATE PROCEDURE said() SELECT 'a'")  # type: ignore[attr-defined]
        mig.connection.query(  # type: ignore[attr-defined]
            b"CREATE EVENT late ON SCHEDULE EVERY 1 DAY STARTS '2040-01-01 00:00:00' DO "
            + (b"SELECT '\x81\xe9'" if client == "latin1" else b"SELECT 'a'")
        )
    before = described(mysql, filled)
    restored = transfers.restore(transfers.dump(filled), filled)
    assert restored.status == "done", restored
    assert described(mysql, filled) == before
    assert not leftovers(mysql)


def test_grants_on_what_was_dropped_keep_nobody_from_restoring(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    with mysql.session("admin", filled) as admin:
        admin("CREATE TABLE short (n INT, m INT)")
        admin(f"GRANT SELECT ON {filled}.logged TO cus")
        admin(f"GRANT SELECT (m) ON {filled}.short TO cus")
        admin("DROP TABLE logged")
        admin("ALTER TABLE short DROP COLUMN m")
        admin("DROP TRIGGER second")
    restored = transfers.restore(transfers.dump(filled), filled)
    assert restored.status == "done", restored
    with mysql.superuser() as session:
        granted = "SELECT table_name FROM mysql.tables_priv WHERE db = %s AND user = 'cus'"
        assert set(rows(session, granted, filled)) == {("odd`na.me",), ("parent",)}


def test_a_limit_of_who_is_an_administrator_no_more(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    inside = mysql.administration
    inside.create_user("boss", mysql.verifier, is_admin=True)
    with mysql.session("admin") as admin:
        admin(f"REVOKE DELETE ON {filled}.* FROM boss")
    done = transfers.dump(filled)
    inside.update_user("boss", verifier=None, is_admin=False)
    restored = transfers.restore(done, filled)
    assert restored.status == "done", restored


MADE_MEANWHILE = """
import openrdb.engines.mysql.dump as dump
from openrdb.engines.mysql.sql import run
read = dump.contents.read
def read_before(session, database):
    found = read(session, database)
    run(session, f"CREATE TABLE {database}.meanwhile (n INT)")
    return found
dump.contents.read = read_before
"""


def test_a_table_that_is_made_meanwhile_is_not_in_it(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    before = described(mysql, filled)
    order = transfers.order_of_dump(filled)
    done = transfers.end(transfers.start(order, first=MADE_MEANWHILE))
    restored = transfers.restore(done, filled)
    assert restored.status == "done", restored
    assert described(mysql, filled) == before


MANY = 900
LOW_LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_STACK, (2**19, 2**26)); "
"""A command line may have 128 KiB then, as it may have 2 MiB where nobody has set a limit."""


def test_names_of_many_tables_fit(mysql: Server, office: str, transfers: Transfers) -> None:
    names = [f"{number:04}" + "\u8868" * 48 for number in range(MANY)]
    assert len("".join(names).encode()) > 2**17
    with mysql.superuser() as session, session.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE TABLE office.`{name}` (n INT) ENGINE=InnoDB")
        cursor.execute(f"INSERT INTO office.`{names[-1]}` VALUES (7)")
    done = transfers.end(transfers.start(transfers.order_of_dump(office), first=LOW_LIMIT))
    assert done.status == "done", done
    mysql.administration.delete_database(office)
    restored = transfers.restore(done, office)
    assert restored.status == "done", restored
    with mysql.superuser() as session:
        counted = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'office'"
        assert rows(session, counted) == [(MANY,)]
        assert rows(session, f"SELECT n FROM office.`{names[-1]}`") == [(7,)]
