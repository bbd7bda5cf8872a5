"""Logs are kept within their instances' policies, whatever tenants have logged."""

from __future__ import annotations

import logging
import threading

from openrdb.host.agent import Host
from openrdb.observe.healing import settled
from openrdb.operations.desired import node_spec
from openrdb.state.database import Database
from openrdb.state.secrets import Secrets

log = logging.getLogger(__name__)


class LogPruner:
    def __init__(self, database: Database, host: Host, secrets: Secrets, interval: float) -> None:
        """`interval`: seconds between two rounds."""
        self._database = database
        self._host = host
        self._secrets = secrets
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="log-pruner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def prune(self) -> None:
        """One round: the logs of every running node."""
        with self._database.read() as session:
            wanted = [
                (
                    node_spec(instance, node, self._secrets),
                    instance.logs_max_age_retention,
                    instance.logs_total_disk_retention,
                )
                for instance in session.scalars(settled()).unique()
                for node in instance.nodes
            ]
        for spec, days, size in wanted:
            try:
                self._host.ensure_logs_pruned(spec, days, size)
            except Exception as error:
                log.warning("the logs of node %s are pruned later: %s", spec.node_id, error)

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self.prune()
            except Exception:
                log.exception("pruning logs failed; it is tried again")
