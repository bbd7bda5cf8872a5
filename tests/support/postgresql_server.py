"""A real server of a version, as an instance's node has it, without a control plane around it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psycopg

from openrdb import certificates
from openrdb.engines import server_of, templates_of
from openrdb.engines.base import Administration, EngineNode
from openrdb.engines.base import Server as EngineServer
from openrdb.engines.postgresql import session as superuser
from openrdb.engines.postgresql.scram import verifier
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.service import PASSWORD

Connection = psycopg.Connection[Any]

SECRETS = ("a-secret-of-the-tests", "another-secret-of-the-tests")
REPLICATION_SECRET = "a-secret-of-the-nodes"
VERIFIER = verifier(PASSWORD)
_ROLES = "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname !~ '^(pg_|_rdb|admin$)'"
_SETTINGS = {"max_connections": "100", "max_locks_per_transaction": "10"}
"""So few locks that some hundred tables are as hard as thousands elsewhere."""


class Server:
    """Runs within its context, in a directory of its own; `inside` is what is under test."""

    def __init__(self, place: Path, bundle: Bundle, engine: str, port: int) -> None:
        self.bundle, self._place = bundle, place
        self.major = int(engine.rpartition("-")[2])
        self.paths = NodePaths(root=place, sockets=place / "s")
        self.spec = NodeSpec(
            instance_id=uuid4(),
            node_id=uuid4(),
            engine=engine,
            address="127.0.0.1",
            port=port,
            uid=accounts.template_account(),
            memory=2**31,
            settings=_SETTINGS,
        )
        self.secret = SECRETS[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> EngineNode:
        return EngineNode(self.spec, self.bundle, self.paths, self.secret)

    @property
    def engine(self) -> EngineServer:
        return server_of(self.spec, self.bundle, self.paths, self.secret)

    @property
    def inside(self) -> Administration:
        return self.engine.administration()

    def __enter__(self) -> Self:
        spec, paths, uid = self.spec, self.paths, self.spec.uid
        for directory in (paths.log, paths.sockets):
            accounts.ensure_directory(directory, uid)
        accounts.ensure_passage(paths.configuration, uid)
        templates_of(spec.engine).make(self.bundle, paths.data, uid, SECRETS[0], {})
        of_instance = (spec.instance_id, "fr-par", [spec.address])
        made = certificates.issue(certificates.make_authority(*of_instance), *of_instance)
        accounts.write_file(paths.certificate, made.presented, uid)
        accounts.write_file(paths.key, made.key, uid)
        self._start()
        administrator = Administrator("admin", VERIFIER)
        self.engine.bootstrap(SECRETS[0], REPLICATION_SECRET, administrator)
        return self

    def files(self, spec: NodeSpec) -> dict[str, str]:
        return server_of(spec, self.bundle, self.paths, self.secret).configuration()

    def _start(self) -> None:
        for name, text in self.files(self.spec).items():
            accounts.write_file(self.paths.configuration / name, text, self.spec.uid)
        self._process = subprocess.Popen(
            accounts.as_account(self.spec.uid, self.engine.command()),
            cwd="/",
            env={"LC_ALL": "C.UTF-8"} | self.bundle.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self.engine.wait_accepting(self._process.pid, 60)

    def _stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(self.engine.stop_signal)
        self._process.wait(60)

    def refusal(self) -> str | None:
        """Why the API refuses the settings of `spec`; None if it does not."""
        directory = self._place / "check"
        accounts.ensure_passage(directory, self.spec.uid)
        for name, text in self.files(self.spec).items():
            accounts.write_file(directory / name, text, self.spec.uid)
        return self.engine.check_configuration(directory)

    def reconfigure(self, spec: NodeSpec) -> None:
        """Start anew with other settings."""
        self._stop()
        self.spec = spec
        self._start()

    def __exit__(self, *_: object) -> None:
        self._stop()
        shutil.rmtree(self._place)

    def session(
        self, user: str = "admin", database: str = "rdb", password: str = PASSWORD
    ) -> Connection:
        """A user's session, as from outside."""
        try:
            return psycopg.connect(
                host=self.spec.address,
                port=self.spec.port,
                user=user,
                password=password,
                dbname=database,
                autocommit=True,
                connect_timeout=10,
            )
        except psycopg.OperationalError:
            assert self.is_running, self.how_it_ended()
            raise

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def how_it_ended(self) -> str:
        assert self._process is not None
        said = "".join(path.read_text() for path in sorted(self.paths.log.iterdir()))
        return f"the server ended with {self._process.returncode}: {said[-3000:]}"

    def run(self, program: str, *arguments: str) -> None:
        """A client program of the bundle's, as the administrator."""
        where = {"PGHOST": self.spec.address, "PGPORT": str(self.spec.port), "PGUSER": "admin"}
        subprocess.run(
            [str(self.bundle.program(program)), *arguments],
            env=self.bundle.environment | where | {"PGPASSWORD": PASSWORD},
            check=True,
        )

    def superuser(self, database: str = "postgres") -> Connection:
        connection = superuser.connect(self.node, database)
        connection.autocommit = True
        return connection

    def tidy(self) -> None:
        """As at birth again, whatever a test has left."""
        for database in self.inside.databases(sizes=False):
            self.inside.delete_database(database.name)
        with self.superuser() as connection:
            for (role,) in connection.execute(_ROLES).fetchall():
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        self.inside.update_user("admin", verifier=VERIFIER, is_admin=True)
        self.inside.create_database("rdb")
