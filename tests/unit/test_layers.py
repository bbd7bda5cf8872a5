"""No import goes back up: which part of OpenRDB may know which, and which libraries it may use."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import openrdb

PACKAGE = Path(openrdb.__file__).parent

PLAIN = {"errors", "logs", "spec"}
MACHINE = PLAIN | {"system", "catalog", "config"}
ENGINES = MACHINE | {"engines", "storage"}
AGENT = ENGINES | {"host", "build"}
STATE = PLAIN | {"certificates", "state"}
OBSERVE = STATE | {"engines", "host.base"}
OPERATIONS = OBSERVE | {"catalog", "config", "observe", "host.administration", "storage"}
CONSOLE = OPERATIONS | {"operations"}
API = CONSOLE | {"console", "host.space"}

MAY_IMPORT = {
    "errors": set(),
    "logs": set(),
    "spec": set(),
    "windows": set(),
    "build": set(),
    "certificates": PLAIN,
    "system": PLAIN,
    "storage": PLAIN | {"system"},
    "catalog": PLAIN,
    "config": PLAIN | {"system", "catalog", "windows"},
    "engines": PLAIN | {"system", "catalog"},
    "host": ENGINES,
    "agent": AGENT,
    "state": STATE | {"system"},
    "observe": OBSERVE,
    "operations": OPERATIONS,
    "schedules": OPERATIONS | {"operations"},
    "console": CONSOLE,
    "api": API,
}
"""From below. What is not named here starts everything or is a command: it may import all."""

TOP = {"__init__", "__main__", "service", "cli", "credentials", "data_directory"}

BELONGS_TO = {
    "dbos": {"operations"},
    "fastapi": {"api"},
    "starlette": {"api", "agent", "console"},
    "httpx": {"agent", "console"},
    "jinja2": {"console"},
    "typer": {"cli"},
    "rich": {"cli"},
    "supervisor": {"agent"},
    "psycopg": {"engines", "cli"},
    "pymysql": {"engines", "cli"},
    "obstore": {"storage"},
    "zstandard": {"engines", "host"},
    "subprocess": {"system", "host", "agent"},
}
"""Libraries that one part hides from the others."""


def imports() -> Iterator[tuple[str, str]]:
    """Yield each module with each module that it imports, `openrdb.` left out of ours."""
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield module, name.removeprefix("openrdb.")


def part_of(module: str) -> str:
    return module.partition(".")[0]


def is_within(name: str, parts: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


def test_every_part_is_named() -> None:
    parts = {part_of(module) for module, _ in imports()}
    assert parts == MAY_IMPORT.keys() | TOP


def test_no_import_goes_back_up() -> None:
    ours = {path.stem for path in PACKAGE.iterdir()} - {"__init__"}
    wrong = [
        f"{module} imports {name}"
        for module, name in imports()
        if (part := part_of(module)) in MAY_IMPORT
        and part_of(name) in ours
        and part_of(name) != part
        and not is_within(name, MAY_IMPORT[part])
    ]
    assert not wrong


@pytest.mark.parametrize("library", BELONGS_TO)
def test_libraries_stay_where_they_belong(library: str) -> None:
    users = {part_of(module) for module, name in imports() if part_of(name) == library}
    assert users <= BELONGS_TO[library]
    assert users, f"nothing uses {library} any more"


def loaded_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_agent_loads_nothing_of_the_control_plane() -> None:
    loaded = loaded_by("openrdb.agent.run")
    heavy = {
        "sqlalchemy",
        "alembic",
        "fastapi",
        "dbos",
        "typer",
        "rich",
        "httpx",
        "supervisor",
        "obstore",
    }
    assert not loaded & heavy
    above = ("state", "operations", "api", "observe", "service", "cli")
    assert not {name for name in loaded if is_within(name, {f"openrdb.{one}" for one in above})}


def test_engines_load_no_http() -> None:
    assert not loaded_by("openrdb.engines") & {"http.client", "http.server", "starlette", "uvicorn"}
