"""Flyway and Liquibase, by their libraries and the JDBC drivers."""

from __future__ import annotations

from pathlib import Path

from tests.support.applications.fetching import Maven, fetched
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, on, run

_DRIVERS = ("org.postgresql:postgresql:42.7.14", "com.mysql:mysql-connector-j:9.7.0")
_FLYWAY = Maven(
    (
        "org.flywaydb:flyway-core:13.12.0",
        "org.flywaydb:flyway-database-postgresql:13.12.0",
        "org.flywaydb:flyway-mysql:13.12.0",
        *_DRIVERS,
    )
)
_LIQUIBASE = Maven(("org.liquibase:liquibase-core:4.33.0", "info.picocli:picocli:4.7.7", *_DRIVERS))
NEEDS = (_FLYWAY, _LIQUIBASE)
_MIGRATED = """
import org.flywaydb.core.Flyway;
class Migrated {
  public static void main(String[] told) {
    var flyway = Flyway.configure().dataSource(told[0], told[1], System.getenv("PASSWORD"))
      .locations("filesystem:" + told[2]).cleanDisabled(false).load();
    System.out.println("migrated " + flyway.migrate().migrationsExecuted);
    flyway.validate();
    System.out.println("then " + flyway.migrate().migrationsExecuted);
    if (told.length > 3) { flyway.clean(); System.out.println("cleaned"); }
  }
}
"""
_FIRST = "CREATE TABLE things (id int PRIMARY KEY, name varchar(50) NOT NULL);"
_SECOND = {
    True: """
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN new.name := upper(new.name); RETURN new; END $$;
CREATE TRIGGER shouted BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION shout();
INSERT INTO things VALUES (1, 'chair');
""",
    False: """
DELIMITER $$
CREATE TRIGGER shouted BEFORE INSERT ON things FOR EACH ROW
BEGIN SET new.name = UPPER(new.name); END$$
DELIMITER ;
INSERT INTO things VALUES (1, 'chair');
""",
}
_VIEW = "CREATE VIEW names AS SELECT name FROM things;"
_CHANGES = """
databaseChangeLog:
  - changeSet:
      id: 1
      author: shop
      changes:
        - createTable:
            tableName: things
            columns:
              - column: {name: id, type: int, autoIncrement: true,
                         constraints: {primaryKey: true}}
              - column: {name: name, type: varchar(50), constraints: {unique: true}}
        - insert: {tableName: things, columns: [{column: {name: name, value: chair}}]}
        - addColumn: {tableName: things, columns: [{column: {name: price, type: "decimal(9,2)"}}]}
        - createIndex: {tableName: things, indexName: by_price, columns: [{column: {name: price}}]}
      rollback:
        - dropTable: {tableName: things}
"""


def url_of(tenancy: Tenancy, place: Path) -> str:
    login = tenancy.app
    to = f"{login.host}:{login.port}/{login.database}"
    if tenancy.is_postgresql:
        return f"jdbc:postgresql://{to}?sslmode=verify-full&sslrootcert={login.certificate}"
    store = place / "trusted.p12"
    if not store.exists():
        importing = ["keytool", "-importcert", "-noprompt", "-alias", "rdb"]
        where = ["-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit"]
        run([*importing, *where, "-file", str(login.certificate)], cwd=place)
    return (
        f"jdbc:mysql://{to}?sslMode=VERIFY_IDENTITY&trustCertificateKeyStoreUrl=file:{store}"
        "&trustCertificateKeyStorePassword=changeit"
    )


@on(*POSTGRESQL, *MYSQL)
def test_flyway(tenancy: Tenancy, tmp_path: Path) -> None:
    jars = fetched(_FLYWAY)
    if not tenancy.is_postgresql:
        tenancy.set("log_bin_trust_function_creators", "ON")  # for the trigger
    steps = tmp_path / "migrations"
    steps.mkdir()
    (steps / "V1__first.sql").write_text(_FIRST)
    (steps / "V2__second.sql").write_text(_SECOND[tenancy.is_postgresql])
    (steps / "R__names.sql").write_text(_VIEW)
    program = tmp_path / "Migrated.java"
    program.write_text(_MIGRATED)
    command = [
        "java",
        "-cp",
        f"{jars}/*",
        program,
        url_of(tenancy, tmp_path),
        tenancy.app.user,
        steps,
    ]
    environment = {"PASSWORD": tenancy.app.password}
    said = run(command, cwd=tmp_path, environment=environment)
    assert "migrated 3" in said
    assert "then 0" in said
    assert tenancy.count("SELECT COUNT(*) FROM names WHERE name = 'CHAIR'") == 1
    assert tenancy.count("SELECT COUNT(*) FROM flyway_schema_history WHERE success") == 3
    assert "cleaned" in run([*command, "clean"], cwd=tmp_path, environment=environment)
    left = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'things'"
    assert tenancy.count(left) == 0


@on(*POSTGRESQL, *MYSQL)
def test_liquibase(tenancy: Tenancy, tmp_path: Path) -> None:
    jars = fetched(_LIQUIBASE)
    (tmp_path / "changes.yaml").write_text(_CHANGES)
    main = "liquibase.integration.commandline.LiquibaseCommandLine"
    login = (f"--url={url_of(tenancy, tmp_path)}", f"--username={tenancy.app.user}")

    def liquibase(*arguments: str) -> str:
        given = (*login, "--changelog-file=changes.yaml", "--show-banner=false")
        command = ["java", "-cp", f"{jars}/*", main, *given, *arguments]
        environment = {"LIQUIBASE_COMMAND_PASSWORD": tenancy.app.password}
        return run(command, cwd=tmp_path, environment=environment)

    liquibase("update")
    assert tenancy.count("SELECT COUNT(*) FROM things WHERE name = 'chair' AND price IS NULL") == 1
    assert tenancy.count("SELECT COUNT(*) FROM DATABASECHANGELOG") == 1
    assert "is up to date" in liquibase("status")
    liquibase("rollback-count", "--count=1")
    assert tenancy.count("SELECT COUNT(*) FROM DATABASECHANGELOG") == 0
