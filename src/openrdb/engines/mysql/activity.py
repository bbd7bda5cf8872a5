"""What a server does, by its own counts."""

from __future__ import annotations

from pymysql import MySQLError

from openrdb.engines import names
from openrdb.engines.base import Activity, EngineNode
from openrdb.engines.mysql import session
from openrdb.engines.mysql.sql import rows, run
from openrdb.engines.transfers import RESTORE_ROLE
from openrdb.errors import HostError

_NO_USERS = (names.SUPERUSER, names.REPLICATION, RESTORE_ROLE, "system user", "event_scheduler")
_CONNECTIONS = "SELECT count(*) FROM information_schema.processlist WHERE user NOT IN %s"
_COUNTERS = ("trx_rw_commits", "trx_ro_commits", "trx_nl_ro_commits")
"""InnoDB's, of transactions that have written, that have not, and that were one SELECT. They count what
was rolled back as well. `Com_commit` counts no statement that is a transaction of its own, and
`Handler_commit` each one as often as something takes part in it."""
_TRANSACTIONS = """
    SELECT sum(count), sum(status = 'disabled') FROM information_schema.innodb_metrics
    WHERE name IN %s
"""


def read(node: EngineNode, timeout: float) -> Activity:
    """Return what a server does; see `Server.activity`. InnoDB counts from the first call on."""
    try:
        with session.connect(node, patience=timeout) as connection:
            ((connections,),) = rows(connection, _CONNECTIONS, _NO_USERS)
            ((transactions, disabled),) = rows(connection, _TRANSACTIONS, _COUNTERS)
            if disabled:
                for counter in _COUNTERS:
                    run(connection, f"SET GLOBAL innodb_monitor_enable = '{counter}'")
    except MySQLError as error:
        raise HostError(f"the server does not say what it does: {error.args[-1]}") from error
    return Activity(int(str(connections)), int(str(transactions or 0)))
