"""`--json`: each command takes it that is no other program's, and prints one JSON document."""

from __future__ import annotations

import ast
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
from typer.testing import CliRunner

from openrdb import cli
from openrdb.cli.app import app
from tests.support.service import Service, gone, wait_until

PRINTERS = {"print_listing", "print_details", "print_environment"}
"""What commands print by."""
ASKED: dict[str, Sequence[str]] = {
    **dict.fromkeys(("list", "status", "events", "undelete", "doctor", "env"), ()),
    "maintenance list": (),
    **dict.fromkeys(("operations list", "keys list", "keys create"), ()),
    "operations show": ("OPERATION",),
    "recovery show": ("listed",),
    "state backup": ("PLACE",),
    "engines list": (),
    "systemd": (),
    "demo": (),
}
"""Each such command with arguments that it answers."""
OTHERS = {"serve", "agent", "connect", "run"}
"""What they print is a log, or another program's."""
CHANGING = {
    "engines install": "tests/unit/test_installation.py",
    "keys revoke": "tests/cli/test_keys.py",
    "keys rotate-master": "tests/cli/test_keys.py",
    "recovery enable": "tests/clients/test_recovery.py",
    "recovery disable": "tests/clients/test_recovery.py",
    "stop": "tests/cli/test_serve.py",
    "maintenance schedule": "tests/clients/test_maintenances.py",
    "operations retry": "tests/cli/test_operations.py",
    "recovery restore": "tests/clients/test_recovery.py",
    "state restore": "tests/cli/test_state.py",
}
"""Those that need more than an instance, and where they are tried."""


def commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command with its whole name."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        whole = f"{before}{name}"
        if hasattr(command, "commands"):
            yield from commands(command, f"{whole} ")
        else:
            yield whole, command


def takes_json(command: Any) -> bool:
    return any("--json" in one.opts for one in command.params)


def calls(command: Any) -> set[str]:
    """Return the names of the functions that a command calls."""
    tree = ast.parse(inspect.getsource(inspect.unwrap(command.callback)))
    found = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {one.id for one in found if isinstance(one, ast.Name)}


def test_every_command_takes_json() -> None:
    every = dict(commands())
    assert {name for name, one in every.items() if not takes_json(one)} == OTHERS
    assert {name for name, one in every.items() if calls(one) & PRINTERS} == {
        name for name, one in every.items() if takes_json(one)
    }
    assert {
        name for name, one in every.items() if takes_json(one)
    } == ASKED.keys() | CHANGING.keys()


def test_tables_have_one_place() -> None:
    users = [
        path.name
        for path in Path(cli.__file__).parent.rglob("*.py")
        if "rich.table" in path.read_text() or "print_json" in path.read_text()
    ]
    assert users == ["listing.py"]


@pytest.mark.slow
def test_json_is_printed(service: Service, tmp_path: Path) -> None:
    made = service.create(name="listed")
    where = ("--data-dir", str(service.data_dir))

    def printed(name: str, arguments: Sequence[str]) -> Any:
        place = () if name.startswith("engines") else where
        command = [*name.split(), *arguments, *place, "--json"]
        if name == "doctor":  # which looks at who runs it
            return json.loads(service.run(*command).stdout)
        with patch.dict(os.environ):  # in this process: a dozen of others takes ten seconds
            done = CliRunner().invoke(app, command, env=service.environment)
        assert done.exit_code == 0, (name, done.output, done.exception)
        return json.loads(done.stdout)

    operation = next(
        one["id"] for one in printed("operations list", ["--all"]) if one["subject_id"] == made.id
    )
    meant = {"OPERATION": operation, "PLACE": str(tmp_path / "saved")}
    for name, arguments in ASKED.items():
        found = printed(name, [meant.get(one, one) for one in arguments])
        assert isinstance(found, list) == (
            name.split()[-1] in ("list", "events", "undelete", "doctor")
        )
        if name == "keys create":
            service.run("keys", "revoke", found["SCW_ACCESS_KEY"], *where)
    deployment = printed("status", ())
    assert [one["name"] for one in deployment["hosts"]] == ["local"]
    assert deployment["hosts"][0]["nodes"] >= 1
    assert deployment["nodes"]["running"] >= 1
    assert deployment["strangers"] == []
    (node,) = printed("status", ["listed"])["nodes"]
    (log,) = service.sdk().prepare_instance_logs(instance_id=made.id).instance_logs
    assert node["name"] == log.node_name
    wait_until(lambda: service.sdk().get_instance_log(instance_log_id=log.id).status == "ready")
    service.sdk().delete_instance(instance_id=made.id)
    wait_until(lambda: gone(service.sdk(), made.id))
