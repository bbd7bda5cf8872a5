"""What callers ask for, at random: one line a call, with things that are there in its places."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.storm.model import Client
from tests.support.tenants import tenant_of

NETWORKS = "//vpc/v2/regions/fr-par/private-networks"
RECOVERY = "//openrdb/v1/regions/fr-par/instances/{instance}/recovery"
_WRONG = 0.05
"""How often a call is about something that there is not."""
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Call:
    weight: float
    method: str
    path: str
    """Places like `{backup}` are filled in, here and in `sent`, by what `Things.get` finds."""
    sent: Any = None
    """Functions in it choose values."""
    makes: bool = False
    """Whether another instance comes of it."""


class Nothing(Exception):
    """The tenant has none of what a call is about."""


class Things:
    """What one tenant has at the moment: one of its instances, and what belongs to it."""

    def __init__(
        self,
        client: Client,
        chance: random.Random,
        prefix: str,
        instance: dict[str, Any],
        others: list[dict[str, Any]],
    ) -> None:
        self.client, self.chance, self.prefix = client, chance, prefix
        self.instance, self.others = instance, others

    @property
    def id(self) -> str:
        return str(self.instance["id"])

    def get(self, name: str) -> str:
        """Return one that exists, chosen at random; now and then one that will be refused.

        Raises:
            Nothing: there is none.
        """
        if name in _VALUES:
            return str(_VALUES[name](self.chance))
        return str(getattr(self, f"_{name}")())

    def fill(self, value: Any) -> Any:
        """Return a path or a body with all its places filled in."""
        if isinstance(value, str):
            return _PLACE.sub(lambda found: self.get(found[1]), value)
        if isinstance(value, dict):
            return {key: self.fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        return value(self) if callable(value) else value

    def _any(self, found: list[dict[str, Any]], field: str = "id") -> str:
        if found:
            return str(self.chance.choice(found)[field])
        if self.chance.random() < _WRONG:
            return self.id
        raise Nothing

    def _listed(self, path: str, within: str, field: str = "id") -> str:
        asked = self.client.ask("GET", path)
        return self._any(self.client.body[within] if asked == "done" else [], field)

    def _instance(self) -> str:
        return self.id

    def _other(self) -> str:
        return self._any(self.others)

    def _name(self) -> str:
        return f"{self.prefix}{self.chance.randrange(10**6)}"

    def _replica(self) -> str:
        own = [self.instance, *self.others]
        return self._any([one for instance in own for one in instance["read_replicas"]])

    def _endpoint(self) -> str:
        of_replicas = [
            one for replica in self.instance["read_replicas"] for one in replica["endpoints"]
        ]
        return self._any([*self.instance["endpoints"], *of_replicas])

    def _own_endpoint(self) -> str:
        return self._any(self.instance["endpoints"])

    def _newer(self) -> str:
        return self._any(self.instance["upgradable_version"])

    def _newer_major(self) -> str:
        newer = self.instance["upgradable_version"]
        return self._any([one for one in newer if one["name"] != self.instance["engine"]])

    def _recoverable(self) -> str:
        asked = self.client.ask("GET", RECOVERY.format(instance=self.id))
        can = asked == "done" and self.client.body["windows"]
        return self._any([self.instance] if can else [])

    def _backup(self) -> str:
        return self._listed(f"/backups?page_size=100&name={self.prefix}", "database_backups")

    def _snapshot(self) -> str:
        return self._listed(f"/snapshots?page_size=100&name={self.prefix}", "snapshots")

    def _log(self) -> str:
        return self._listed(f"/instances/{self.id}/logs", "instance_logs")

    def _log_name(self) -> str:
        return self._listed(f"/instances/{self.id}/logs-details", "details", "log_name")

    def _network(self) -> str:
        return self._listed(f"{NETWORKS}?name={self.prefix}", "private_networks")


_VALUES: dict[str, Callable[[random.Random], object]] = {
    "user": lambda chance: f"u{chance.randrange(3)}",
    "database": lambda chance: chance.choice(("rdb", "d0", "d1", "d2")),
    "level": lambda chance: chance.choice(("readonly", "readwrite", "all", "none")),
    "password": lambda chance: f"Secr3t-{chance.randrange(10**9)}-of!x",
    "net": lambda chance: f"10.{chance.randrange(9)}.0.0/16",
    "year": lambda chance: 2030 + chance.randrange(60),
}


def _coin(things: Things) -> bool:
    return things.chance.random() < 0.5


def _setting(things: Things) -> dict[str, str]:
    tenant = tenant_of(things.instance["engine"])
    name, value = things.chance.choice(((tenant.hot[0], "6"), tenant.cold))
    return {"name": name, "value": value}


def _setting_name(things: Things) -> str:
    return _setting(things)["name"]


def _larger(things: Things) -> int:
    return int(things.instance["volume"]["size"]) + 5 * 10**9


_I = "/instances/{instance}"
_PRIVATE = {"private_network": {"private_network_id": "{network}", "ipam_config": {}}}
_DIRECT: dict[str, Any] = {"direct_access": {}}
_BALANCED: dict[str, Any] = {"load_balancer": {}}
_RULES = [{"ip": "0.0.0.0/0"}, {"ip": "{net}", "description": "soaked"}]
_WORKFLOW = {"upgradable_version_id": "{newer_major}", "with_endpoints": _coin}
CALLS = (
    Call(0.3, "GET", "/database-engines"),
    Call(0.3, "GET", "/node-types"),
    Call(1, "GET", _I),
    # content
    Call(0.5, "GET", f"{_I}/users"),
    Call(3, "POST", f"{_I}/users", {"name": "{user}", "password": "{password}", "is_admin": _coin}),
    Call(1.5, "PATCH", f"{_I}/users/{{user}}", {"is_admin": _coin}),
    Call(1.5, "PATCH", f"{_I}/users/{{user}}", {"password": "{password}"}),
    Call(2, "DELETE", f"{_I}/users/{{user}}"),
    Call(0.5, "GET", f"{_I}/databases"),
    Call(3, "POST", f"{_I}/databases", {"name": "{database}"}),
    Call(2, "DELETE", f"{_I}/databases/{{database}}"),
    Call(0.5, "GET", f"{_I}/privileges"),
    Call(
        3,
        "PUT",
        f"{_I}/privileges",
        {"database_name": "{database}", "user_name": "{user}", "permission": "{level}"},
    ),
    # attributes, settings, rules
    Call(1, "PATCH", _I, {"name": "{name}", "tags": ["{net}"]}),
    Call(1, "PATCH", _I, {"logs_policy": {"max_age_retention": 3, "total_disk_retention": 10**8}}),
    Call(0.5, "PATCH", _I, {"is_backup_schedule_disabled": _coin, "backup_same_region": _coin}),
    Call(1, "PUT", f"{_I}/settings", {"settings": [_setting]}),
    Call(1, "POST", f"{_I}/settings", {"settings": [_setting]}),
    Call(1, "DELETE", f"{_I}/settings", {"setting_names": [_setting_name]}),
    Call(0.5, "GET", f"{_I}/acls"),
    Call(1, "PUT", f"{_I}/acls", {"rules": _RULES}),
    Call(1, "POST", f"{_I}/acls", {"rules": [{"ip": "{net}"}]}),
    Call(1, "DELETE", f"{_I}/acls", {"acl_rule_ips": ["{net}"]}),
    Call(1, "POST", f"{_I}/renew-certificate"),
    Call(0.5, "GET", f"{_I}/certificate"),
    Call(2, "POST", f"{_I}/restart"),
    # endpoints and networks
    Call(1.5, "POST", f"{_I}/endpoints", {"endpoint_spec": _BALANCED}),
    Call(1.5, "POST", f"{_I}/endpoints", {"endpoint_spec": _PRIVATE}),
    Call(0.5, "GET", "/endpoints/{endpoint}"),
    Call(1.5, "DELETE", "/endpoints/{endpoint}"),
    Call(3, "POST", "/endpoints/{own_endpoint}/migrate", {"instance_id": "{other}"}),
    Call(0.5, "POST", NETWORKS, {"name": "{name}"}),
    Call(0.3, "DELETE", f"{NETWORKS}/{{network}}"),
    # backups and snapshots
    Call(
        2,
        "POST",
        "/backups",
        {"instance_id": "{instance}", "database_name": "rdb", "name": "{name}"},
    ),
    Call(0.5, "GET", "/backups/{backup}"),
    Call(1, "PATCH", "/backups/{backup}", {"expires_at": "{year}-01-01T00:00:00Z"}),
    Call(1, "POST", "/backups/{backup}/export"),
    Call(1, "POST", "/backups/{backup}/restore", {"instance_id": "{instance}"}),
    Call(
        0.5,
        "POST",
        "/backups/{backup}/restore",
        {"instance_id": "{instance}", "database_name": "{database}"},
    ),
    Call(1.5, "DELETE", "/backups/{backup}"),
    Call(2, "POST", f"{_I}/snapshots", {"name": "{name}"}),
    Call(0.5, "GET", "/snapshots/{snapshot}"),
    Call(1, "PATCH", "/snapshots/{snapshot}", {"expires_at": "{year}-01-01T00:00:00Z"}),
    Call(1.5, "DELETE", "/snapshots/{snapshot}"),
    # other instances
    Call(
        0.7,
        "POST",
        "/snapshots/{snapshot}/create-instance",
        {"instance_name": "{name}", "is_ha_cluster": False},
        makes=True,
    ),
    Call(0.7, "POST", f"{_I}/clone", {"name": "{name}"}, makes=True),
    Call(2, "POST", "/read-replicas/{replica}/promote", makes=True),
    Call(1, "POST", f"{_I}/upgrade", {"major_upgrade_workflow": _WORKFLOW}, makes=True),
    Call(
        1.5,
        "POST",
        f"{RECOVERY.replace('instance}', 'recoverable}')}/restore",
        {"name": "{name}"},
        makes=True,
    ),
    Call(0.3, "GET", RECOVERY),
    # read replicas
    Call(1, "POST", "/read-replicas", {"instance_id": "{instance}", "endpoint_spec": [_DIRECT]}),
    Call(0.5, "POST", "/read-replicas", {"instance_id": "{instance}", "endpoint_spec": [_PRIVATE]}),
    Call(1, "GET", "/read-replicas/{replica}"),
    Call(2, "POST", "/read-replicas/{replica}/endpoints", {"endpoint_spec": [_DIRECT]}),
    Call(2, "POST", "/read-replicas/{replica}/endpoints", {"endpoint_spec": [_PRIVATE]}),
    Call(2, "POST", "/read-replicas/{replica}/reset"),
    Call(2, "DELETE", "/read-replicas/{replica}"),
    # upgrades in place
    Call(0.3, "POST", f"{_I}/upgrade", {"enable_ha": True}),
    Call(0.5, "POST", f"{_I}/upgrade", {"node_type": "DB-DEV-M"}),
    Call(0.5, "POST", f"{_I}/upgrade", {"volume_size": _larger}),
    Call(0.7, "POST", f"{_I}/upgrade", {"volume_type": "sbs_5k"}),
    Call(0.7, "POST", f"{_I}/upgrade", {"upgradable_version_id": "{newer}"}, makes=True),
    Call(2, "POST", f"{_I}/apply-maintenance", {}),
    # logs and metrics
    Call(1, "POST", f"{_I}/prepare-logs", {}),
    Call(0.5, "GET", f"{_I}/logs"),
    Call(1, "GET", "/logs/{log}"),
    Call(0.5, "GET", f"{_I}/logs-details"),
    Call(0.7, "POST", f"{_I}/purge-logs", {"log_name": "{log_name}"}),
    Call(0.3, "POST", f"{_I}/purge-logs", {}),
    Call(0.7, "GET", f"{_I}/metrics"),
)
