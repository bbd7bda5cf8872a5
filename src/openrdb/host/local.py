"""This machine, as its agent sees it: the `Host` interface where the work is done."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from openrdb.catalog.engines import engine_version
from openrdb.engines import server_of, templates_of
from openrdb.engines.base import Server
from openrdb.errors import (
    DiskFull,
    HostError,
    OpenRDBError,
    OutdatedSpec,
    PreconditionFailed,
    TransientState,
)
from openrdb.host import administration, backups, logs
from openrdb.host.backups import Backups
from openrdb.host.balancer import Choice, balancer, table
from openrdb.host.base import PROTOCOL
from openrdb.host.bundles.shared import bundles_for_accounts
from openrdb.host.cgroups import Cgroup, Cgroups
from openrdb.host.changes import NodeChanges
from openrdb.host.data_versions import DataVersions
from openrdb.host.guard import Guard
from openrdb.host.healing import Healer
from openrdb.host.jobs import Jobs
from openrdb.host.processes import Program, environment_of
from openrdb.host.records import NodeRecord, Records
from openrdb.host.routes import Routes
from openrdb.host.snapshots import Snapshots
from openrdb.host.space import COMFORTABLE_FREE, LEAST_FREE
from openrdb.host.templates import Templates, template_secret
from openrdb.host.underway import Underway
from openrdb.host.volumes import Volume, open_pool
from openrdb.spec import (
    Administrator,
    Desired,
    DumpSpec,
    HostState,
    JobSpec,
    JobState,
    NodeSpec,
    NodeState,
    RestoreSpec,
    Route,
    TransferState,
)
from openrdb.system import accounts, files, processes
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout
from openrdb.system.memory import physical_memory

log = logging.getLogger(__name__)

_ACCEPT_TIMEOUT = 300.0
_HEAL_TIMEOUT = 10.0
"""Seconds in which an engine that was found dead is back."""
_LOGS_ROUND = 60.0
_RENEWAL_ROUND = 60.0
"""Seconds between two attempts to renew what older code made."""
_SPACE_ROUND = 10.0
"""Seconds between two looks at the free space, and at what is to be removed."""
_REMOVED = ".removed-"
_NODE = "node-"


class LocalHost:
    """This machine, within its agent's process."""

    def __init__(
        self,
        root: Path,
        cache: Path,
        *,
        build: str,
        spares: int,
        choice: Choice,
        aliases: Mapping[str, str],
        logs_round: float = _LOGS_ROUND,
        trash: float = 0.0,
    ) -> None:
        self._build = build
        self._layout = layout = Layout(root)
        for directory in (layout.run, layout.instances):
            accounts.passable_directory(directory)
        self._bundles = bundles_for_accounts(cache, root / "bundles", aliases)
        self._pool = open_pool(root)
        self._healer = Healer()
        self._cgroups = Cgroups.find()
        self._ports_guard = Guard(layout)
        self._template_secret = template_secret(layout, self._pool)
        self._templates = Templates(layout.templates, self._pool, spares, self._template_secret)
        self._records = Records(layout)
        driver = balancer(choice, layout, self._bundles.haproxy(), self._healer, self._cgroups)
        self._routes = Routes(layout, self._records, driver)
        self._jobs = Jobs(layout.jobs)
        self._backups = Backups(layout, self._jobs)
        self._snapshots = Snapshots(layout, self._pool)
        self._underway = Underway()
        self._guards: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._changing: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._pruning: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._upgrading: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
        self._logs_round = logs_round
        self._keep_trash = trash
        self._making_room = threading.Lock()
        self._data_versions = DataVersions(self._records)
        self._changes = NodeChanges()

    # -- life ----------------------------------------------------------------------------------

    def start(self, warm_engines: Collection[str] | None) -> None:
        """Adopt what runs, start what should run, and heal from now on."""
        self._ports_guard.ensure([record.spec for record in self._records.nodes.values()])
        for program in self._node_programs(self._wanted_nodes()):
            self._healer.keep_later(program)
        for program in self._routes.programs():
            self._healer.keep_later(program)
        self._healer.each_round(self._round)
        self._healer.every(self._logs_round, self._prune_all_logs)
        self._healer.every(_SPACE_ROUND, self._remove_leftovers)
        self._healer.every(_RENEWAL_ROUND, self._renew_servers)
        if (alarm := self._routes.alarm()) is not None:
            self._healer.on_alarm(alarm, self._routes.heal)
        if self._ports_guard.is_there:
            self._healer.on_alarm(table.alarm(), self._ports_guard.heal)
        self._healer.on_change(self._note_program)
        self._healer.start()
        self._routes.heal()
        self._healer.in_background(self._remove_leftovers)
        self._healer.in_background(self._renew_servers)
        self._prepare_templates(warm_engines)

    def close(self) -> None:
        """Stop healing; what runs runs on."""
        self._healer.close()
        self._templates.close()

    def stop_everything(self) -> None:
        """End every program, cleanly and to its last process; it is still to run.

        Raises:
            HostError: something does not end.
        """
        nodes = self._node_programs(list(self._records.nodes.values()))
        self._healer.release_all([*nodes, *self._routes.programs()])
        self._routes.clear()
        self._ports_guard.clear()

    def _node_programs(self, records: Collection[NodeRecord]) -> list[Program]:
        """Return the programs of nodes, but for those whose binaries are gone."""
        found = []
        for record in records:
            try:
                found.append(self._program(record.spec))
            except HostError as error:
                log.error("node %s: %s", record.spec.node_id, error)
        return found

    def _prepare_templates(self, names: Collection[str] | None) -> None:
        """Make templates of engine versions (None: all) in the background, newest first."""
        for name, bundle in sorted(self._bundles.installed().items(), reverse=True):
            version = engine_version(name)
            current = version is not None and not version.disabled
            if name in names if names is not None else current:
                self._templates.prepare(bundle, templates_of(name), {})

    def _remove_leftovers(self) -> None:
        self._pool.empty(time.time() - self._keep_trash)
        self._pool.ensure_free(COMFORTABLE_FREE)
        for path in self._layout.root.glob(f"instances/{_REMOVED}*"):  # an earlier version's
            self._pool.delete_below(path)
        self._healer.in_background(self._pool.remove_deleted)

    # -- what there is -------------------------------------------------------------------------

    def state(self) -> HostState:
        return HostState(
            protocol=PROTOCOL,
            build=self._build,
            boot=processes.boot(),
            engines={name: bundle.version for name, bundle in self._bundles.installed().items()},
            free=self._pool.free(),
            memory=physical_memory(),
        )

    def nodes(self) -> list[NodeState]:
        return [self._node_state(record) for record in list(self._records.nodes.values())]

    def changed_nodes(self, since: int, timeout: float) -> tuple[int, list[NodeState]]:
        count, changed = self._changes.wait(since, timeout)
        records = self._records.nodes
        if since < 0:
            return count, self.nodes()
        return count, [self._node_state(records[one]) for one in changed if one in records]

    def _note_program(self, name: str) -> None:
        if name.startswith(_NODE):
            self._changes.note(UUID(name.removeprefix(_NODE)))

    def _node_state(self, record: NodeRecord) -> NodeState:
        name = _program_name(record.spec)
        running = self._healer.pid(name) is not None
        return NodeState(
            node_id=record.spec.node_id,
            role=record.role,
            desired=record.desired,
            running=running,
            bundle=record.bundle,
            version=self._version(record),
            reason="" if running else self._healer.reason(name),
            data_versions=record.data_versions,
            warning=self._data_versions.warning(record.spec.node_id),
        )

    def port_is_free(self, address: str, port: int) -> bool:
        return self._routes.is_free(address, port)

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
                bundle = self._bundles.find(spec.engine).name
                build = "" if earlier else self._build
                record = NodeRecord(spec, bundle, desired=desired or "stopped", build=build)
            elif known.spec.generation > spec.generation:
                raise OutdatedSpec(
                    f"node {spec.node_id} is known in generation {known.spec.generation}, "
                    f"asked for in {spec.generation}"
                )
            else:
                record = replace(known, spec=spec, desired=desired or known.desired)
            if record != known:
                self._ensure_places(spec)
                self._ports_guard.ensure([spec])
                self._records.save_node(record)
                self._changes.note(spec.node_id)
            return record

    def _record(self, node_id: UUID) -> NodeRecord:
        return self._records.nodes[node_id]

    def _wanted_nodes(self) -> list[NodeRecord]:
        return [one for one in list(self._records.nodes.values()) if one.desired == "running"]

    def _bundle(self, record: NodeRecord) -> Bundle:
        return self._bundles.named(record.bundle) or self._bundles.find(record.spec.engine)

    def _version(self, record: NodeRecord) -> str:
        try:
            return self._bundle(record).version
        except HostError:
            return "unknown"  # its binaries were removed

    # -- volumes and files ---------------------------------------------------------------------

    def _ensure_places(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        for directory in (paths.root.parent.parent, paths.root.parent, paths.root):
            accounts.ensure_passage(directory, spec.uid)

    def adopt_node(self, spec: NodeSpec, desired: Desired) -> None:
        if spec.node_id in self._records.nodes:
            return
        paths = self._layout.node(spec.instance_id, spec.node_id)
        record = self._accept(spec, desired, earlier=True)
        if paths.data.exists() and desired == "running":
            self._healer.keep_later(self._program(record.spec))
            self._healer.in_background(partial(self._renew_if_possible, spec))

    def _renew_servers(self) -> None:
        """Renew the servers that were made, or last renewed, by other code than this."""
        for record in self._wanted_nodes():
            if record.build != self._build:
                self._renew_if_possible(record.spec)

    def _renew_if_possible(self, spec: NodeSpec) -> None:
        try:
            self._renew(spec)
        except (HostError, KeyError):
            pass  # it does not run, or was removed
        except Exception as error:
            why = error.explanation if isinstance(error, OpenRDBError) else error
            log.warning("node %s is renewed later: %s", spec.node_id, why)

    def _renew(self, spec: NodeSpec) -> None:
        """Give a server of older code the accounts, roles and rules that others are born with."""
        self._wait_accepting(spec, self._program(spec), _HEAL_TIMEOUT, patient=True)
        with self._changing[spec.instance_id]:
            with self._guards[spec.node_id]:  # so that a newer record's files are not replaced
                record = self._record(spec.node_id)
                if record.build == self._build:
                    return
                self._write_configuration(record)
            self._server(record).ensure_replication_ready(record.spec.replication_secret)
            with self._guards[spec.node_id]:
                record = replace(self._record(spec.node_id), build=self._build)
                self._records.save_node(record)
        self._compare_versions(spec.node_id)

    def ensure_volume(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        record = self._accept(spec)
        volume = self._pool.volume(paths.data)
        if not self._pool.exists(volume):
            # Less than at the request: what was accepted is not refused because of others.
            if not self._pool.ensure_free(LEAST_FREE // 2):
                raise DiskFull(f"no space is left in {self._layout.root}")
            bundle, maker = self._bundle(record), templates_of(spec.engine)
            self._templates.take(bundle, maker, spec.init_settings, volume, spec.uid)
        self._pool.settle(volume)

    def ensure_upgraded_volume(self, spec: NodeSpec, source: NodeSpec) -> None:
        record = self._accept(spec)
        there, here = (
            self._pool.volume(self._layout.node(one.instance_id, one.node_id).data)
            for one in (source, spec)
        )
        with self._upgrading[spec.node_id]:  # a call that broke off may still be at work
            if not self._pool.exists(here):
                if not self._pool.has_room(0 if self._pool.reflink else self._pool.usage(there)):
                    raise DiskFull(f"no space is left in {self._layout.root}")
                old, new = self._bundle(self._record(source.node_id)), self._bundle(record)
                upgrade = partial(templates_of(spec.engine).upgrade, old, new, account=spec.uid)
                self._pool.clone(there, here, spec.uid, upgrade)
            self._pool.settle(here)

    def ensure_upgrade_completed(self, spec: NodeSpec) -> None:
        self.ensure_accepting(spec)
        self._server(self._record(spec.node_id)).complete_upgrade()

    def prepare_spare(self, spec: NodeSpec) -> None:
        bundle = self._bundles.find(spec.engine)
        self._templates.prepare(bundle, templates_of(spec.engine), spec.init_settings)

    def server_key(self, instance_id: UUID, node_id: UUID) -> str | None:
        key = self._layout.node(instance_id, node_id).key
        return key.read_text() if key.exists() else None

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
        spec = record.spec
        self._ensure_places(spec)
        paths = self._layout.node(spec.instance_id, spec.node_id)
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

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        for node in [self._records.nodes[one] for one in node_ids if one in self._records.nodes]:
            self._healer.remove(self._program(node.spec))
        self._records.forget_instance(instance_id)
        self._ports_guard.forget(node_ids)
        self._changing.pop(instance_id, None)
        self._pruning.pop(instance_id, None)
        # Gone at once; what takes time is done when nobody waits for it any more.
        directory = self._layout.instance(instance_id)
        self._pool.stop_return(instance_id)
        if keep and self._keep_trash and _has_data(directory):
            self._pool.put_aside(directory, instance_id)
        else:
            self._pool.delete_below(directory)
            self._healer.in_background(self._pool.remove_deleted)
        for owner in (instance_id, *node_ids):
            files.remove_tree(self._layout.sockets(owner))
            self._guards.pop(owner, None)
            self._upgrading.pop(owner, None)
            self._changes.forget(owner)
            self._data_versions.forget(owner)

    def ensure_restored(self, instance_id: UUID) -> bool:
        if not self._pool.put_back(instance_id, self._layout.instance(instance_id)):
            return False
        self._records.load_instance(instance_id)
        return True

    def trashed(self) -> list[UUID]:
        return list(self._pool.put_aside_since())

    def ensure_room(self) -> bool:
        # One waits for what is removed; the others are refused meanwhile.
        if not self._making_room.acquire(blocking=False):
            return False
        try:
            return self._pool.has_room()
        finally:
            self._making_room.release()

    # -- processes -----------------------------------------------------------------------------

    def _program(self, spec: NodeSpec) -> Program:
        record = self._record(spec.node_id)
        paths = self._layout.node(spec.instance_id, spec.node_id)
        server, bundle = self._server(record), self._bundle(record)
        output = paths.root / "start.out"
        return Program(
            name=_program_name(spec),
            command=accounts.as_account(spec.uid, server.command()),
            lock=self._layout.program_lock(spec.instance_id, _program_name(spec)),
            output=output,
            environment=environment_of(paths.root) | bundle.environment,
            stop_signal=server.stop_signal,
            abort_signal=server.abort_signal,
            cgroup=partial(self._cgroup, record.spec),
            prepare=partial(self._prepare, spec.node_id),
            watch=partial(self._follow_start, spec),
            explain=partial(server.failure_reason, output),
        )

    def _cgroup(self, spec: NodeSpec) -> Cgroup | None:
        if self._cgroups is None:
            return None
        return self._cgroups.ensure(_program_name(spec), memory=spec.memory, cpus=spec.vcpus)

    def _prepare(self, node_id: UUID) -> None:
        record = self._record(node_id)
        paths = self._layout.node(record.spec.instance_id, node_id)
        if not paths.data.exists():
            raise HostError(f"the data directory {paths.data} is gone")
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
                self._data_versions.compare(record, self._server(record).data_versions())
        self._changes.note(node_id)

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
        self._accept(spec, "running")
        program = self._program(spec)
        self._healer.restart(program)
        self._wait_accepting(spec, program, _ACCEPT_TIMEOUT)

    def ensure_stopped(self, spec: NodeSpec) -> None:
        self._accept(spec, "stopped")
        self._healer.release(self._program(spec), at_once=True)

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
        spec = record.spec
        paths = self._layout.node(spec.instance_id, spec.node_id)
        return server_of(spec, self._bundle(record), paths, spec.secret)

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None:
        self.ensure_accepting(spec)
        server = self._server(self._record(spec.node_id))
        server.bootstrap(self._template_secret, spec.replication_secret, administrator)
        self._healer.in_background(partial(self._compare_versions, spec.node_id))

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        self.ensure_accepting(spec)
        return self._server(self._record(spec.node_id)).reload()

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

    def ensure_logs_pruned(self, spec: NodeSpec) -> None:
        self._prune_logs(self._accept(spec).spec)

    def _prune_logs(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)

        def reopen() -> None:
            with contextlib.suppress(HostError):  # else its next start opens them
                self._wait_accepting(spec, self._program(spec), _HEAL_TIMEOUT, patient=True)
                self._server(self._record(spec.node_id)).reopen_logs()

        # Not with the lock of changes: one that waits for a tenant would keep their logs growing.
        with self._pruning[spec.instance_id]:
            logs.prune(paths.log, spec.logs.days, spec.logs.size, reopen)

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
            self._wait_accepting(spec, self._program(spec), _HEAL_TIMEOUT, patient=True)
        except (HostError, KeyError):
            is_known = spec.node_id in self._records.nodes
            if not is_known or self._healer.is_failing(_program_name(spec)):
                # Who is told that it heals comes again at once.
                help_message = "the database does not start: change its settings, or delete it"
                raise PreconditionFailed("resource_not_usable", help_message) from None
            instance_id = str(spec.instance_id)
            raise TransientState("instance", instance_id, "autohealing") from None
        return self._server(self._record(spec.node_id))

    # -- jobs ----------------------------------------------------------------------------------

    def start_job(self, spec: JobSpec) -> None:
        self._jobs.start(spec)

    def job(self, job_id: UUID) -> JobState:
        return self._jobs.state(job_id)

    def wait_for_job(self, job_id: UUID, timeout: float) -> JobState:
        return self._jobs.wait(job_id, timeout)

    def stop_job(self, job_id: UUID) -> None:
        self._jobs.stop(job_id)
        self._backups.stop(job_id, self._settle_restore)

    def forget_job(self, job_id: UUID) -> None:
        self._jobs.forget(job_id)
        self._backups.forget(job_id)

    def jobs(self) -> list[JobState]:
        return self._jobs.list()

    # -- dumps and restores --------------------------------------------------------------------

    def start_dump(self, spec: NodeSpec, dump: DumpSpec) -> None:
        if not self._backups.started(dump.job_id):
            self._accepting_server(spec)
            record = self._record(spec.node_id)
            self._backups.start(record.spec, self._bundle(record), dump)

    def start_restore(self, spec: NodeSpec, restore: RestoreSpec) -> None:
        if self._backups.started(restore.job_id):
            return
        server, record = self._accepting_server(spec), self._record(spec.node_id)
        # A server of older code lets the role that loads dumps in from now on.
        self._write_configuration(record)
        server.reload()
        self._backups.start(record.spec, self._bundle(record), restore)

    def check_restore(self, spec: NodeSpec, database: str, description: str) -> TransferState:
        return backups.check(self._accepting_server(spec), database, description)

    def wait_for_transfer(self, job_id: UUID, timeout: float) -> TransferState:
        return self._backups.wait(job_id, timeout, self._settle_restore)

    def _settle_restore(self, node_id: UUID, job_id: UUID) -> bool:
        server = self._accepting_server(self._record(node_id).spec)
        return server.transfers().settle(job_id)

    # -- snapshots -----------------------------------------------------------------------------

    def ensure_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        record = self._accept(spec)

        def take() -> None:
            self._snapshots.take(snapshot_id, record, partial(self._accepting_server, spec))

        return self._underway.ensure(f"snapshot {snapshot_id}", take, timeout)

    def ensure_volume_of_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        volume = self._accept_copy(spec, self._snapshots.data_versions(snapshot_id))

        def make() -> None:
            self._snapshots.make_volume(snapshot_id, volume, spec.uid, templates_of(spec.engine))

        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def ensure_volume_of_node(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        record = self._accept(source)
        volume = self._accept_copy(spec, record.data_versions)

        def make() -> None:
            server, maker = partial(self._accepting_server, source), templates_of(spec.engine)
            self._snapshots.clone(record, server, volume, spec.uid, maker)

        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _accept_copy(self, spec: NodeSpec, data_versions: Mapping[str, str] | None) -> Volume:
        """Write down a node whose data was another's, with what the data depends on."""
        with self._guards[spec.node_id]:
            record = self._accept(spec)
            if record.data_versions is None:
                self._records.save_node(replace(record, data_versions=data_versions))
        return self._pool.volume(self._layout.node(spec.instance_id, spec.node_id).data)

    def ensure_taken_over(self, spec: NodeSpec, former_secret: str) -> None:
        self.ensure_accepting(spec)
        server = self._server(self._record(spec.node_id))
        server.take_over(former_secret)
        server.ensure_replication_ready(spec.replication_secret)  # older code may have made it
        self._healer.in_background(partial(self._compare_versions, spec.node_id))

    def ensure_no_snapshot(self, snapshot_id: UUID) -> None:
        self._underway.wait_out(f"snapshot {snapshot_id}")
        self._snapshots.remove(snapshot_id)
        self._healer.in_background(self._pool.remove_deleted)

    # -- routes --------------------------------------------------------------------------------

    def ensure_route(self, route: Route) -> None:
        self._routes.ensure(route)

    def ensure_no_route(self, route: Route) -> None:
        self._routes.remove(route)

    # -- rounds --------------------------------------------------------------------------------

    def _round(self) -> None:
        self._heal_sockets()
        self._routes.heal()
        self._ports_guard.heal()
        self._jobs.list()  # ends what a killed wrapper has left

    def _heal_sockets(self) -> None:
        """Replace engines whose directory of sockets was removed: nobody can administer them, and
        only a start makes it again."""
        accounts.passable_directory(self._layout.run)
        for record in self._wanted_nodes():
            spec = record.spec
            running = self._healer.pid(_program_name(spec)) is not None
            if not running or self._layout.sockets(spec.node_id).exists():
                continue
            log.warning("the sockets of node %s were removed: restarting it", spec.node_id)
            try:
                self._healer.replace(self._program(spec))
            except (HostError, KeyError) as error:
                log.warning("node %s is restarted later: %s", spec.node_id, error)

    def _prune_all_logs(self) -> None:
        for record in self._wanted_nodes():
            try:
                self._prune_logs(record.spec)
            except (HostError, OSError) as error:
                log.warning("the logs of node %s are pruned later: %s", record.spec.node_id, error)


def _program_name(spec: NodeSpec) -> str:
    return f"{_NODE}{spec.node_id}"


def _has_data(directory: Path) -> bool:
    """Return whether there is anything of an instance's that could be brought back."""
    return any(directory.glob("nodes/*/data"))
