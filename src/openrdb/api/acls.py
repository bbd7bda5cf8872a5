"""The networks whose clients are let in at public endpoints (ACL)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, Backend, CurrentBackend, CurrentPage, the_instance
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.instances.apply_acl import ApplyAcl
from openrdb.state import instances
from openrdb.state.events import Caller
from openrdb.state.models import AclRule, Instance
from openrdb.state.statuses.instance import InstanceStatus

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}/acls")

_MOST_RULES = 1000
_DESCRIPTION = "IP allowed"
Rules = dict[str, str]
"""Descriptions by network."""


@router.get("")
def list_instance_acl_rules(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
) -> wire.ListedACLRules:
    """Return a page of the rules."""
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    shown = _show(instance, {rule.ip: rule.description for rule in instance.acl_rules})
    return wire.ListedACLRules(rules=page.of(shown), total_count=len(shown))


@router.post("")
def add_instance_acl_rules(
    region: Region,
    instance_id: UUID,
    body: wire.SetACLRules,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.ACLRules:
    """Add rules; return all."""
    added = _checked(body.rules)
    instance = _change(backend, caller, region, instance_id, lambda old: old | added)
    return wire.ACLRules(rules=_shown(instance))


@router.put("")
def set_instance_acl_rules(
    region: Region,
    instance_id: UUID,
    body: wire.SetACLRules,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.ACLRules:
    """Replace all rules; return them."""
    wanted = _checked(body.rules)
    instance = _change(backend, caller, region, instance_id, lambda _: wanted)
    return wire.ACLRules(rules=_shown(instance))


@router.delete("")
def delete_instance_acl_rules(
    region: Region,
    instance_id: UUID,
    body: wire.DeleteACLRules,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.ACLRules:
    """Delete rules; return those deleted, ignoring unknown ones."""
    ips = {_network(f"acl_rule_ips.{at}", ip) for at, ip in enumerate(body.acl_rule_ips)}
    deleted: Rules = {}

    def without(old: Rules) -> Rules:
        deleted.update({ip: text for ip, text in old.items() if ip in ips})
        return {ip: text for ip, text in old.items() if ip not in ips}

    instance = _change(backend, caller, region, instance_id, without)
    return wire.ACLRules(rules=_show(instance, deleted))


def _change(
    backend: Backend,
    caller: Caller,
    region: Region,
    instance_id: UUID,
    change: Callable[[Rules], Rules],
) -> Instance:
    def prepare(_: Session, instance: Instance) -> ApplyAcl | None:
        rules = change({rule.ip: rule.description for rule in instance.acl_rules})
        if len(rules) > _MOST_RULES:
            raise InvalidArguments(("rules", "constraint", f"at most {_MOST_RULES} in all"))
        present = {rule.ip: rule for rule in instance.acl_rules}
        for ip, description in rules.items():
            if ip in present:
                present[ip].description = description
        instance.acl_rules = [
            present.get(ip) or AclRule(ip=ip, description=text) for ip, text in rules.items()
        ]
        is_broken = instance.status == InstanceStatus.ERROR
        if is_broken and instance.is_unmade:
            return None  # there is nothing to let anybody in to
        return ApplyAcl(instance.id, repairs=is_broken)

    find = the_instance(region, instance_id, caller)
    return backend.begin(caller, find, ApplyAcl.request, prepare).subject


def _checked(rules: Sequence[wire.ACLRuleRequest]) -> Rules:
    return {
        _network(f"rules.{at}.ip", rule.ip): rule.description or _DESCRIPTION
        for at, rule in enumerate(rules)
    }


def _network(argument: str, ip: str) -> str:
    """In its usual form: an address alone is the network of just that, host bits do not count.

    The zone of a link-local address (`fe80::1%eth0`), which may be any text, is none of a network.
    """
    try:
        if "%" in ip:
            raise ValueError(ip)
        return str(ipaddress.ip_network(ip, strict=False))
    except ValueError:
        help_message = "must be an address or a network, as 192.0.2.0/24 or 2001:db8::/32"
        raise InvalidArguments((argument, "format", help_message)) from None


def _shown(instance: Instance) -> list[wire.ACLRule]:
    return _show(instance, {rule.ip: rule.description for rule in instance.acl_rules})


def _show(instance: Instance, rules: Rules) -> list[wire.ACLRule]:
    ports = [
        one.port for one in instance.endpoints if one.kind == "load_balancer" and not one.leaving
    ]
    port = ports[0] if ports else 0  # as recorded of an instance without a load balancer
    ordered = sorted(rules, key=_order)
    return [wire.ACLRule(ip=ip, port=port, description=rules[ip]) for ip in ordered]


def _order(ip: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(ip)
    return network.version, int(network.network_address), network.prefixlen
