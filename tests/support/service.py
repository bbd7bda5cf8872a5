"""A control plane under test: served as users serve it, killed as crashes kill it."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psutil
import psycopg
import pytest
import requests
from scaleway import Client
from scaleway.rdb.v1 import Instance, InstanceLog, RdbV1API

from openrdb.host.bundles.cache import Bundles
from openrdb.state import models
from openrdb.state.database import Database
from openrdb.state.sealing import load_keyring
from openrdb.state.secrets import Secrets
from openrdb.system import files
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout
from tests.support.place import new_place
from tests.support.tenants import Login, tenant_of

ROOT = Path(__file__).parents[2]
PASSWORD = "Correct-horse-7-battery"
START_TIMEOUT = 180.0
INSTANCE_TRANSIENT = (*("provisioning", "initializing", "configuring", "restarting", "backuping"),)
_PORTS_OF_WORKER = 600
_PAUSE, _LONGEST_PAUSE = 0.02, 0.2


def ports_of_worker(worker: str, block: int) -> tuple[int, int, int, int]:
    """First and last port for endpoints, then for nodes: no two workers share any."""
    offset = (2 * _number(worker) + block) * _PORTS_OF_WORKER
    last = offset + _PORTS_OF_WORKER - 1
    return 20000 + offset, 20000 + last, 12000 + offset, 12000 + last


def port_of_server(worker: str, number: int) -> int:
    """A port for a server that tests run without a control plane; each fixture has numbers of its own,
    as some run as long as the worker does. No service takes it, nor the one 100 below."""
    return 10399 + 200 * _number(worker) - number


def _number(worker: str) -> int:
    return int(worker.removeprefix("gw") or 0) if worker.startswith("gw") else 0


def unprivileged() -> list[str]:
    """What precedes a command so that it runs without root."""
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam("nobody")
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--"]


def _reachable(path: Path) -> bool:
    check = [*unprivileged(), "test", "-r", str(path), "-a", "-x", str(path)]
    return subprocess.run(check, check=False).returncode == 0


def users_cache() -> Path:
    return Path(os.environ.get("OPENRDB_CACHE", "~/.cache/openrdb")).expanduser()


def cache_with(engine: str, build: str) -> Path:
    """The user's cache if it has this build of an engine version; else another cache with it.

    Skips the test where this host cannot fetch the build.
    """
    place = users_cache()
    (release,) = Bundles(place).builds(engine, build)
    if Bundles(place).of(release) is None:
        place = place.with_name(f"{place.name}-{build}")
        if Bundles(place).of(release) is None and (why := release.why_not(None)):
            pytest.skip(f"{engine} of {build}: {why}")
        Bundles(place).install(release)
        Bundles(place).haproxy()
    return place


def accessible_cache(cache: Path) -> Path:
    """A cache, or a hard-linked copy of it that other accounts can reach."""
    if _reachable(cache):
        return cache
    copy = Path("/tmp") / f"ordb-{cache.name}-{os.getpid()}"
    _link_tree(cache, copy)
    _opened.append(copy)
    return copy


def _link_tree(source: Path, target: Path) -> None:
    linked = subprocess.run(["cp", "-al", str(source), str(target)], check=False)
    if linked.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)
    target.chmod(0o755)


_opened: list[Path] = []


def remove_opened() -> None:
    """Remove what was made for other accounts to reach."""
    for path in _opened:
        shutil.rmtree(path, ignore_errors=True)
    _opened.clear()


def installed(cache: Path, engine: str) -> str:
    """That version's name; skips where it is not installed, and cannot be by `make setup`."""
    bundles = Bundles(cache)
    if engine not in bundles.installed():
        release = bundles.builds(engine)[0]
        why = release.why_not(None) or ("" if release.default else "it is not installed by default")
        assert why, f"{engine} is not installed: run openrdb engines install"
        pytest.skip(f"{engine}: {why}")
    return engine


def copies_itself(cache: Path, engine: str) -> bool:
    """Return whether a version's server can copy its data while it is at work."""
    return not engine.startswith("MySQL") or clone_plugin(Bundles(cache).find(engine)) is not None


def clone_plugin(bundle: Bundle) -> Path | None:
    """Return MySQL's, where the binaries have it."""
    return next(bundle.path.rglob("mysql_clone.so"), None)


