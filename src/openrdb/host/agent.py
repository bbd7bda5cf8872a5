"""The host agent: the `Host` interface that operations call, and its in-process implementation.

Every call says what it ensures, so that repeating one after a crash is harmless. A remote agent will
speak the same interface over mTLS.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import shutil
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol
from uuid import UUID

from openrdb.catalog.engines import engine_version
from openrdb.engines import engine_of
from openrdb.engines.base import Administration
from openrdb.errors import HostError, TransientState
from openrdb.host import logs
from openrdb.host.balancer import Balancer, Choice, Target, balancer
from openrdb.host.bundles.cache import Bundles
from openrdb.host.bundles.shared import bundles_for_accounts
from openrdb.host.processes import Program, Supervisor, Supervisord, environment_of
from openrdb.host.templates import Templates
from openrdb.host.volumes import DirectoryPool
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts, files, locks
from openrdb.system.layout import Layout

_ACCEPT_TIMEOUT = 300.0
_START_ATTEMPTS = 2
_HEAL_TIMEOUT = 10.0
"""Seconds in which an engine that was found dead is back."""
_LEAST_FREE = 512 * 2**20
"""Bytes that the pool must have left before it takes another volume."""


class Host(Protocol):
    """A machine that runs nodes."""

    def port_is_free(self, address: str, port: int) -> bool: ...

    def ensure_volume(self, spec: NodeSpec) -> None: ...

    def prepare_spare(self, spec: NodeSpec) -> None:
        """Begin to make a volume for the next instance of the same version."""

    def ensure_certificate(self, spec: NodeSpec) -> None:
        """Write the node's key and certificates where its engine reads them."""

    def server_key(self, instance_id: UUID, node_id: UUID) -> str | None:
        """Return the key of the certificate that a node presents, if it has one."""

    def ensure_configuration(self, spec: NodeSpec) -> None: ...

    def ensure_running(self, spec: NodeSpec) -> None: ...

    def ensure_accepting(self, spec: NodeSpec) -> None: ...

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None: ...

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        """Have the engine read its files again; whether some of it waits for a restart."""

    def check_configuration(self, spec: NodeSpec) -> str | None:
        """Why the engine would not take the spec's settings; None where it says nothing."""

    def start_failure(self, spec: NodeSpec) -> str | None:
        """Wait until the engine accepts connections; why it does not come up, where it does not."""

    def administration(
        self, spec: NodeSpec, *, changing: bool = False
    ) -> AbstractContextManager[Administration]:
        """What is inside the running engine; the thread that changes it is alone in that."""

    def ensure_stopped(self, spec: NodeSpec) -> None: ...

    def ensure_balancer(self, target: Target) -> None: ...

    def ensure_no_balancer(self, target: Target) -> None: ...

    def ensure_logs_pruned(self, spec: NodeSpec, days: int | None, size: int | None) -> None:
        """Remove logs older than some days, then the oldest beyond some bytes in all."""

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID]) -> None: ...


