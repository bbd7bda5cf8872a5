"""This machine's nodes: what is written down of them, their files, processes and servers."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from openrdb.engines import end_signals_of, remove_shared_memory, server_of_node
from openrdb.engines.base import EngineNode, Server
from openrdb.errors import (
    HostError,
    NodeRemoved,
    OpenRDBError,
    OutdatedSpec,
    PoolMissing,
    PreconditionFailed,
    TransientState,
)
from openrdb.host import administration
from openrdb.host.backups import Backups
from openrdb.host.balancer import Choice, balancer
from openrdb.host.bundles.shared import bundles_for_accounts
from openrdb.host.cgroups import Cgroup, Cgroups
from openrdb.host.changes import NodeChanges
from openrdb.host.data_versions import DataVersions, renewal
from openrdb.host.guard import Guard
from openrdb.host.healing import Healer
from openrdb.host.jobs import Jobs
from openrdb.host.processes import STOP_TIMEOUT, Program, environment_of
from openrdb.host.records import NodeRecord, Records
from openrdb.host.routes import Routes
from openrdb.host.snapshots import Snapshots
from openrdb.host.templates import Templates, template_secret
from openrdb.host.underway import Underway
from openrdb.host.volume_space import RESERVE, VolumeSpaces
from openrdb.host.volumes.pools import Pools
from openrdb.spec import (
    DEFAULT_POOL,
    Administrator,
    Desired,
    NodeSpec,
)
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout, NodePaths

log = logging.getLogger(__name__)

_ACCEPT_TIMEOUT = 300.0
HEAL_TIMEOUT = 10.0
"""Seconds in which an engine that was found dead is back."""
LOGS_ROUND = 60.0
NODE = "node-"


class LocalNodes:
    """The part of `LocalHost` that runs servers."""

    def __init__(
        self,
        root: Path,
        cache: Path,
        *,
        build: str,
        spares: int,
        choice: Choice,
        aliases: Mapping[str, str],
        logs_round: float = LOGS_ROUND,
        trash: float = 0.0,
        pools: Mapping[str, Path] = MappingProxyType({}),
        volume_reserve: int = RESERVE,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self._build = build
        self._layout = layout = Layout(root)
        for directory in (layout.run, layout.instances):
            accounts.passable_directory(directory)
        self._bundles = bundles_for_accounts(cache, root / "bundles", aliases)
        self._pools = Pools(layout, pools)
        self._pool = self._pools.default
        self._healer = Healer()
        self._cgroups = Cgroups.find()
        self._ports_guard = Guard(layout)
        self._template_secret = template_secret(layout, self._pool)
        self._templates = Templates(layout.templates, self._pool, spares, self._template_secret)
        self._records = Records(layout)
        self._space = VolumeSpaces(layout, self._pools, volume_reserve)
        driver = balancer(choice, layout, self._bundles.haproxy(), self._healer, self._cgroups)
        self._routes = Routes(layout, self._records, driver)
        self._jobs = Jobs(layout.jobs)
        self._backups = Backups(layout, self._jobs)
        self._snapshots = Snapshots(layout, self._pools)
        self._underway = Underway()
        self._guards: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._configuring: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._filling: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._changing: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._pruning: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._logs_round = logs_round
        self._keep_trash = trash
        self._stop_timeout = stop_timeout
        self._making_room = threading.Lock()
        self._data_versions = DataVersions(self._records)
        self._changes = NodeChanges()

    # -- records -------------------------------------------------------------------------------

    def _accept(
        self, spec: NodeSpec, desired: Desired | None = None, *, earlier: bool = False
    ) -> NodeRecord:
        """Write down what a node should be.

        Args:
            earlier: a node that is not known yet was made by older code.

        Raises:
            OutdatedSpec: something newer is written down.
        """
        with self._guards[spec.node_id]:
            known = self._records.nodes.get(spec.node_id)
            if known is None:
                self._records.require_own_account(spec)
                bundle = self._bundles.find(spec.engine).name
                build = "" if earlier else self._build
                record = NodeRecord(
                    spec,
                    bundle,
                    desired=desired or "stopped",
                    renewed_for="" if earlier else renewal(bundle),
                    build=build,
                    pool=spec.pool,
                )
            elif known.spec.generation > spec.generation:
                raise OutdatedSpec(
                    f"node {spec.node_id} is known in generation {known.spec.generation}, "
                    f"asked for in {spec.generation}"
                )
            else:
                record = replace(known, spec=spec, desired=desired or known.desired)
            if record != known:
                self._ensure_places(record)
                self._ports_guard.ensure([spec])
                self._records.save_node(record)
                self._changes.note(spec.node_id)
            return record

    def _set_held(self, node_id: UUID, mark: str | None) -> None:
        """Write down whether a node's writes are held: see `NodeRecord.held`."""
        with self._guards[node_id]:
            self._records.save_node(replace(self._record(node_id), held=mark))

    def _paths(self, record: NodeRecord) -> NodePaths:
        """Return a node's places, its volume's too; its pool may be missing."""
        paths = self._layout.node(record.spec.instance_id, record.spec.node_id)
        if record.pool == DEFAULT_POOL:
            return paths
        there = self._pools.layout(record.pool).node(record.spec.instance_id, record.spec.node_id)
        return replace(paths, volume=there.data)

    def _set_followed(self, node_id: UUID, *, followed: bool) -> None:
        """Write down whether changes are kept for an upgraded copy of a node."""
        with self._guards[node_id]:
            self._records.save_node(replace(self._record(node_id), followed=followed))

    def _record(self, node_id: UUID) -> NodeRecord:
        try:
            return self._records.nodes[node_id]
        except KeyError:
            raise NodeRemoved("the node has been removed") from None

    def _leading(self, spec: NodeSpec) -> NodeRecord:
        """Return the record of the node that takes the writes of a node's instance."""
        return self._record(spec.node_id)

    def _wanted_nodes(self) -> list[NodeRecord]:
        return [one for one in list(self._records.nodes.values()) if one.desired == "running"]

    def _bundle(self, record: NodeRecord) -> Bundle:
        return self._bundles.named(record.bundle) or self._bundles.find(record.spec.engine)

    def _version(self, record: NodeRecord) -> str:
        try:
            return self._bundle(record).version
        except HostError:
            return "unknown"  # its binaries were removed

    # -- configuration -------------------------------------------------------------------------

    def _ensure_places(self, record: NodeRecord) -> None:
        spec = record.spec
        for pool in {DEFAULT_POOL, record.pool}:
            with contextlib.suppress(PoolMissing):  # what needs its volume says so
                self._pools.named(pool)
                self._pools.ensure_passage(pool, spec.instance_id, spec.node_id, spec.uid)

    def ensure_configuration(self, spec: NodeSpec) -> None:
        self._write_configuration(self._accept(spec))

    def ensure_bundle(self, spec: NodeSpec, bundle: str | None) -> None:
        wanted = self._bundles.named(bundle) if bundle else self._bundles.find(spec.engine)
        if wanted is None:
            raise HostError(f"{bundle} is not installed")
        with self._guards[spec.node_id]:
            self._records.save_node(replace(self._accept(spec), bundle=wanted.name))
        self._changes.note(spec.node_id)

    def _write_configuration(self, record: NodeRecord) -> None:
        """Make again all that a start needs and that can be derived from the record."""
        with self._guards[record.spec.node_id]:  # so that a newer record's files are not replaced
            self._write_files(self._records.nodes.get(record.spec.node_id, record))

    def _write_files(self, record: NodeRecord) -> None:
        spec = record.spec
        with self._configuring[spec.node_id]:  # a start may be about to do the same
            self._ensure_places(record)
            paths = self._paths(record)
            accounts.ensure_passage(paths.configuration, spec.uid)
            for directory in (paths.log, paths.sockets):
                accounts.ensure_directory(directory, spec.uid)
            texts = dict(self._server(record).configuration())
            if spec.certificate is not None:
                texts[paths.key.name] = spec.certificate.key
                texts[paths.certificate.name] = spec.certificate.presented
                texts[paths.authority.name] = spec.certificate.authority
            for name, text in texts.items():
                accounts.write_file(paths.configuration / name, text, spec.uid)

    def check_configuration(self, spec: NodeSpec) -> str | None:
        most = self._routes.most_connections()
        if most is not None and int(spec.settings.get("max_connections", 0)) > most:
            return f"max_connections: a load balancer of this host serves at most {most}"
        paths = self._layout.node(spec.instance_id, spec.node_id)
        record = self._records.nodes.get(spec.node_id)
        if record is None:
            return "the instance is not known to its host"
        server = self._server(replace(record, spec=spec))
        accounts.ensure_passage(paths.configuration, spec.uid)
        with accounts.temporary_directory(paths.configuration, spec.uid) as place:
            for name, text in server.configuration().items():
                accounts.write_file(place / name, text, spec.uid)
            return server.check_configuration(place)

    def server_key(self, instance_id: UUID, node_id: UUID) -> str | None:
        key = self._layout.node(instance_id, node_id).key
        return key.read_text() if key.exists() else None

    def adopt_node(self, spec: NodeSpec, desired: Desired) -> None:
        if spec.node_id in self._records.nodes:
            return
        paths = self._layout.node(spec.instance_id, spec.node_id)
        record = self._accept(spec, desired, earlier=True)
        if paths.data.exists() and desired == "running":
            self._keep_later(record.spec)
            self._healer.in_background(partial(self._renew_if_possible, spec))

    def _renew_servers(self) -> None:
        """Renew the servers that were made, or last renewed, by other code than this, and databases
        that could not be renewed yet."""
        for record in self._wanted_nodes():
            if record.build != self._build:
                self._renew_if_possible(record.spec)
            elif record.renewed_for != renewal(record.bundle):
                self._compare_versions(record.spec.node_id)

    def _renew_if_possible(self, spec: NodeSpec) -> None:
        try:
            self._renew(spec)
        except (NodeRemoved, KeyError):
            pass
        except Exception as error:
            if isinstance(error, HostError) and self._healer.pid(program_name(spec)) is None:
                return  # it does not run
            why = error.explanation if isinstance(error, OpenRDBError) else error
            log.warning("node %s is renewed later: %s", spec.node_id, why)

    def _renew(self, spec: NodeSpec) -> None:
        """Give a server of older code the accounts, roles and rules that others are born with."""
        self._wait_accepting(spec, self._program(spec), HEAL_TIMEOUT, patient=True)
        with self._changing[spec.instance_id]:
            with self._guards[spec.node_id]:
                record = self._record(spec.node_id)
                if record.build == self._build:
                    return
                self._write_configuration(record)
            self._server(record).ensure_replication_ready(record.spec.replication_secret)
            with self._guards[spec.node_id]:
                record = replace(self._record(spec.node_id), build=self._build)
                self._records.save_node(record)
        self._compare_versions(spec.node_id)

    # -- processes -----------------------------------------------------------------------------

    def _keep_if_installed(self, record: NodeRecord) -> None:
        """Keep a node running, unless its binaries are gone."""
        try:
            self._keep_later(record.spec)
        except HostError as error:
            log.error("node %s: %s", record.spec.node_id, error)

    def _program(self, spec: NodeSpec) -> Program:
        record = self._record(spec.node_id)
        paths = self._layout.node(spec.instance_id, spec.node_id)
        server, bundle = self._server(record), self._bundle(record)
        output = paths.root / "start.out"
        return replace(
            self._program_to_end(record.spec),
            command=accounts.as_account(spec.uid, server.command()),
            output=output,
            environment=environment_of(paths.root) | bundle.environment,
            prepare=partial(self._prepare, spec.node_id),
            watch=partial(self._follow_start, spec),
            explain=partial(server.failure_reason, output),
        )

    def _remove_program(self, record: NodeRecord) -> None:
        """End a node's server for good, with what a killed one leaves behind."""
        self._healer.remove(self._program_to_end(record.spec))
        self._remove_shared_memory(record)

    def _remove_shared_memory(self, record: NodeRecord) -> None:
        remove_shared_memory(record.spec.engine, self._paths(record).data)

    def _program_to_end(self, spec: NodeSpec) -> Program:
        """Return what is needed to end a node, also one whose binaries have been removed."""
        name = program_name(spec)
        stop_signal, abort_signal = end_signals_of(spec.engine)
        return Program(
            name=name,
            command=[],
            lock=self._layout.program_lock(spec.instance_id, name),
            output=Path(os.devnull),
            stop_signal=stop_signal,
            stop_timeout=self._stop_timeout,
            abort_signal=abort_signal,
            cgroup=partial(self._cgroup, spec),
        )

    def _cgroup(self, spec: NodeSpec) -> Cgroup | None:
        if self._cgroups is None:
            return None
        return self._cgroups.ensure(program_name(spec), memory=spec.memory, cpus=spec.vcpus)

    def _prepare(self, node_id: UUID) -> None:
        record = self._record(node_id)
        if not self._pools.exists(self._pools.volume_of(record)):
            raise HostError(f"the data directory {self._paths(record).data} is gone")
        with self._guards[node_id]:
            self._records.save_node(self._space.prepare_start(self._record(node_id)))
        self._write_configuration(record)
        self._server(record).prepare_start()

    def _follow_start(self, spec: NodeSpec, pid: int) -> None:
        """Note when a server that was started accepts connections, and what its data depends on."""
        server = self._server(self._record(spec.node_id))
        if server.wait_accepting(pid, _ACCEPT_TIMEOUT):
            self._healer.note_steady(self._program(spec))
            self._backups.heal(spec.node_id, self._settle_restore)
            if self._record(spec.node_id).data_versions is not None:
                self._compare_versions(spec.node_id)

    def _compare_versions(self, node_id: UUID) -> None:
        with self._guards[node_id]:
            record = self._records.nodes.get(node_id)
            if record is not None and record.desired == "running":
                try:
                    found = self._server(record).data_versions()
                except HostError:
                    return  # it is compared at the next start, and once a copy is taken over
                self._data_versions.compare(record, found)
                if record.renewed_for != renewal(record.bundle):
                    renew = partial(self._renew_databases, node_id)
                    threading.Thread(target=renew, name="renewal", daemon=True).start()
        self._changes.note(node_id)

    def _renew_databases(self, node_id: UUID) -> None:
        with contextlib.suppress(NodeRemoved):
            self._data_versions.renew(node_id, self._server(self._record(node_id)))
            self._changes.note(node_id)

    def data_changes(self, spec: NodeSpec) -> str:
        self._compare_versions(spec.node_id)
        return self._data_versions.warning(spec.node_id)

    def ensure_running(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        self._healer.keep(self._program(spec))

    def ensure_accepting(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        program = self._program(spec)
        with contextlib.suppress(HostError):  # the healer tries again, and says why it gives up
            self._healer.keep(program)
        self._wait_accepting(spec, program, _ACCEPT_TIMEOUT)

    def ensure_restarted(self, spec: NodeSpec) -> None:
        self._wait_accepting(spec, self._restart(spec), _ACCEPT_TIMEOUT)

    def _restart(self, spec: NodeSpec) -> Program:
        """Begin to restart a node's server; return what to wait for."""
        self._accept(spec, "running")
        self._set_held(spec.node_id, None)
        program = self._program(spec)
        self._healer.restart(program)
        return program

    def ensure_stopped(self, spec: NodeSpec) -> None:
        self._accept(spec, "stopped")
        self._healer.release(self._program_to_end(spec), at_once=True)

    def _replace(self, spec: NodeSpec) -> None:
        """End a node's server at once and start it again."""
        program = self._program(spec)
        self._healer.release(program, at_once=True)
        self._healer.keep(program)

    def _keep_later(self, spec: NodeSpec) -> None:
        """Keep a node running from now on, adopting or starting it in the background."""
        self._healer.keep_later(self._program(spec))

    def _wait_accepting(
        self, spec: NodeSpec, program: Program, timeout: float, *, patient: bool = False
    ) -> None:
        """Wait until a node that is kept running accepts connections.

        Raises:
            StartFailed: it ended soon after each of several starts.
            HostError: it does not accept connections within some seconds.
        """
        server = self._server(self._record(spec.node_id))
        deadline, pid = time.monotonic() + timeout, None
        while (left := deadline - time.monotonic()) > 0:
            pid = self._healer.wait_running(program, left, other_than=pid, patient=patient)
            if server.wait_accepting(pid, deadline - time.monotonic()):
                self._healer.note_steady(program)
                return
        raise HostError(f"the engine does not accept connections; see {program.output}")

    # -- a running server ----------------------------------------------------------------------

    def _server(self, record: NodeRecord) -> Server:
        return server_of_node(self._engine_node(record))

    def _engine_node(self, record: NodeRecord) -> EngineNode:
        spec = record.spec
        paths, bundle = self._paths(record), self._bundle(record)
        return EngineNode(
            spec,
            bundle,
            paths,
            spec.secret,
            record.writes,
            is_held=record.held is not None,
            is_followed=record.followed,
        )

    def _accepts(self, record: NodeRecord, timeout: float = 0.0) -> bool:
        """Return whether a node's server accepts connections, not one that still recovers; within some
        seconds."""
        pid = self._healer.pid(program_name(record.spec))
        return pid is not None and self._server(record).wait_accepting(pid, timeout)

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None:
        self.ensure_accepting(spec)
        server = self._server(self._record(spec.node_id))
        server.bootstrap(self._template_secret, spec.replication_secret, administrator)
        self._healer.in_background(partial(self._compare_versions, spec.node_id))

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        self.ensure_accepting(spec)
        return self._server(self._record(spec.node_id)).reload()

    def administer(self, spec: NodeSpec, method: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        inside = self._accepting_server(spec).administration()
        if administration.only_reads(method):
            return administration.perform(inside, method, arguments)
        with self._changing[spec.instance_id]:
            return administration.perform(inside, method, arguments)

    def _accepting_server(self, spec: NodeSpec) -> Server:
        """Return a node's server as soon as it accepts connections.

        Raises:
            TransientState: it does not within some seconds.
            PreconditionFailed: it does not start.
        """
        try:
            self._wait_accepting(spec, self._program(spec), HEAL_TIMEOUT, patient=True)
        except (HostError, KeyError):
            is_known = spec.node_id in self._records.nodes
            if not is_known or self._healer.is_failing(program_name(spec)):
                # Who is told that it heals comes again at once.
                raise not_starting() from None
            raise healing(spec) from None
        return self._server(self._record(spec.node_id))

    def ensure_taken_over(self, spec: NodeSpec, former_secret: str) -> None:
        self.ensure_accepting(spec)
        server = self._server(self._record(spec.node_id))
        server.take_over(former_secret)
        server.ensure_replication_ready(spec.replication_secret)  # older code may have made it
        self._healer.in_background(partial(self._compare_versions, spec.node_id))

    def _settle_restore(self, node_id: UUID, job_id: UUID) -> bool:
        server = self._accepting_server(self._record(node_id).spec)
        return server.transfers().settle(job_id)


def not_starting() -> PreconditionFailed:
    """Return the refusal of what needs a server that does not start."""
    help_message = "the database does not start: change its settings, or delete it"
    return PreconditionFailed("resource_not_usable", help_message)


def healing(spec: NodeSpec) -> TransientState:
    """Return the refusal of what needs a server that is about to accept connections again."""
    return TransientState("instance", str(spec.instance_id), "autohealing")


def program_name(spec: NodeSpec) -> str:
    return f"{NODE}{spec.node_id}"