def interpreter() -> tuple[str, dict[str, str]]:
    """A Python with OpenRDB that an unprivileged account can run, and the environment it needs."""
    packages = next(Path(sys.prefix, "lib").glob("python*/site-packages"))
    places = [ROOT / "src", packages]
    if not all(map(_reachable, places)):
        base = Path("/tmp") / f"ordb-python-{os.getpid()}"
        if not base.exists():
            base.mkdir(mode=0o755)
            _opened.append(base)
            for number, place in enumerate(places):
                _link_tree(place, base / str(number))
        places = [base / str(number) for number in range(len(places))]
    python = Path(sys.executable).resolve()
    assert _reachable(python), f"{python} is out of an unprivileged account's reach"
    return str(python), {"PYTHONPATH": os.pathsep.join(map(str, places))}


class Service:
    """`openrdb serve` on a data directory of its own; leaving the context removes all traces."""

    def __init__(
        self, cache: Path, ports: tuple[int, int, int, int], *, as_root: bool = False
    ) -> None:
        self.as_root = as_root
        self.home = new_place()
        self.data_dir = self.home / "data"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OPENRDB_CACHE": str(cache),
            "OPENRDB_ENDPOINT_PORTS": f"[{ports[0]},{ports[1]}]",
            "OPENRDB_NODE_PORTS": f"[{ports[2]},{ports[3]}]",
            "OPENRDB_PRIVATE_RANGE": f"127.{64 + (ports[0] - 20000) // _PORTS_OF_WORKER}.0.0/16",
            "OPENRDB_SWEEP": "0.5",
            "OPENRDB_SCHEDULE_ROUND": "0.5",
            "OPENRDB_METRICS_ROUND": "2",
            "OPENRDB_WARM_ENGINES": "[]",
        }
        self.pools: dict[str, Path] = {}
        """Where volumes are besides the data directory."""
        self.process: subprocess.Popen[bytes] | None = None
        self.code: str | None = None
        """The sources that its commands run, if not this checkout's."""
        self.prefix: list[str] = []
        """What `serve` is run by."""

    def __enter__(self) -> Self:
        self.home.mkdir(mode=0o755)
        if os.geteuid() == 0 and not self.as_root:
            account = pwd.getpwnam("nobody")
            os.chown(self.home, account.pw_uid, account.pw_gid)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_everything()
        left = dict(self._processes())
        kill(left)
        files.remove_tree(self.home, 120)  # which may be deeper than Python recurses, and large
        assert not left, f"processes were left: {list(left.values())}"

    def add_pool(self, name: str, *volume_types: str, encrypted: bool = False) -> Path:
        """Let the next `serve` make volumes of these types in a directory of its own."""
        self.pools[name] = directory = self.home / name
        directory.mkdir(mode=0o755)
        os.chown(directory, self.home.stat().st_uid, -1)
        told = json.loads(self.environment.get("OPENRDB_POOLS", "{}"))
        told[name] = {
            "directory": str(directory),
            "volume_types": volume_types,
            "encrypted": encrypted,
        }
        self.environment["OPENRDB_POOLS"] = json.dumps(told)
        return directory

    def keep_recovery(self, **options: Any) -> Path:
        """Let the next `serve` have a directory for recovery to points in time."""
        directory = self.home / "recovery"
        directory.mkdir(mode=0o755, exist_ok=True)
        os.chown(directory, self.home.stat().st_uid, -1)
        told = {"directory": str(directory), "round": 0.5} | options
        self.environment["OPENRDB_RECOVERY"] = json.dumps(told)
        return directory

    # -- running -------------------------------------------------------------------------------

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        python, extra = interpreter()
        if self.code is not None:
            extra = {"PYTHONPATH": os.pathsep.join([self.code, extra["PYTHONPATH"]])}
        command = [python, "-m", "openrdb", *arguments]
        return ([] if self.as_root else unprivileged()) + command, self.environment | extra

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A command of the CLI, to its end."""
        command, environment = self.command(*arguments)
        return subprocess.run(
            command,
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def launch(self) -> None:
        """Start `openrdb serve`, without waiting for it."""
        serve = ("serve", "--data-dir", str(self.data_dir), "--listen", "127.0.0.1:0")
        command, environment = self.command(*serve)
        with (self.home / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *command], env=environment, cwd=self.home, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start `openrdb serve` and wait until it answers."""
        before = self._credentials_stamp()
        self.launch()
        wait_until(lambda: self._runs() and self._credentials_stamp() != before, START_TIMEOUT)
        wait_until(self.healthy, START_TIMEOUT)

    def _runs(self) -> bool:
        """Fail with what it last said if `openrdb serve` has ended."""
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "serve.log").read_text()[-3000:]
        return True

    def _credentials_stamp(self) -> int:
        path = self.data_dir / "credentials.json"
        return path.stat().st_mtime_ns if path.exists() else 0

    def healthy(self) -> bool:
        self._runs()
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the control plane alone."""
        if self.process is not None:
            if self.process.poll() is None:
                # What `serve` is run by hands no signals on.
                served = psutil.Process(self.process.pid)
                (served.children()[0] if self.prefix else served).send_signal(how)
            self.process.wait(30)
            self.process = None

    def kill_everything(self) -> None:
        """What a power cut leaves: no process at all."""
        self.kill()
        for _ in range(3):  # a supervisor may start another while it is killed
            kill(self.processes())
            psutil.wait_procs(self.processes(), timeout=10)
        assert not self.processes()

    def stop_everything(self) -> None:
        self.kill(signal.SIGTERM)
        if self.data_dir.exists():
            stopped = self.run("stop", "--data-dir", str(self.data_dir), "--json")
            assert stopped.returncode == 0, stopped.stderr
            assert json.loads(stopped.stdout) == {"stopped": str(self.data_dir)}

    def processes(self, *words: str) -> list[psutil.Process]:
        """All processes that belong to the data directory, and have all words in their command."""
        return [process for process, _ in self._processes(*words)]

    def commands(self, *words: str) -> list[str]:
        """The commands of these processes, also of those that have ended by now."""
        return [line for _, line in self._processes(*words)]

    def _processes(self, *words: str) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                mine = str(self.data_dir) in line or self._is_child_of_mine(process)
                alive = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if mine and alive and all(word in line for word in words):
                yield process, line

    def _is_child_of_mine(self, process: psutil.Process) -> bool:
        return any(str(self.data_dir) in " ".join(p.cmdline()) for p in process.parents()[:2])

    # -- the API -------------------------------------------------------------------------------

    @property
    def credentials(self) -> dict[str, str]:
        loaded: dict[str, str] = json.loads((self.data_dir / "credentials.json").read_text())
        return loaded

    @property
    def url(self) -> str:
        return self.credentials["SCW_API_URL"]

    @property
    def secret_key(self) -> str:
        return self.credentials["SCW_SECRET_KEY"]

    def sdk(self) -> RdbV1API:
        """The official SDK, configured as `openrdb env` says."""
        environment = self.credentials
        return RdbV1API(
            Client(
                access_key=environment["SCW_ACCESS_KEY"],
                secret_key=environment["SCW_SECRET_KEY"],
                default_project_id=environment["SCW_DEFAULT_PROJECT_ID"],
                default_organization_id=environment["SCW_DEFAULT_ORGANIZATION_ID"],
                default_region=environment["SCW_DEFAULT_REGION"],
                default_zone=environment["SCW_DEFAULT_ZONE"],
                api_url=environment["SCW_API_URL"],
            )
        )

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """A raw request to `/rdb/v1/regions/fr-par` + path, or to a path from the root."""
        headers = {"X-Auth-Token": self.secret_key, **options.pop("headers", {})}
        if not path.startswith("//"):
            path = f"/rdb/v1/regions/fr-par{path}"
        return requests.request(
            method, self.url + path.replace("//", "/"), headers=headers, timeout=60, **options
        )

    def create(self, engine: str = "PostgreSQL-17", **changes: Any) -> Instance:
        """A ready instance, with the administrator `admin`."""
        api = self.sdk()
        created = api.create_instance(**creation(engine, **changes))
        return ready(api, created.id)

    @contextmanager
    def connection(
        self,
        instance: Instance,
        user: str = "admin",
        password: str = PASSWORD,
        database: str = "rdb",
        **options: Any,
    ) -> Iterator[Any]:
        """A user's session, by TLS verified against the endpoint's address."""
        with self.login(instance, user, password, database).connect(**options) as session:
            yield session

    @contextmanager
    def superuser(
        self, instance: Instance, database: str = "rdb"
    ) -> Iterator[psycopg.Connection[Any]]:
        """A session of PostgreSQL's own superuser: by the Unix socket, and with the master key."""
        layout = Layout(self.data_dir)
        secret = self.superuser_secret(instance)
        (running,) = layout.instance(UUID(instance.id)).glob("nodes/*/data/postmaster.pid")
        lines = running.read_text().splitlines()
        place = {"host": lines[4], "port": lines[3], "user": "_rdb_superadmin", "dbname": database}
        with psycopg.connect(**place, password=secret, autocommit=True) as connection:
            yield connection

    def superuser_secret(self, instance: Instance) -> str:
        """The password of the engine's superuser, as the state has it sealed."""
        opened = Secrets(load_keyring(Layout(self.data_dir).master_key))
        state = Database(f"sqlite:///{self.data_dir}/state.sqlite")
        with closing(state), state.read() as session:
            return opened.open_for(session.get_one(models.Instance, UUID(instance.id))).superuser

    def make_due(self, instance: Instance) -> None:
        """Let the next run of an instance's backup schedule be due."""
        state = Database(f"sqlite:///{self.data_dir}/state.sqlite")
        with closing(state), state.write() as session:
            row = session.get_one(models.Instance, UUID(instance.id))
            row.backup_disabled, row.backup_next_run_at = False, models.now()

    def expire(self, log: InstanceLog) -> None:
        """Let the time of a copy of logs be over."""
        state = Database(f"sqlite:///{self.data_dir}/state.sqlite")
        with closing(state), state.write() as session:
            session.get_one(models.InstanceLog, UUID(log.id)).expires_at = models.now()

    def make_fatal(self, instance: Instance) -> None:
        """See to it that the instance's server does not start with its tenant's `fatal` settings."""
        layout = Layout(self.data_dir)
        (data,) = layout.instance(UUID(instance.id)).glob("nodes/*/data")
        tenant_of(instance.engine).make_fatal(data)

    def login(
        self,
        instance: Instance,
        user: str = "admin",
        password: str = PASSWORD,
        database: str = "rdb",
    ) -> Login:
        """By the first of its endpoints."""
        trusted, endpoint = self.certificate(instance), instance.endpoints[0]
        host, port = str(endpoint.ip), int(endpoint.port)
        return Login(instance.engine, host, port, user, password, trusted, database)

    def certificate(self, instance: Instance) -> Path:
        """A file with what the instance's certificate is now."""
        content = str(self.sdk().get_instance_certificate(instance_id=instance.id).content)
        path = self.home / f"{instance.id}.pem"
        partial = path.with_suffix(f".{threading.get_ident()}")
        partial.write_bytes(base64.b64decode(content))
        return partial.replace(path)  # whole for others that read it at this moment


