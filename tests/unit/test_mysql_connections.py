"""Connections to MySQL that fail."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pymysql
import pytest

from openrdb.engines.mysql.session import connect_once


def test_a_failed_connection_leaves_no_descriptor(tmp_path: Path) -> None:
    """Each kept its socket until the garbage collector came by: an agent had hundreds."""
    before = psutil.Process().num_fds()
    gc.disable()
    try:
        for _ in range(20):
            with pytest.raises(pymysql.err.OperationalError):
                connect_once(unix_socket=str(tmp_path / "nobody"), user="nobody")
        assert psutil.Process().num_fds() <= before
    finally:
        gc.enable()
