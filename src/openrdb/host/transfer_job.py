"""The program of a dump, a restore or a copy of logs: `python -m openrdb.host.transfer_job < ORDER`.

It runs as the agent's own account, as the store's credentials are none of an instance's account, and
starts the engine's programs as that. Bytes go by pipe, as fast as the slower end takes them. Its last
line of output says how it ended.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import zstandard

from openrdb.engines import rules_of
from openrdb.engines.transfers import Child, Dump, TransferFailed
from openrdb.errors import DiskFull, ObjectMissing, StoreUnavailable
from openrdb.host import logs
from openrdb.host.orders import CONTENTS, ORDERS, STATES, Order
from openrdb.spec import DumpSpec, LogsSpec, RestoreSpec, TransferState
from openrdb.storage import open_store
from openrdb.storage.base import Store
from openrdb.system import accounts, files, locks, process

log = logging.getLogger(__name__)

_starter = ThreadPoolExecutor(1, "starter")
_PIPE = 2**20
_CHUNK = 2**20
_TAIL = 8192
_LEVEL = 1
_STACK = 24 * 2**20
"""Bytes of a stack, of which the words of a command line may have a quarter: clients are told tables by
their names, and a database may have tens of thousands."""
_LONGEST_REASON = 2000
_MOST_OF_DATA = 2
"""Times the size of the data that a dump may have: bytes that nothing compresses are written as text,
and have a tenth or so more when that is compressed."""
_MARK = b"openrdb:"
_SKIPPED = b"\x50\x2a\x4d\x18"
"""With which a frame begins that decompressors of zstd skip."""


def main() -> int:
    """Do what standard input orders; return the exit status."""
    process.prepare()
    signal.signal(signal.SIGTERM, _stop)
    _allow_long_command_lines()
    order = ORDERS.validate_json(sys.stdin.buffer.read())
    state = do(order)
    sys.stdout.write("\n" + STATES.dump_json(state).decode() + "\n")
    return 0 if state.status == "done" else 1


def _allow_long_command_lines() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < _STACK:
        most = _STACK if hard == unlimited else min(_STACK, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (most, hard))


def _stop(*_: object) -> None:
    # What the engine's module removes at the end of a restore is removed then, too.
    raise TransferFailed("", "it was stopped")


def do(order: Order) -> TransferState:
    """Do what is ordered, and return how it ended."""
    try:
        with _explained():
            if order.dump is not None:
                return _dump(order, order.dump)
            if order.restore is not None:
                return _restore(order, order.restore)
            if order.logs is not None:
                return _copy_logs(order, order.logs)
            raise ValueError("there is nothing to do")
    except TransferFailed as error:
        return TransferState("failed", error.reason[:_LONGEST_REASON], error.kind)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the store and the disk refuse into failures for the user."""
    try:
        yield
    except ObjectMissing as error:
        why = "the backup's file is not in the object store any more"
        raise TransferFailed("missing", why) from error
    except StoreUnavailable as error:
        raise TransferFailed("store", str(error)) from error
    except DiskFull as error:
        raise TransferFailed("no_space", "the object store has no space left") from error
    except OSError as error:
        if error.errno == errno.E2BIG:
            why = "the database has too many tables: their names do not fit on a command line"
            raise TransferFailed("too_many_tables", why) from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TransferFailed("no_space", "the host has no space left") from error


# -- dumps -------------------------------------------------------------------------------------------


def _dump(order: Order, spec: DumpSpec) -> TransferState:
    store, key = open_store(spec.target.store), spec.target.key
    transfers = order.server.transfers()
    at_most = _MOST_OF_DATA * files.tree_size(order.paths.data)
    with transfers.dump(spec.database) as dump:
        contents = json.dumps(dump.contents).encode()
        stored = store.put(key, _output(order, dump, contents), at_most)
    try:
        store.put(key + CONTENTS, iter([contents]))
    except BaseException:
        with suppress(StoreUnavailable):
            store.delete(key)
        raise
    return TransferState("done", size=stored.size, checksum=stored.checksum)


def _output(order: Order, dump: Dump, contents: bytes) -> Iterator[bytes]:
    """Yield what the programs of a dump write, compressed if need be, and what its contents are
    recognized by: so the checksum of the dump is one of both.

    Raises:
        TransferFailed: one of them failed, or has not written all.
    """
    for child in dump.children:
        chunks = _written(order, child, dump.last_words)
        yield from _compressed(chunks) if dump.compress else chunks
    mark = _mark(contents)
    # Programs that read a dump skip a frame of this kind, and what follows PostgreSQL's archives.
    yield _SKIPPED + len(mark).to_bytes(4, "little") + mark if dump.compress else mark


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    # In a thread of its own, while this one waits for the pipe and the store.
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=1).compressobj()
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


