"""Dumps, restores and copies of logs, as jobs: each has a directory with its order and with what is on
its way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from openrdb.engines.base import Server
from openrdb.engines.transfers import TransferFailed
from openrdb.errors import OpenRDBError, TransientState
from openrdb.host import jobs
from openrdb.host.job_wrapper import OVERDUE, STOPPED
from openrdb.host.jobs import Jobs
from openrdb.host.orders import ORDERS, STATES, Order
from openrdb.spec import DumpSpec, JobSpec, JobState, LogsSpec, NodeSpec, RestoreSpec, TransferState
from openrdb.system import accounts, files
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout, NodePaths

log = logging.getLogger(__name__)

Settle = Callable[[UUID, UUID], bool]
"""Removes what a restore on a node, of a job, has left; returns whether it had taken effect."""

_ORDER = "order.json"
_REASONS = {
    STOPPED: "it was stopped",
    OVERDUE: "it took too long",
    jobs.NEVER_RAN: "it was stopped",
    jobs.RESTARTED: "the host was restarted meanwhile",
}
_ENDED = "its program was ended"


def check(server: Server, database: str, description: str) -> TransferState:
    """Return why a restore of a dump would fail that is described so, as far as is known: `failed`."""
    try:
        server.transfers().check_restore(database, json.loads(description))
    except TransferFailed as error:
        return TransferState("failed", error.reason, error.kind)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return TransferState("failed", "the backup's description is damaged", "corrupt")
    return TransferState("done")


class Backups:
    """The dumps, restores and copies of logs of a host."""

    def __init__(self, layout: Layout, running: Jobs) -> None:
        self._layout = layout
        self._jobs = running
        accounts.passable_directory(layout.transfers)

    def started(self, job_id: UUID) -> bool:
        """Return whether a job was started, whatever has become of it."""
        return self._jobs.state(job_id).status != "unknown"

    def start(
        self,
        node: NodeSpec,
        bundle: Bundle,
        paths: NodePaths,
        spec: DumpSpec | RestoreSpec | LogsSpec,
    ) -> None:
        """Start what is specified; a no-op if it was started before."""
        if self.started(spec.job_id):
            return
        self._jobs.forget(spec.job_id)  # of a start that was interrupted, with another order maybe
        directory = self._directory(spec.job_id)
        accounts.ensure_passage(directory, node.uid)
        dump = spec if isinstance(spec, DumpSpec) else None
        restore = spec if isinstance(spec, RestoreSpec) else None
        logs = spec if isinstance(spec, LogsSpec) else None
        order = Order(node, bundle, paths, directory, dump, restore, logs)
        # What is needed after its end; credentials and the superuser's secret are on no disk.
        kept_of_it = ORDERS.dump_json(order.without_secrets()).decode()
        files.write_private(directory / _ORDER, kept_of_it)
        kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        self._jobs.start(
            JobSpec(
                spec.job_id,
                f"{_what(spec)} of {node.instance_id}",
                (sys.executable, "-m", "openrdb.host.transfer_job"),
                spec.deadline,
                kept | {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            ),
            handed=ORDERS.dump_json(order),
        )

    def wait(self, job_id: UUID, timeout: float, settle: Settle) -> TransferState:
        """Return what has become of one of them once it has ended, or after some seconds."""
        job = self._jobs.wait(job_id, timeout)
        if job.status in ("unknown", "running"):
            return TransferState(job.status)
        said, order = _said(job), self._order(job_id)
        if said.status == "done" or order is None or order.restore is None:
            return said
        # What it could not remove itself, as when the server went away, is removed now.
        try:
            is_done = settle(order.node.node_id, job_id)
        except TransientState:
            return TransferState("running")  # until the server is there again
        except (TransferFailed, OpenRDBError, KeyError) as error:
            # The next restore removes it.
            log.warning("what the restore %s has left stays for now: %s", job_id, error)
            return said
        if is_done:
            return TransferState("done", size=order.restore.size, checksum=order.restore.checksum)
        return said

    def stop(self, job_id: UUID, settle: Settle) -> None:
        """Remove what a job that was stopped has left; a no-op for other jobs."""
        order = self._order(job_id)
        if order is not None and order.restore is not None:
            with contextlib.suppress(TransferFailed, OpenRDBError, KeyError):  # `wait` tries again
                settle(order.node.node_id, job_id)

    def end_restores(self, node_id: UUID) -> None:
        """Stop the restores that are under way on a node."""
        for path in self._layout.transfers.iterdir():
            order = self._order(UUID(path.name))
            if order is not None and order.restore is not None and order.node.node_id == node_id:
                self._jobs.stop(order.restore.job_id)

    def heal(self, node_id: UUID, settle: Settle) -> None:
        """Remove what restores have left that ended while the server of a node was away."""
        for path in self._layout.transfers.iterdir():
            job_id = UUID(path.name)
            order = self._order(job_id)
            if order is None or order.restore is None or order.node.node_id != node_id:
                continue
            if self._jobs.state(job_id).status == "failed":
                with contextlib.suppress(TransferFailed, OpenRDBError, KeyError):
                    settle(node_id, job_id)

    def forget(self, job_id: UUID) -> None:
        """Remove a job's directory; a no-op if there is none."""
        files.remove_tree(self._directory(job_id))

    def _directory(self, job_id: UUID) -> Path:
        return self._layout.transfers / str(job_id)

    def _order(self, job_id: UUID) -> Order | None:
        try:
            return ORDERS.validate_json((self._directory(job_id) / _ORDER).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None


def _what(spec: DumpSpec | RestoreSpec | LogsSpec) -> str:
    if isinstance(spec, LogsSpec):
        return "copy the logs"
    return f"{'dump' if isinstance(spec, DumpSpec) else 'restore'} {spec.database}"


def _said(job: JobState) -> TransferState:
    """Return how a job ended: what its program said, or else why it was ended."""
    last = job.output.strip().rpartition("\n")[2]
    try:
        return STATES.validate_json(last)
    except ValidationError:
        log.warning("job %s ended without a word of its own: %s", job.id, job.output[-2000:])
        return TransferState("failed", _REASONS.get(job.reason, _ENDED))
