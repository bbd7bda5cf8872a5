"""The `Transfers` of MySQL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from uuid import UUID

from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import dump, restore, swap
from openrdb.engines.transfers import Contents, Dump, TransferFailed


class Transfers:
    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def dump(self, database: str) -> AbstractContextManager[Dump]:
        return dump.begin(self._node, database)

    def failure(self, stderr: str) -> TransferFailed:
        return dump.failure(stderr)

    def check_restore(self, database: str, contents: Contents) -> None:
        restore.check(self._node, database, contents)

    def restore(self, job_id: UUID, database: str, contents: Contents, archive: Path) -> None:
        restore.run_restore(self._node, job_id, database, contents, archive)

    def settle(self, job_id: UUID) -> bool:
        try:
            return swap.settle(self._node, job_id)
        except MySQLError as error:
            raise dump.failed(error) from error
