"""The addresses that this machine has already."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import psutil


def of_interfaces() -> frozenset[IPv4Address]:
    """Return the IPv4 addresses of the machine's interfaces."""
    return frozenset(
        IPv4Address(one.address)
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET
    )
