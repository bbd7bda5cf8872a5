"""The template of each version: identity, roles, database, and that it starts."""

from __future__ import annotations

import re
from pathlib import Path

from openrdb.engines.postgresql import identity
from openrdb.system import accounts, copying
from openrdb.system.bundle import Bundle


def run(bundle: Bundle, program: str, *arguments: str, script: str = "") -> str:
    command = [str(bundle.program(program)), *arguments]
    done = accounts.run(accounts.template_account(), command, bundle.environment, script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_copies_have_identities_of_their_own(bundle: Bundle, template: Path) -> None:
    copies = [template.with_name(f"copy{number}") for number in range(2)]
    for copy in copies:
        copying.copy_tree(template, copy, accounts.template_account())
    seen = {identity.system_identifier(template)}
    for copy in copies:
        seen.add(identity.renew_system_identifier(copy))
        told = run(bundle, "pg_controldata", "-D", str(copy))
        assert str(identity.system_identifier(copy)) in told
        assert "WARNING" not in told, "the checksum is wrong"
        # It starts, and its WAL belongs to it: else "WAL file is from different database system".
        run(bundle, "postgres", "--single", "-D", str(copy), "rdb", script="CHECKPOINT\n")
    assert len(seen) == 3


def test_no_role_that_opens_the_host_can_be_granted(bundle: Bundle, template: Path) -> None:
    script = "SELECT string_agg(rolname, ' ') FROM pg_authid\n"
    roles = run(bundle, "postgres", "--single", "-D", str(template), "rdb", script=script)
    assert "_rdb_superadmin" in roles
    if int(bundle.version.split(".")[0]) < 16:
        assert not {
            *("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"),
            *("pg_signal_backend", "pg_read_all_data", "pg_write_all_data"),
        } & set(re.findall(r"\w+", roles))
    assert "pg_monitor" in roles
    assert "postgres" not in roles.split()
