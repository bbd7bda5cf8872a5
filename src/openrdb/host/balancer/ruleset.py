"""What nftables is told: one table a deployment, as text for `nft -f -`.

A map leads from an endpoint's address and port to a chain of its own, which translates the destination
for the sources in the endpoint's set and resets all others. Only a session's first packet comes there.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from openrdb.host.balancer.base import Place, Target, address_text

PREFIX = "openrdb_"
SILENCE = 6 * 3600
"""Seconds after which the kernel may forget a silent session."""

# Before all other translations (dstnat is -100), so that none with a wider rule takes a session first.
_TABLE = """\
add table inet {table}
add chain inet {table} arriving {{ type nat hook prerouting priority -110; }}
add chain inet {table} starting {{ type nat hook output priority -110; }}
flush chain inet {table} arriving
flush chain inet {table} starting
"""
# An address that is not this machine's is passed over until it is: it may be somebody else's.
_FAMILY = """\
add ct timeout inet {table} silent{version} \
{{ protocol tcp; l3proto {ip}; policy = {{ established : {silence} }}; }}
add map inet {table} endpoints{version} {{ type {type} . inet_service : verdict; }}
add rule inet {table} arriving fib daddr type local {ip} daddr . tcp dport vmap @endpoints{version}
add rule inet {table} starting fib daddr type local {ip} daddr . tcp dport vmap @endpoints{version}
"""
# What the kernel no longer refuses by itself once `route_localnet` is on; before any translation.
_GUARD = """\
add chain inet {table} guard {{ type filter hook prerouting priority raw; }}
flush chain inet {table} guard
add rule inet {table} guard iif != "lo" ip daddr 127.0.0.0/8 drop
add rule inet {table} guard iif != "lo" ip saddr 127.0.0.0/8 drop
"""
_ENDPOINT = """\
add set inet {table} allowed_{id} {{ type {type}; flags interval; }}
flush set inet {table} allowed_{id}
{allow}\
add chain inet {table} endpoint_{id}
flush chain inet {table} endpoint_{id}
{lead}\
add rule inet {table} endpoint_{id} meta l4proto tcp reject with tcp reset
{forget}\
add element inet {table} endpoints{version} {{ {listen} : goto endpoint_{id} }}
"""
_ALLOW = "add element inet {table} allowed_{id} {{ {networks} }}\n"
_LEAD = """\
add rule inet {table} endpoint_{id} meta l4proto tcp {ip} saddr @allowed_{id} \
ct timeout set "silent{version}" dnat {ip} to {node}
"""
_FORGET = "delete element inet {table} endpoints{version} {{ {listen} }}\n"
_NO_ENDPOINT = """\
{forget}\
delete chain inet {table} endpoint_{id}
delete set inet {table} allowed_{id}
"""


@dataclass(frozen=True)
class Family:
    version: int
    ip: str
    type: str
    everybody: str


_FAMILIES = {
    4: Family(4, "ip", "ipv4_addr", "0.0.0.0/0"),
    6: Family(6, "ip6", "ipv6_addr", "::/0"),
}


def family_of(target: Target) -> Family:
    return _FAMILIES[ip_address(target.listen[0]).version]


def chain(target: Target) -> str:
    return f"endpoint_{target.endpoint_id.hex}"


def frame(table: str, *, guarded: bool) -> str:
    """Return what all endpoints share; harmless where it is."""
    text = _TABLE.format(table=table)
    for family in _FAMILIES.values():
        text += _FAMILY.format(table=table, silence=SILENCE, **asdict(family))
    return text + (_GUARD.format(table=table) if guarded else "")


def endpoint(table: str, target: Target, forgotten: Collection[Place]) -> str:
    """Return an endpoint as it is to be, instead of what the map led from before."""
    family = family_of(target)
    names = {"table": table, "id": target.endpoint_id.hex, **asdict(family)}
    networks = [family.everybody] if target.networks is None else map(str, target.networks)
    elements = ", ".join(networks)
    allow = _ALLOW.format(**names, networks=elements) if elements else ""
    leads = target.leads
    lead = _LEAD.format(**names, node=address_text(leads)) if leads is not None else ""
    return _ENDPOINT.format(
        **names,
        allow=allow,
        forget=_forget(table, family, forgotten),
        listen=_key(target.listen),
        lead=lead,
    )


def no_endpoint(table: str, target: Target, forgotten: Collection[Place]) -> str:
    forget = _forget(table, family_of(target), forgotten)
    return _NO_ENDPOINT.format(table=table, id=target.endpoint_id.hex, forget=forget)


def no_endpoints(table: str) -> str:
    flushed = (f"flush map inet {table} endpoints{version}\n" for version in _FAMILIES)
    return frame(table, guarded=False) + "".join(flushed)


def led_from(listed: str) -> dict[Place, str]:
    """Chains by what is led to them, of all our maps in what `nft -j list map…` says."""
    found: dict[Place, str] = {}
    for item in json.loads(listed)["nftables"]:
        described: dict[str, Any] = item.get("map", {})
        if described.get("table", "").startswith(PREFIX):
            for key, verdict in described.get("elem", ()):
                address, port = key["concat"]
                found[address, port] = verdict["goto"]["target"]
    return found


def _forget(table: str, family: Family, forgotten: Collection[Place]) -> str:
    return "".join(
        _FORGET.format(table=table, version=family.version, listen=_key(listen))
        for listen in forgotten
    )


def _key(listen: Place) -> str:
    address, port = listen
    return f"{address} . {port}"
