"""Whose every file of a served data directory is, and that no secret is where others see it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrdb.system import accounts
from tests.support.service import PASSWORD, Service

pytestmark = pytest.mark.root

_NODE = r"instances/[^/]+/nodes/[^/]+"


@dataclass(frozen=True)
class Row:
    """Files whose paths below the data directory match, and what is true of them."""

    pattern: str
    is_accounts: bool | None = False
    """Whether they belong to the instance's account, or to root; None: to whoever makes them."""
    forbidden: int = 0o077
    """Bits of the mode that none has."""


_SECRET = Row(
    r"agent\.(token|json|lock)|(openrdb|keeper)\.lock|reserve|master\.key|credentials\.json"
    r"|(state|workflows)\.sqlite[^/]*|certificates/.+|(recovery-)?jobs/.*|objects/.+|template\.secret|templates/secret"
)
_ROWS = (
    _SECRET,
    Row(r"run/[^/]+"),
    Row(r"run/[0-9a-f]{12}/.+", is_accounts=True),
    Row(r"bundles/.+", forbidden=0o022),
    Row(r"templates/.+/.+"),
    Row(r"making/.+", is_accounts=None, forbidden=0o007),
    Row(r"instances/[^/]+/(node|balancer)-[^/]+\.(lock|process)"),
    Row(r"instances/[^/]+/routes/[^/]+"),
    Row(r"instances/[^/]+/balancer/[^/]+/(acl\.lst|haproxy\.cfg)", forbidden=0o137),
    Row(r"instances/[^/]+/balancer/[^/]+/haproxy\.log"),
    Row(_NODE + r"/(node\.json|start\.out|samples)"),
    Row(_NODE + r"/conf/[^/]+", forbidden=0o137),
    Row(_NODE + r"/(data|log)/.+", is_accounts=True, forbidden=0o007),
)


def _files(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            try:
                yield str(path.relative_to(top)), path.lstat()
            except FileNotFoundError:
                continue  # an engine's, gone meanwhile


def test_every_file_is_as_it_should_be(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    instance = service.create(newest)
    account = (service.data_dir / "instances" / instance.id).stat().st_gid
    assert account != 0
    met, wrong = set(), []
    for name, found in _files(service.data_dir):
        row = next((row for row in _ROWS if re.fullmatch(row.pattern, name)), None)
        if row is None:
            wrong.append(f"{name} is unknown")
            continue
        met.add(row)
        if row.is_accounts is not None and found.st_uid != (account if row.is_accounts else 0):
            wrong.append(f"{name} is of {found.st_uid}")
        if not stat.S_ISLNK(found.st_mode) and not _is_socket_of_account(row, found):
            mode = stat.S_IMODE(found.st_mode)
            if mode & row.forbidden:
                wrong.append(f"{name} has mode {mode:o}")
    assert wrong == []
    assert _SECRET in met
    for path in service.data_dir.glob("instances/*/nodes/*/node.json"):
        tried = accounts.run(account, ["cat", str(path)], {})
        assert tried.returncode != 0


def _is_socket_of_account(row: Row, found: os.stat_result) -> bool:
    """Engines make sockets that everybody may connect to: the directory keeps others out."""
    return row.is_accounts is True and stat.S_ISSOCK(found.st_mode)


def test_no_secret_is_seen_or_logged(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    instance = service.create(newest)
    path = f"/instances/{instance.id}/users"
    user = {"name": "taken", "password": PASSWORD, "is_admin": False}
    assert service.request("POST", path, json=user).status_code == 200
    assert service.request("POST", path, json=user).status_code == 400
    (node,) = service.data_dir.glob("instances/*/nodes/*/node.json")
    spec = json.loads(node.read_text())["spec"]
    (record,) = service.data_dir.glob("instances/*/node-*.process")
    os.kill(json.loads(record.read_text())["pid"], 9)
    service.request("GET", path)
    secrets = {
        "password": PASSWORD,
        "key": service.secret_key,
        "token": (service.data_dir / "agent.token").read_text(),
        "template": (service.data_dir / "templates" / "secret").read_text(),
        "superuser": spec["secret"],
        "replication": spec["replication_secret"],
        "certificate": spec["certificate"]["key"].splitlines()[1],
        "master": (service.data_dir / "master.key").read_bytes().hex(),
        "verifier": "SCRAM-SHA-256$",
    }
    assert all(len(secret) >= 8 for secret in secrets.values())
    logs = [service.home / "serve.log", *service.data_dir.glob("run/*.log*")]
    logs += [
        *service.data_dir.glob("run/*.out"),
        *service.data_dir.glob("instances/*/nodes/*/log/*"),
    ]
    logs += service.data_dir.glob("instances/*/nodes/*/start.out")
    assert len(logs) > 4
    texts = {str(log): log.read_text(errors="replace") for log in logs}
    for process in service.processes():
        for name in ("cmdline", "environ"):
            place = Path(f"/proc/{process.pid}/{name}")
            texts[f"{place} of {process.name()}"] = place.read_bytes().decode(errors="replace")
    for place_of_text, text in texts.items():
        for name, secret in secrets.items():
            assert secret not in text, f"{name} in {place_of_text}"
