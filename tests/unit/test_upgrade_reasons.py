"""What a major upgrade says that the new version does not take: seen with views of 17.12 on 18.6."""

from __future__ import annotations

from pathlib import Path

from openrdb.engines.postgresql.upgrade import _said_by_restore

SAID = """\
command: "/bundle/bin/pg_restore" --exit-on-error --verbose >> "/data/log/pg_upgrade_dump_5.log" 2>&1
pg_restore: creating VIEW "public.v"
pg_restore: while PROCESSING TOC:
pg_restore: error: could not execute query: ERROR:  unrecognized parameter "pg_attver"
Command was: CREATE VIEW public.v WITH (pg_attver='1') AS SELECT 1;
"""


def test_the_servers_words_are_told(tmp_path: Path) -> None:
    whole, cut = (tmp_path / f"pg_upgrade_dump_{number}.log" for number in (1, 5))
    whole.write_text("pg_restore: creating VIEW\n")
    assert _said_by_restore([whole]) is None
    cut.write_text(SAID)
    assert _said_by_restore([cut, whole]) == 'unrecognized parameter "pg_attver"'


def test_no_path_of_the_hosts_is_told(tmp_path: Path) -> None:
    log = tmp_path / "pg_upgrade_dump_1.log"
    log.write_text(
        'pg_restore: error: could not execute query: ERROR:  no file "/var/lib/x/y.so"\n'
    )
    assert "/var/lib" not in str(_said_by_restore([log]))
