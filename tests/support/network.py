"""A network of the tests' own: a namespace of the kernel's, so that this machine's is never touched."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Have this thread, and what it starts from now on, in a new network with a loopback only."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        ip("link", "set", "lo", "up")
        yield
    finally:
        _check(_libc.setns(before, _CLONE_NEWNET))
        os.close(before)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def nft(*arguments: str, text: str = "") -> str:
    done = subprocess.run(
        ["nft", *arguments], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


class Neighbour:
    """Another machine, at 192.0.2.2, which may send whatever it likes to this one at 192.0.2.1."""

    HERE, THERE = "192.0.2.1", "192.0.2.2"

    def __init__(self) -> None:
        self._machine = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)

    def __enter__(self) -> Neighbour:
        mine = os.readlink("/proc/thread-self/ns/net")
        while os.readlink(f"/proc/{self._machine.pid}/ns/net") == mine:
            pass  # it is just leaving our network
        ip("link", "add", "here", "type", "veth", "peer", "there", "netns", str(self._machine.pid))
        ip("address", "add", f"{self.HERE}/24", "dev", "here")
        ip("link", "set", "here", "up")
        self._run("ip", "address", "add", f"{self.THERE}/24", "dev", "there")
        self._run("ip", "link", "set", "there", "up")
        # It has no loopback itself, and takes ours for one of the network's addresses.
        self._run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        self._run("ip", "route", "add", "127.0.0.0/8", "via", self.HERE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._machine.stdin is not None
        self._machine.stdin.close()
        self._machine.wait(10)

    def _run(self, *command: str) -> str:
        inside = ["nsenter", "--target", str(self._machine.pid), "--net", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]

    def hears(self, address: str, port: int) -> str:
        """The first that a server here says to it, or what went wrong."""
        code = "import socket, sys; s = socket.create_connection((sys.argv[1], sys.argv[2]), 2); "
        code += "print(s.recv(100).decode(), end='')"
        return self._run(str(Path(sys.executable)), "-c", code, address, str(port))
