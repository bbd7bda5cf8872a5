"""A stopped node of either engine, to be broken and started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from openrdb import certificates
from openrdb.engines import server_of, templates_of
from openrdb.engines.base import Server
from openrdb.engines.failures import UNKNOWN
from openrdb.host.bundles.cache import Bundles
from openrdb.spec import Certificate, NodeSpec
from openrdb.system import accounts, copying
from openrdb.system.layout import NodePaths
from tests.support.place import new_place

_SECRET = "a-secret-of-the-tests"
_TIMEOUT = 60


class Node:
    """`start` tries to run it once, as its host does."""

    def __init__(self, root: Path, cache: Path, engine: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        uid, memory = accounts.template_account(), 2**29
        self.uid = uid
        self.spec = NodeSpec(uuid4(), uuid4(), engine, "127.0.0.1", port, uid, memory)
        self.paths = NodePaths(root, root / "s")
        self.output = root / "start.out"
        self.bundle = Bundles(cache).find(engine)
        self.server: Server = server_of(self.spec, self.bundle, self.paths, _SECRET)
        self.process: subprocess.Popen[bytes] | None = None

    def make(self, template: Path) -> None:
        paths, uid = self.paths, self.uid
        for path in (paths.root, paths.configuration):
            accounts.ensure_passage(path, uid)
        for path in (paths.log, paths.sockets):
            accounts.ensure_directory(path, uid)
        copying.copy_tree(template, paths.data, uid)
        templates_of(self.spec.engine).renew_identity(paths.data)
        made = self.certificate()
        accounts.write_file(paths.certificate, made.presented, uid)
        accounts.write_file(paths.authority, made.authority, uid)
        accounts.write_file(paths.key, made.key, uid)
        for name, text in self.server.configuration().items():
            accounts.write_file(paths.configuration / name, text, uid)
        self.server.prepare_start()

    def certificate(self) -> Certificate:
        """Return a new one, of a new authority."""
        place = (self.spec.instance_id, "fr-par", [self.spec.address])
        return certificates.issue(certificates.make_authority(*place), *place)

    def run(self) -> subprocess.Popen[bytes]:
        command = accounts.as_account(self.uid, self.server.command())
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "PATH": os.defpath} | dict(self.bundle.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self.process

    def start(self) -> str | None:
        """Return why it does not start; None if it does."""
        process = self.run()
        if self.server.wait_accepting(process.pid, _TIMEOUT):
            return None
        assert process.wait(_TIMEOUT) != 0
        # The process that collects its log may outlive it by a moment.
        deadline = time.monotonic() + _TIMEOUT
        while (reason := self.server.failure_reason(self.output)) == UNKNOWN:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return reason

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.server.stop_signal)
            self.process.wait(_TIMEOUT)

    def configure(self, name: str, *lines: str) -> None:
        """Add lines to the end of a configuration file."""
        path = self.paths.configuration / name
        accounts.write_file(path, path.read_text() + "\n".join(lines) + "\n", self.uid)

    def sleeper(self) -> subprocess.Popen[bytes]:
        """A foreign process of the node's account."""
        return subprocess.Popen(accounts.as_account(self.uid, ["sleep", "60"]))


def template(root: Path, cache: Path, engine: str) -> Path:
    data = root / "template"
    account = accounts.template_account()
    templates_of(engine).make(Bundles(cache).find(engine), data, account, _SECRET, {})
    return data


@contextmanager
def node(template: Path, cache: Path, engine: str) -> Iterator[Node]:
    root = new_place()
    made = Node(root, cache, engine)
    try:
        made.make(template)
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)
