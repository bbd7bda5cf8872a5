"""Templates and spares: nobody but their owner can change them, at any time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from openrdb.engines import templates_of
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.host.templates import Templates
from openrdb.host.volumes import DirectoryPool, Volume
from openrdb.spec import NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from tests.support.agent import Agent
from tests.support.service import unprivileged

pytestmark = pytest.mark.root


@pytest.fixture
def pool(short_tmp: Path) -> DirectoryPool:
    return DirectoryPool(short_tmp)


@pytest.fixture
def templates(short_tmp: Path, pool: DirectoryPool) -> Iterator[Templates]:
    made = Templates(short_tmp / "templates", pool, 1, "secret")
    yield made
    made.close()


def make(templates: Templates, cache: Path, version: str, init: Mapping[str, str]) -> Bundle:
    bundle = Bundles(cache).find(version)
    templates.prepare(bundle, templates_of(version), init)
    templates.close()
    return bundle


def place_of(short_tmp: Path, bundle: Bundle) -> Path:
    (found,) = (short_tmp / "templates").glob(f"{bundle.name},*")
    return found


def as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*unprivileged(), *command], input="SELECT 1\n", capture_output=True, text=True, check=False
    )


def test_nobody_can_change_them(
    templates: Templates, short_tmp: Path, cache: Path, newest: str
) -> None:
    bundle = make(templates, cache, newest, {})
    place = place_of(short_tmp, bundle)
    whole = {path.name.split("-")[0] for path in place.iterdir()}
    assert whole == {"template", "spare"}, "nothing half made is left"
    for path in [place, *place.rglob("*")]:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert path.is_dir() or found.st_nlink == 1, path
        assert path == place or found.st_mode & 0o077 == 0, path
    for data in place.iterdir():
        assert as_nobody(["ls", str(data)]).returncode != 0
        assert as_nobody(["touch", str(data / "planted")]).returncode != 0
    assert as_nobody(["touch", str(place / "planted")]).returncode != 0


def test_no_superuser_can_be_planted(
    templates: Templates, short_tmp: Path, cache: Path, postgresql: str
) -> None:
    bundle = make(templates, cache, postgresql, {})
    data = place_of(short_tmp, bundle) / "template"
    options = ["--single", "-D", str(data), "template1"]
    planted = as_nobody([str(bundle.program("postgres")), *options])
    assert planted.returncode != 0
    assert "Permission denied" in planted.stderr


def test_they_are_made_by_an_account_that_nobody_else_has(
    templates: Templates, short_tmp: Path, cache: Path, newest: str
) -> None:
    """Between the programs that make a template, `nobody` cannot reach it and nothing runs on."""
    if why := accounts.why_not_isolated():
        pytest.skip(why)
    engine, reached = templates_of(newest), []
    run = accounts.run

    def looking(*arguments: Any) -> subprocess.CompletedProcess[str]:
        done = run(*arguments)
        makers = [
            one
            for one in psutil.process_iter(["uids", "cmdline"])  # those that end meanwhile are left
            if accounts.TEMPLATE_UID in (one.info["uids"] or ())
            and str(short_tmp) in " ".join(one.info["cmdline"] or ())
        ]
        for path in (short_tmp / "making").glob("*/*"):
            open_to_nobody = as_nobody(["test", "-x", str(path)]).returncode == 0
            reached.append((arguments[0], open_to_nobody, makers))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "run", looking)
        bundle = Bundles(cache).find(newest)
        templates.take(bundle, engine, {}, Volume("default", "data"), None)
    assert (accounts.TEMPLATE_UID, False, []) in reached
    assert all(one == (accounts.TEMPLATE_UID, False, []) for one in reached), reached


def test_an_account_reaches_its_volume_only_once_root_is_done_with_it(
    templates: Templates, pool: DirectoryPool, short_tmp: Path, cache: Path, newest: str
) -> None:
    """Else the account could have root follow its links."""
    bundle = make(templates, cache, newest, {})
    maker, reached = templates_of(newest), []
    account = ["setpriv", "--reuid=200801", "--regid=200801", "--clear-groups", "--"]

    class Looking:
        format = maker.format
        make = staticmethod(maker.make)

        def renew_identity(self, data: Path) -> None:
            done = subprocess.run([*account, "test", "-e", str(data)], check=False)
            reached.append(done.returncode == 0)
            maker.renew_identity(data)

    for name in ("of-spare", "of-template"):
        data = short_tmp / name
        templates.take(bundle, Looking(), {}, pool.volume(data), 200_801)
        assert {path.lstat().st_uid for path in (data, *data.rglob("*"))} == {200_801}
    assert reached == [False, False]


def test_what_another_account_could_have_changed_is_made_again(
    short_tmp: Path, cache: Path
) -> None:
    place = short_tmp / "templates" / "postgresql-17"
    for name in ("template", "spare-1", "spare-2", "tmpabc", "partial-1"):
        (place / name).mkdir(parents=True)
    for name in ("template", "spare-1"):
        os.chown(place / name, 65534, 65534)
    Templates(short_tmp / "templates", DirectoryPool(short_tmp), 0, "secret").close()
    assert [path.name for path in place.iterdir()] == ["spare-2"]


def _hard_link(path: Path) -> None:
    path.hardlink_to(path.parent / "PG_VERSION")


@pytest.mark.parametrize("put", [lambda p: p.symlink_to("/etc/passwd"), os.mkfifo, _hard_link])
def test_no_link_is_taken_over(short_tmp: Path, put: Callable[[Path], None]) -> None:
    (short_tmp / "data").mkdir()
    (short_tmp / "data/PG_VERSION").touch()
    put(short_tmp / "data/global")
    with pytest.raises(HostError, match="no plain file"):
        accounts.take_over(short_tmp / "data")


def test_calls_for_one_volume_wait_for_one_another(agent: Agent) -> None:
    """An earlier one goes on after its caller was killed: the later one found the name taken."""
    ids = [uuid4() for _ in range(5)]
    specs = [
        NodeSpec(uuid4(), one, "PostgreSQL-18", "127.0.0.1", 12999, agent.account(), 2**30)
        for one in ids
    ]
    with ThreadPoolExecutor(4) as threads:
        for spec in specs:
            list(threads.map(agent.host.ensure_volume, [spec] * 4))
            assert agent.host._paths(agent.host._record(spec.node_id)).data.is_dir()
    for spec in specs:
        agent.host.ensure_removed(spec.instance_id, [spec.node_id], keep=False)
