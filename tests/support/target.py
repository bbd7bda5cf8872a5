"""An instance under attack: its administrator's sessions, its API, and what its superuser sees."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests
from scaleway.rdb.v1 import Instance

from tests.support.service import PASSWORD, Service, ready
from tests.support.tenants import PostgreSQL

Connection = psycopg.Connection[Any]

ESTATE = """
    SELECT 'pg_authid', t::text FROM pg_authid t
    UNION ALL SELECT 'pg_auth_members', t::text FROM pg_auth_members t
    UNION ALL SELECT 'pg_db_role_setting', t::text FROM pg_db_role_setting t
    UNION ALL SELECT 'pg_database', row(oid, datname, datdba, datistemplate, datallowconn,
        datconnlimit, datacl)::text FROM pg_database
    UNION ALL SELECT 'pg_tablespace', t::text FROM pg_tablespace t
    UNION ALL SELECT 'pg_subscription', t::text FROM pg_subscription t
    UNION ALL SELECT 'pg_replication_origin', t::text FROM pg_replication_origin t
    UNION ALL SELECT 'pg_replication_slots', slot_name::text FROM pg_replication_slots
    UNION ALL SELECT 'pg_prepared_xacts', gid FROM pg_prepared_xacts
    UNION ALL SELECT 'pg_namespace', t::text FROM pg_namespace t WHERE nspname !~ 'temp'
    UNION ALL SELECT 'pg_extension', t::text FROM pg_extension t
    UNION ALL SELECT 'pg_language', t::text FROM pg_language t
    UNION ALL SELECT 'pg_event_trigger', t::text FROM pg_event_trigger t
    UNION ALL SELECT 'pg_foreign_data_wrapper', t::text FROM pg_foreign_data_wrapper t
    UNION ALL SELECT 'pg_foreign_server', t::text FROM pg_foreign_server t
    UNION ALL SELECT 'pg_default_acl', t::text FROM pg_default_acl t
    UNION ALL SELECT 'pg_shseclabel', t::text FROM pg_shseclabel t
    UNION ALL SELECT 'pg_largeobject', oid::text FROM pg_largeobject_metadata
    UNION ALL SELECT 'pg_proc', t::text FROM pg_proc t WHERE oid >= 16384
    UNION ALL SELECT 'pg_cast', t::text FROM pg_cast t WHERE oid >= 16384
    UNION ALL SELECT 'pg_operator', t::text FROM pg_operator t WHERE oid >= 16384
    UNION ALL SELECT 'pg_publication', t::text FROM pg_publication t
    UNION ALL SELECT 'pg_ts_dict', t::text FROM pg_ts_dict t WHERE oid >= 16384
    UNION ALL SELECT 'pg_class', row(oid, relname, relowner, relacl)::text FROM pg_class
        WHERE relnamespace::regnamespace::text !~ 'temp|toast'
    UNION ALL SELECT 'file', name || '=' || setting FROM pg_file_settings
"""
"""All that attacks would change: a line an object of any catalogue."""


@dataclass
class Target:
    service: Service
    instance: Instance

    @property
    def major(self) -> int:
        return int(self.instance.engine.rpartition("-")[2])

    @property
    def loot(self) -> Path:
        """A directory in which the server's account may write: a file in it is an escape."""
        return self.service.home / f"loot-{self.major}"

    def prepare(self) -> None:
        self.loot.mkdir()
        self.loot.chmod(0o777)
        with self.admin() as admin:
            admin.execute("CREATE ROLE helper")
            admin.execute("CREATE TABLE own (content text)")
            admin.execute("CREATE DATABASE mine")

    def admin(self, user: str = "admin", **options: Any) -> AbstractContextManager[Connection]:
        return self.service.connection(self.instance, user, **options)

    def line(self) -> str:
        return PostgreSQL().line(self.service.login(self.instance))

    def superuser(self, database: str = "rdb") -> AbstractContextManager[Connection]:
        return self.service.superuser(self.instance, database)

    def estate(self) -> set[tuple[str, str]]:
        """Everything that is there, as the superuser sees it, and the files that attacks wrote."""
        with self.superuser() as superuser:
            found = set(superuser.execute(ESTATE).fetchall())
        return found | {("loot", path.name) for path in self.loot.iterdir()}

    def call(self, method: str, path: str, **body: Any) -> requests.Response:
        options = {"json": body} if body else {}
        return self.service.request(method, f"/instances/{self.instance.id}{path}", **options)

    def done(self, method: str, path: str, **body: Any) -> Any:
        """What the API answers, which must be a success."""
        answer = self.call(method, path, **body)
        assert answer.status_code < 300, (method, path, answer.text)
        return answer.json() if answer.content else None

    def make_user(self, name: str, *, is_admin: bool = False) -> None:
        self.done("POST", "/users", name=name, password=PASSWORD, is_admin=is_admin)

    def set_level(self, user: str, permission: str, database: str = "rdb") -> None:
        where = {"database_name": database, "user_name": user}
        self.done("PUT", "/privileges", **where, permission=permission)

    def level(self, user: str, database: str = "rdb") -> str:
        path = f"/privileges?database_name={database}&user_name={user}"
        (row,) = self.done("GET", path)["privileges"]
        return str(row["permission"])

    def set_settings(self, **values: str) -> None:
        """Have them in force; what the version does not offer is left out."""
        offered = {setting["name"] for setting in self._offered()}
        settings = [{"name": n, "value": v} for n, v in values.items() if n in offered]
        if settings:
            self.done("POST", "/settings", settings=settings)
            self.settle()

    def _offered(self) -> list[dict[str, Any]]:
        path = f"/database-engines?name=PostgreSQL&version={self.major}"
        (engine,) = self.service.request("GET", path).json()["engines"]
        (version,) = engine["versions"]
        settings: list[dict[str, Any]] = version["available_settings"]
        return settings

    def settle(self) -> None:
        self.instance = ready(self.service.sdk(), self.instance.id)
