"""Copies of a MySQL server at work where files cannot be copied at one moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrdb.errors import PreconditionFailed
from openrdb.host.snapshots import Copier
from openrdb.host.volumes import open_pool
from openrdb.system.bundle import Bundle
from tests.support.mysql_server import Server
from tests.support.volumes import DATA, TEMPLATE, data_directory, is_tidy


def test_binaries_without_the_clone_plugin_make_none(
    mysql: Server, mysql_bundle: Bundle, office: str, short_tmp: Path
) -> None:
    """The jar's 8.0.31 has none: it is refused at once, and everything is as it was."""
    pool = open_pool(data_directory(short_tmp / "pool"))
    copier = Copier(pool, DATA, TEMPLATE)
    has_plugin = any(mysql_bundle.path.glob("lib/mysql/plugin/mysql_clone.so"))
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {office}.kept (id int PRIMARY KEY)")
        if has_plugin:
            mysql.engine.copy_data(copier)
        else:
            with pytest.raises(PreconditionFailed) as refused:
                mysql.engine.copy_data(copier)
            assert "no clone plugin" in refused.value.help_message
        assert pool.exists(TEMPLATE) == has_plugin
        assert is_tidy(short_tmp / "pool")
        cursor.execute(f"INSERT INTO {office}.kept VALUES (1)")
        cursor.execute("SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'clone'")
        assert cursor.fetchall() == ()
