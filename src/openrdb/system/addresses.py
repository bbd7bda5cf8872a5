"""Addresses, and which ones this machine has already."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import psutil


def family_of(ip: str) -> socket.AddressFamily:
    """Return the family of an address that is written as IPv4's or IPv6's."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def of_interfaces() -> frozenset[IPv4Address]:
    """Return the IPv4 addresses of the machine's interfaces."""
    return frozenset(
        IPv4Address(one.address)
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET
    )