def _written(order: Order, child: Child, last_words: bytes) -> Iterator[bytes]:
    """Yield what a program writes; raise at its end unless all of it is there."""
    with tempfile.TemporaryFile(dir=order.directory) as complaints:
        # It ends with the thread that starts it; the store asks for chunks in threads of its own.
        program = _starter.submit(
            subprocess.Popen,
            accounts.mortal(order.node.uid, child.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd="/",
            env=accounts.child_environment(child.environment),
        ).result()
        tail = b""
        try:
            assert program.stdout is not None  # noqa: S101
            fcntl.fcntl(program.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
            while chunk := os.read(program.stdout.fileno(), _CHUNK):
                tail = (tail + chunk)[-_TAIL:]
                yield chunk
            if program.wait() != 0 or last_words not in tail:
                complaints.seek(0)
                said = complaints.read()[-_TAIL:].decode(errors="replace")
                raise order.server.transfers().failure(said)
        finally:
            program.kill()
            program.wait()


def _mark(contents: bytes) -> bytes:
    return _MARK + hashlib.sha256(contents).hexdigest().encode()


# -- restores ----------------------------------------------------------------------------------------


def _restore(order: Order, spec: RestoreSpec) -> TransferState:
    _check_engine(order.node.engine, spec.engine)
    store = open_store(spec.source.store)
    transfers = order.server.transfers()
    contents = b"".join(store.get(spec.source.key + CONTENTS))
    archive = order.directory / "archive"
    try:
        with _alone(order):
            _fetch(store, spec, archive, _mark(contents))
            described = json.loads(contents)
            transfers.check_restore(spec.database, described)
            transfers.restore(spec.job_id, spec.database, described, archive)
    finally:
        archive.unlink(missing_ok=True)
    return TransferState("done", size=spec.size, checksum=spec.checksum)


@contextmanager
def _alone(order: Order) -> Iterator[None]:
    """Be the node's only restore: one removes what others have left.

    Raises:
        TransferFailed: another one runs.
    """
    descriptor = locks.open_file(order.paths.root / "restore.lock")
    try:
        if not locks.try_lock(descriptor):
            raise TransferFailed("not_ready", "another restore of the instance is running")
        yield
    finally:
        os.close(descriptor)


def _check_engine(here: str, made: str) -> None:
    """Raise TransferFailed unless one version can read what another one has dumped."""
    (engine, major), (other, its_major) = here.rsplit("-", 1), made.rsplit("-", 1)
    if engine != other or int(its_major) > int(major):
        raise TransferFailed("engine", f"a backup of {made} cannot be restored into {here}")


def _fetch(store: Store, spec: RestoreSpec, path: Path, mark: bytes) -> None:
    """Bring a dump here, where nobody else can change it, and compare it with what was stored.

    Args:
        mark: what it ends with if the contents are those that were stored with it.
    """
    if files.free_bytes(path.parent) - spec.size < files.LEAST_FREE:
        raise TransferFailed("no_space", "the host has no space left for the backup's file")
    digest, size, tail = hashlib.sha256(), 0, b""
    with path.open("wb") as file:
        for chunk in store.get(spec.source.key):
            digest.update(chunk)
            size += len(chunk)
            tail = (tail + chunk)[-len(mark) :]
            file.write(chunk)
    if size != spec.size:
        why = f"the backup is damaged: it has {size} bytes and had {spec.size}"
        raise TransferFailed("corrupt", why)
    if digest.hexdigest() != spec.checksum:
        raise TransferFailed("corrupt", "the backup is damaged: its checksum is another one")
    if tail != mark:
        raise TransferFailed("corrupt", "the backup is damaged: its description is another one")


# -- logs --------------------------------------------------------------------------------------------


def _copy_logs(order: Order, spec: LogsSpec) -> TransferState:
    directory, day_of = order.paths.log, rules_of(order.node.engine).log_day
    chunks = logs.text(directory, spec.first, spec.last, day_of)
    at_most = logs.total(directory)
    stored = open_store(spec.target.store).put(spec.target.key, chunks, at_most)
    return TransferState("done", size=stored.size, checksum=stored.checksum)


if __name__ == "__main__":
    sys.exit(main())