class LocalHost:
    """This machine, within the control plane's process."""

    def __init__(
        self,
        layout: Layout,
        bundles: Bundles,
        supervisor: Supervisor,
        balancer: Balancer,
        *,
        spares: int,
    ) -> None:
        self._layout = layout
        self._bundles = bundles
        self.supervisor = supervisor
        self._pool = DirectoryPool(layout.root)
        self._template_secret = _template_secret(layout)
        self._templates = Templates(
            layout.templates, self._pool, spares, lambda _: self._template_secret
        )
        self._deciding: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._changing: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._balancer = balancer

    def close(self) -> None:
        self._templates.close()

    def prepare_templates(self, names: Collection[str] | None) -> None:
        """Have templates of engine versions (None: all) made in the background, newest first."""
        for name, bundle in sorted(self._bundles.installed().items(), reverse=True):
            version = engine_version(name)
            current = version is not None and not version.disabled
            if name in names if names is not None else current:
                self._templates.prepare(bundle, engine_of(name), {})

    def port_is_free(self, address: str, port: int) -> bool:
        return self._balancer.is_free((address, port))

    # -- files ---------------------------------------------------------------------------------

    def ensure_volume(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        for parent in (paths.root.parent.parent, paths.root.parent, paths.root):
            accounts.ensure_passage(parent, spec.uid)
        if paths.data.exists():
            return
        if self._pool.free() < _LEAST_FREE:
            raise HostError(f"no space left in {self._layout.root}")
        partial = paths.root / "data.partial"
        self._pool.delete(partial)
        bundle = self._bundles.find(spec.engine)
        init = spec.init_settings
        self._templates.take(bundle, engine_of(spec.engine), init, partial, spec.uid)
        partial.rename(paths.data)
        for directory in (paths.root, paths.root.parent, paths.root.parent.parent):
            files.sync_directory(directory)
        files.sync_directory(self._layout.root / "instances")

    def prepare_spare(self, spec: NodeSpec) -> None:
        bundle = self._bundles.find(spec.engine)
        self._templates.prepare(bundle, engine_of(spec.engine), spec.init_settings)

    def ensure_certificate(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        accounts.ensure_passage(paths.configuration, spec.uid)
        if spec.certificate is None:
            raise HostError(f"node {spec.node_id} is specified without a certificate")
        accounts.write_file(paths.key, spec.certificate.key, spec.uid)
        accounts.write_file(paths.certificate, spec.certificate.presented, spec.uid)
        accounts.write_file(paths.authority, spec.certificate.authority, spec.uid)

    def server_key(self, instance_id: UUID, node_id: UUID) -> str | None:
        key = self._layout.node(instance_id, node_id).key
        return key.read_text() if key.exists() else None

    def ensure_configuration(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        accounts.ensure_passage(paths.configuration, spec.uid)
        for directory in (paths.log, paths.sockets):
            accounts.ensure_directory(directory, spec.uid)
        bundle = self._bundles.find(spec.engine)
        for name, text in engine_of(spec.engine).configuration(spec, bundle, paths).items():
            accounts.write_file(paths.configuration / name, text, spec.uid)

    def ensure_logs_pruned(self, spec: NodeSpec, days: int | None, size: int | None) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)

        def reopen() -> None:
            if self._wait_accepting(spec, _HEAL_TIMEOUT):  # else its next start opens them
                engine_of(spec.engine).reopen_logs(spec, paths, spec.secret)

        with self._changing[spec.instance_id]:
            logs.prune(paths.log, days, size, reopen)

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID]) -> None:
        self._deciding.pop(instance_id, None)
        self._changing.pop(instance_id, None)
        directory = self._layout.instance(instance_id)
        for place in (directory, *map(self._layout.sockets, [instance_id, *node_ids])):
            if place.exists():
                shutil.rmtree(place)
        if directory.parent.exists():
            files.sync_directory(directory.parent)

    # -- processes -----------------------------------------------------------------------------

    def program(self, spec: NodeSpec) -> Program:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        engine, bundle = engine_of(spec.engine), self._bundles.find(spec.engine)
        return Program(
            name=f"node-{spec.node_id}",
            command=accounts.as_account(spec.uid, engine.command(bundle, paths)),
            lock=self._layout.program_lock(spec.instance_id, f"node-{spec.node_id}"),
            output=paths.root / "start.out",
            environment=environment_of(paths.root) | bundle.environment,
            stop_signal=engine.stop_signal,
        )

    def balancer_programs(self, targets: Sequence[Target]) -> list[Program]:
        return [program for program in map(self._balancer.program, targets) if program]

    def ensure_running(self, spec: NodeSpec) -> None:
        self.supervisor.ensure_running(self.program(spec))

    def ensure_accepting(self, spec: NodeSpec) -> None:
        if not self._wait_accepting(spec, _ACCEPT_TIMEOUT):
            output = self.program(spec).output
            log = self._layout.node(spec.instance_id, spec.node_id).log
            raise HostError(f"the engine does not start; see {output} and {log}")

    def _wait_accepting(self, spec: NodeSpec, timeout: float) -> bool:
        """Whether the engine accepts connections within some seconds, however often it ends."""
        program = self.program(spec)
        paths = self._layout.node(spec.instance_id, spec.node_id)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            pid = self._wait_started(program, left)
            if pid and engine_of(spec.engine).wait_accepting(paths, pid, left):
                return True
        return False

    def _wait_started(
        self, program: Program, timeout: float, *, or_failed: bool = False
    ) -> int | None:
        found: list[int] = []

        def started() -> bool:
            found[:] = [pid for pid in [locks.holder(program.lock)] if pid]
            # It may have run too shortly to be seen.
            return bool(found) or (or_failed and self.supervisor.has_failed(program))

        files.wait_for(program.lock.parent, started, timeout)
        return found[0] if found else None

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        both = (self._template_secret, spec.secret)
        engine_of(spec.engine).bootstrap(spec, paths, both, administrator)

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        self.ensure_accepting(spec)
        paths = self._layout.node(spec.instance_id, spec.node_id)
        return engine_of(spec.engine).reload(spec, paths, spec.secret)

    def check_configuration(self, spec: NodeSpec) -> str | None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        engine, bundle = engine_of(spec.engine), self._bundles.find(spec.engine)
        with accounts.temporary_directory(paths.configuration, spec.uid) as place:
            for name, text in engine.configuration(spec, bundle, paths).items():
                accounts.write_file(place / name, text, spec.uid)
            return engine.check_configuration(spec, bundle, paths, place)

    def start_failure(self, spec: NodeSpec) -> str | None:
        program = self.program(spec)
        paths = self._layout.node(spec.instance_id, spec.node_id)
        for attempt in range(_START_ATTEMPTS):  # one may have been ended by somebody's hand
            if attempt > 0:  # at once, not after the supervisor's pause, which is longer each time
                self.supervisor.stop(program)
                self.supervisor.ensure_running(program)
            pid = self._wait_started(program, _ACCEPT_TIMEOUT, or_failed=True)
            if pid and engine_of(spec.engine).wait_accepting(paths, pid, _ACCEPT_TIMEOUT):
                return None
        return engine_of(spec.engine).last_words(paths, program.output)

    @contextmanager
    def administration(self, spec: NodeSpec, *, changing: bool = False) -> Iterator[Administration]:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        engine = engine_of(spec.engine)
        if not self._wait_accepting(spec, _HEAL_TIMEOUT):
            raise TransientState("instance", str(spec.instance_id), "autohealing")
        inside = engine.administration(spec, paths, spec.secret)
        if changing:
            with self._changing[spec.instance_id]:
                yield inside
        else:
            yield inside

    def ensure_running_if(
        self, instance_id: UUID, program: Program, wanted: Callable[[], bool]
    ) -> None:
        """Have a program run if it is still wanted; no operation stops it in between."""
        with self._deciding[instance_id]:
            if wanted():
                self.supervisor.ensure_running(program)

    def ensure_stopped(self, spec: NodeSpec) -> None:
        with self._deciding[spec.instance_id]:
            self.supervisor.stop(self.program(spec))

    def ensure_balancer(self, target: Target) -> None:
        self._balancer.ensure(target)

    def ensure_no_balancer(self, target: Target) -> None:
        with self._deciding[target.instance_id]:
            self._balancer.remove(target)

    def balancer_alarm(self) -> socket.socket | None:
        return self._balancer.alarm()

    def ensure_balancers(
        self, targets: Collection[Target], wanted: Callable[[], Collection[Target]]
    ) -> None:
        """Put back what was lost of endpoints that are still wanted; no operation removes one of them
        in between."""
        concerned = {target.instance_id for target in self._balancer.missing(targets)}
        if not concerned:
            return
        with ExitStack() as deciding:
            for instance_id in concerned:
                deciding.enter_context(self._deciding[instance_id])
            self._balancer.ensure_all([t for t in wanted() if t.instance_id in concerned])


def local_host(
    root: Path, cache: Path, spares: int, choice: Choice, aliases: Mapping[str, str]
) -> LocalHost:
    """This machine, with its state below `root` and its bundles in `cache`."""
    layout = Layout(root)
    layout.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    (root / "instances").mkdir(mode=0o711, exist_ok=True)
    bundles = bundles_for_accounts(cache, root / "bundles", aliases)
    supervisor = Supervisord(layout.run)
    driver = balancer(choice, layout, bundles.haproxy(), supervisor)
    return LocalHost(layout, bundles, supervisor, driver, spares=spares)


def _template_secret(layout: Layout) -> str:
    """Return the password of the superuser in templates, which each instance replaces at birth.

    An older version derived it from the master key; templates that it made still have that one.
    """
    path = layout.template_secret
    if not path.exists():
        secret = secrets.token_hex(32)
        if layout.templates.exists() and layout.master_key.exists():
            secret = hmac.digest(layout.master_key.read_bytes(), b"template", hashlib.sha256).hex()
        accounts.write_file(path, secret, None)
        files.sync_directory(path.parent)
    return path.read_text()
