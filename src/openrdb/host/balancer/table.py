"""A table of nftables that is ours: changed in transactions, and known to be untouched or not.

Other firewalls may flush all tables. Whether ours is as it was left is known from the kernel's count of
changes, which costs nothing, and where that has moved on from a digest of what the table says.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct

from openrdb.errors import HostError
from openrdb.host.balancer import tools
from openrdb.system.layout import Layout


def digest(layout: Layout) -> str:
    """Return what tells a deployment's tables from those of others on the same machine."""
    return hashlib.sha256(os.fsencode(layout.root.resolve())).hexdigest()[:8]


class Table:
    """One table of the family inet; whoever has it lets one thread at a time call its methods."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._left: int | None = None
        """The kernel's generation as our last change left it."""
        self._digest: str | None = None
        """The table's as it was left, once it has been taken."""

    def listed(self, *arguments: str) -> str:
        """Return what nft lists of the table; "" where it is not there."""
        try:
            return tools.run("nft", *arguments)
        except HostError:
            return ""

    def exists(self) -> bool:
        return bool(self.listed("list", "table", "inet", self.name))

    def commit(self, script: str, *, whole: bool = False) -> None:
        """Make a change, of the whole table or of a part: all of it or, with a HostError, nothing."""
        known = whole or self.is_untouched()
        before = _generation()
        self._left = self._digest = (
            None  # if it is refused, healing writes all that there should be
        )
        tools.run("nft", "-f", "-", text=script)
        # If somebody else made a change meanwhile, it may be of our table: we write that again then.
        alone = _generation() == before + 1
        self._left = before + 1 if known and alone else None

    def remove(self) -> None:
        """Take it away; a no-op where it is not there."""
        tools.run(
            "nft", "-f", "-", text=f"add table inet {self.name}\ndelete table inet {self.name}"
        )
        self._left = self._digest = None

    def is_untouched(self) -> bool:
        """Return whether it is as we left it; costs nothing where nobody changed any table."""
        generation = _generation()
        if self._left != generation:
            if self._digest is None or self._digest != self._current_digest():
                return False
            self._left = generation
        return True

    def remember(self) -> None:
        """Take a digest of it as it is, if it is as we left it and none has been taken yet."""
        if self._digest is None:
            current = self._current_digest()
            self._digest = current if _generation() == self._left else None

    def _current_digest(self) -> str:
        """Return a digest of all that it says, in whatever order the kernel lists it."""
        words = self.listed("list", "table", "inet", self.name).replace(",", " ").split()
        return hashlib.sha256(" ".join(sorted(words)).encode()).hexdigest()


def alarm() -> socket.socket:
    """Return what becomes readable at each change of any table."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    opened.bind((0, _CHANGES_OF_TABLES))
    opened.setblocking(False)
    return opened


def _generation() -> int:
    """Return the kernel's count of the changes made to all tables (NFT_MSG_GETGEN)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        # A netlink header (its type is a request) and one of netfilter's.
        kernel.send(struct.pack("=IHHIIBBH", 20, _GET_GENERATION, 1, 0, 0, 0, 0, 0))
        generation: int = struct.unpack_from(">I", kernel.recv(4096), 24)[0]
        return generation


# Of linux/netlink.h, netfilter/nfnetlink.h and netfilter/nf_tables.h.
_NETLINK_NETFILTER = 12
_GET_GENERATION = 10 << 8 | 16
_CHANGES_OF_TABLES = 1 << 7 - 1
