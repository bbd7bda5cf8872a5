"""This machine, as its agent sees it: the `Host` interface where the work is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from uuid import UUID

from openrdb.catalog.engines import engine_version
from openrdb.engines import templates_of
from openrdb.errors import (
    HostError,
)
from openrdb.host import volume_space
from openrdb.host.balancer import table
from openrdb.host.base import PROTOCOL
from openrdb.host.local_nodes import NODE, program_name
from openrdb.host.local_slots import SLOTS_ROUND, LocalSlots
from openrdb.host.records import NodeRecord
from openrdb.host.recovery_keeper import Memory
from openrdb.host.space import COMFORTABLE_FREE
from openrdb.spec import (
    HostState,
    JobSpec,
    JobState,
    KnownInstance,
    NodeState,
    Route,
)
from openrdb.system import accounts, processes
from openrdb.system.memory import physical_memory

log = logging.getLogger(__name__)

_RENEWAL_ROUND = 60.0
"""Seconds between two attempts to renew what older code made."""
_SPACE_ROUND = 10.0
"""Seconds between two looks at the free space, and at what is to be removed."""
_REMOVED = ".removed-"


class LocalHost(LocalSlots):
    """This machine, within its agent's process."""

    # -- life ----------------------------------------------------------------------------------

    def start(self, warm_engines: Collection[str] | None) -> None:
        """Adopt what runs, start what should run, and heal from now on."""
        self._end_upgrades()
        self._ports_guard.ensure([record.spec for record in self._records.nodes.values()])
        for record in self._wanted_nodes():
            self._keep_if_installed(record)
        self._keep_pairs()
        self._keep_replicas()
        for program in self._routes.programs():
            self._healer.keep_later(program)
        self._healer.each_round(self._round)
        self._healer.every(self._logs_round, self._prune_all_logs)
        self._healer.every(_SPACE_ROUND, self._remove_leftovers)
        self._healer.every(_RENEWAL_ROUND, self._renew_servers)
        self._healer.every(self._options.round, self._keep_recoveries)
        self._healer.every(_SPACE_ROUND, self._remove_lost_recoveries)
        self._healer.every(SLOTS_ROUND, self._settle_slots)
        self._healer.every(SLOTS_ROUND, self._dismiss_gone)
        if (alarm := self._routes.alarm()) is not None:
            self._healer.on_alarm(alarm, self._routes.heal)
        if self._ports_guard.is_there:
            self._healer.on_alarm(table.alarm(), self._ports_guard.heal)
        self._healer.on_change(self._note_program)
        self._healer.start()
        self._watch.start()
        self._sampler.start()
        self._routes.heal()
        self._healer.in_background(self._remove_leftovers)
        self._healer.in_background(self._renew_servers)
        self._healer.in_background(self._keep_recoveries)
        self._prepare_templates(warm_engines)

    def close(self) -> None:
        """Stop healing; what runs runs on."""
        self._watch.close()
        self._sampler.close()
        self._leave_pairs()
        self._healer.close()
        self._templates.close()

    def stop_everything(self) -> None:
        """End every program, cleanly and to its last process; it is still to run.

        Raises:
            HostError: something does not end.
        """
        self._leave_pairs()
        nodes = [self._program_to_end(one.spec) for one in list(self._records.nodes.values())]
        self._healer.release_all([*nodes, *self._routes.programs()])
        # Last, so that they have all that the servers wrote to their end.
        self._healer.release_all(self._receivers())
        self._routes.clear()
        self._ports_guard.clear()

    def _prepare_templates(self, names: Collection[str] | None) -> None:
        """Make templates of engine versions (None: all) in the background, newest first."""
        for name, bundle in sorted(self._bundles.installed().items(), reverse=True):
            version = engine_version(name)
            current = version is not None and not version.disabled
            if name in names if names is not None else current:
                self._templates.prepare(bundle, templates_of(name), {})

    def _remove_leftovers(self) -> None:
        self._look_for_pools()
        self._pools.empty(time.time() - self._keep_trash)
        for pool in self._pools:
            pool.ensure_free(COMFORTABLE_FREE)
        for path in self._layout.root.glob(f"instances/{_REMOVED}*"):  # an earlier version's
            self._pool.delete_below(path)
        self._healer.in_background(self._pools.remove_deleted)

    def _look_for_pools(self) -> None:
        """Start what has waited for a pool that is there now."""
        opened = self._pools.look()
        for record in self._wanted_nodes():
            if record.pool in opened:
                self._keep_later(record.spec)

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
        if name.startswith(NODE):
            self._changes.note(UUID(name.removeprefix(NODE)))

    def _node_state(self, record: NodeRecord) -> NodeState:
        name = program_name(record.spec)
        running = self._healer.pid(name) is not None
        epoch, unprotected = self._pair_state(record)
        why_lost = self._records.why_lost(record)
        _, does_not_follow = self._replica_state(record)
        memory = self._memories.get(record.spec.node_id, Memory())
        return NodeState(
            node_id=record.spec.node_id,
            role=self._records.role_of(record) if why_lost is None else None,
            desired=record.desired,
            running=running,
            bundle=record.bundle,
            version=self._version(record),
            reason=why_lost or (does_not_follow if running else self._healer.reason(name)),
            data_versions=record.data_versions,
            warning=self._data_versions.warning(record.spec.node_id),
            writes=record.writes,
            writes_reason=volume_space.reason(record),
            volume_size=record.spec.volume_size,
            recovery_lost_at=memory.lost_at,
            recovery_lost_reason=memory.lost_reason,
            epoch=epoch,
            unprotected=unprotected,
            lag=self._lag(record),
            slots_lost=self._slots_lost(record),
        )

    def known_instances(self) -> list[KnownInstance]:
        return self._records.known_instances()

    def port_is_free(self, address: str, port: int) -> bool:
        return self._routes.is_free(address, port)

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

    # -- routes --------------------------------------------------------------------------------

    def ensure_route(self, route: Route) -> None:
        self._routes.ensure(route)

    def ensure_no_route(self, route: Route) -> None:
        self._routes.remove(route)

    # -- rounds --------------------------------------------------------------------------------

    def _round(self) -> None:
        if self._records.find_pairs():
            self._keep_pairs()
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
            running = self._healer.pid(program_name(spec)) is not None
            if not running or self._layout.sockets(spec.node_id).exists():
                continue
            log.warning("the sockets of node %s were removed: restarting it", spec.node_id)
            try:
                self._replace(spec)
            except (HostError, KeyError) as error:
                log.warning("node %s is restarted later: %s", spec.node_id, error)
