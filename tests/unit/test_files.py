"""Copying volumes and waiting for files."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrdb.system import accounts, copying, files
from tests.support.service import wait_until


def test_a_copy_is_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(os.urandom(100_000))
    (source / "empty").touch(mode=0o600)
    (source / "link").symlink_to("/etc/passwd")
    copying.copy_tree(source, tmp_path / "copy")
    assert (tmp_path / "copy/sub/file").read_bytes() == (source / "sub/file").read_bytes()
    assert (tmp_path / "copy/empty").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy/link").readlink() == Path("/etc/passwd"), "links are not followed"


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=6))
def test_holes_stay_and_content_too(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[tuple[bool, int]]
) -> None:
    place = tmp_path_factory.mktemp("sparse")
    (place / "source").mkdir()
    with (place / "source/file").open("wb") as file:
        for written, count in blocks:
            if written:
                file.write(os.urandom(count * 4096))
            else:
                file.seek(count * 4096, os.SEEK_CUR)
        file.truncate(file.tell())
    copying.copy_tree(place / "source", place / "copy")
    assert (place / "copy/file").read_bytes() == (place / "source/file").read_bytes()


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError):
        copying.copy_tree(tmp_path / "a", tmp_path / "b")


def test_waiting_ends_when_the_file_comes(tmp_path: Path) -> None:
    timer = threading.Timer(0.05, (tmp_path / "sign").touch)
    timer.start()
    assert files.wait_for(tmp_path, (tmp_path / "sign").exists, 10)
    timer.join()


def test_waiting_ends_when_the_process_dies(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert not files.wait_for(tmp_path, lambda: False, 60, pid=child)
    os.waitpid(child, 0)


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    accounts.write_file(path, "one", None)
    before = path.stat().st_ino
    accounts.write_file(path, "one", None)
    assert path.stat().st_ino == before, "the same content is not written again"
    accounts.write_file(path, "two", None)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_small_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_small(tmp_path / "file", 5) == b"12345"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("put", "number"),
    [
        (_fifo, errno.EINVAL),
        (_link, errno.ELOOP),
        (_huge, errno.EFBIG),
        (_socket, errno.ENXIO),
        (Path.mkdir, errno.EINVAL),
        (lambda path: None, errno.ENOENT),
    ],
)
def test_what_an_account_can_put_in_a_files_place(
    short_tmp: Path, put: Callable[[Path], None], number: int
) -> None:
    put(short_tmp / "file")
    with pytest.raises(OSError) as refused:
        files.read_small(short_tmp / "file")
    assert refused.value.errno == number
    assert files.read_tail(short_tmp / "file", 10) == ("\0" * 10 if put is _huge else "")


def test_a_private_file_is_private_whatever_it_was(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch(mode=0o644)
    for path in (lock, tmp_path / "new"):
        with files.open_private(path):
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_removal_ends_with_who_began_it(tmp_path: Path) -> None:
    """Else `openrdb stop` would leave a process."""
    (tmp_path / "rm").write_text("#!/bin/sh\necho $$ > rm.pid\nexec sleep 600\n")
    (tmp_path / "rm").chmod(0o755)
    script = (
        "from pathlib import Path; from openrdb.system import files; files.remove_tree(Path('x'))"
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    remover = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    pid = tmp_path / "rm.pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    removal = psutil.Process(int(pid.read_text()))
    remover.kill()
    remover.wait()
    wait_until(lambda: not removal.is_running() or removal.status() == psutil.STATUS_ZOMBIE, 30)