def creation(engine: str = "PostgreSQL-17", **changes: Any) -> dict[str, Any]:
    """The arguments of an ordinary creation."""
    ordinary = {
        "engine": engine,
        "user_name": "admin",
        "password": PASSWORD,
        "node_type": "db-dev-s",
        "is_ha_cluster": False,
        "disable_backup": True,
        "volume_size": 0,
        "backup_same_region": False,
        "name": "test",
    }
    return ordinary | changes


def ready(api: RdbV1API, instance_id: str) -> Instance:
    """The instance when it has settled, and must be ready then.

    Without the SDK's waiter, which sleeps a second before it looks.
    """
    while (instance := api.get_instance(instance_id=instance_id)).status in INSTANCE_TRANSIENT:
        pass  # the answer is held until the status settles
    assert instance.status == "ready", instance.status
    return instance


def gone(api: RdbV1API, instance_id: str) -> bool:
    from scaleway import ScalewayException

    try:
        api.get_instance(instance_id=instance_id)
    except ScalewayException as error:
        return bool(error.status_code == 404)
    return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to processes, of which any may just be ending."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    """Until a condition of another process comes true; its own exceptions pass through."""
    deadline = time.monotonic() + timeout
    began = time.thread_time()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        # What takes much work to look at is looked at less often: others need the processors.
        spent = time.thread_time() - began
        time.sleep(min(max(_PAUSE, 2 * spent), _LONGEST_PAUSE))
        began = time.thread_time()


def in_background(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
