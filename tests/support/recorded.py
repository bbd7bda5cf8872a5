"""The recorded flows, and the requests that their recorder masked."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

Json = Any
Step = dict[str, Json]

RECORDINGS = Path(__file__).parent / "recordings"


def _in_order(steps: list[Step]) -> list[Step]:
    """Return a flow's steps with each change of tags before the first answer that shows it: one
    recorder wrote it down later."""
    ordered = list(steps)
    for step in steps:
        tags = (step["request"] or {}).get("tags") if step["method"] == "PATCH" else None
        before = ordered[: ordered.index(step)]
        showing = (one for one in before if tags and _shows(one, step["path"], tags))
        if (first := next(showing, None)) is not None:
            ordered.remove(step)
            ordered.insert(ordered.index(first), step)
    return ordered


def _shows(step: Step, path: str, tags: list[str]) -> bool:
    return step["path"] == path and step["response"].get("tags") == tags


FLOWS: dict[str, list[Step]] = {
    flow["scenario"]: _in_order(flow["steps"])
    for flow in map(
        json.loads,
        gzip.decompress((RECORDINGS / "flows.jsonl.gz").read_bytes()).decode().splitlines(),
    )
}

TRANSITORY = {
    *("provisioning", "initializing", "configuring", "restarting", "backuping", "deleting"),
    *("snapshotting", "creating", "exporting", "restoring", "promoting"),
}


def needs_mysql(steps: list[Step]) -> bool:
    """Whether a flow asks for MySQL 8 by its name."""
    return any(_engine(step).startswith("mysql") for step in steps)


def _engine(step: Step) -> str:
    answer = step["response"]
    if step["path"].endswith("/database-engines"):
        asked: str = step["query"].removeprefix("name=")
    else:
        asked = answer.get("engine", "") if isinstance(answer, dict) else ""
    return asked.lower()


def settled(steps: list[Step], number: int) -> Step:
    """The step itself, or the next in which what it reads has settled.

    A recorded client sometimes looked once at what was on its way; ours may be there by then.
    """
    step = steps[number]
    if step["method"] != "GET" or _status(step) not in TRANSITORY:
        return step
    return next(
        later
        for later in steps[number + 1 :]
        if (later["method"], later["path"]) == ("GET", step["path"])
        and _status(later) not in TRANSITORY
    )


def _status(step: Step) -> Json:
    return step["response"].get("status") if isinstance(step["response"], dict) else None


_COLLECTIONS = ("/instances", "/backups", "/snapshots", "/read-replicas")


def created_at(path: str) -> str:
    """Return the path below which what a POST to another path has made is found."""
    path = re.sub(
        "/snapshots/[^/]*/create-instance$|/instances/[^/]*/(clone|upgrade)$", "/instances", path
    )
    path = re.sub("/read-replicas/[^/]*/promote$", "/instances", path)
    path = re.sub("/read-replicas/[^/]*/reset$", "/read-replicas", path)
    return re.sub("/instances/[^/]*/snapshots$", "/snapshots", path)


def _moves() -> Iterator[tuple[str, str]]:
    for steps in FLOWS.values():
        seen: dict[str, list[str]] = {}
        for step in steps:
            path = created_at(step["path"])
            if path.endswith(_COLLECTIONS) and step["method"] == "POST":
                of = f"{path}/{step['response']['id']}"
            else:
                of = step["path"]
            seen.setdefault(of, []).extend(step["statuses"])
        for statuses in seen.values():
            yield from pairwise(statuses)


MOVES = {move for move in _moves() if move[0] != move[1]}
"""The changes of the status of an instance or backup, as clients saw them."""


# -- requests of the CLI ----------------------------------------------------------------------------


def unmasked(steps: list[Step], number: int) -> Json:
    """What the CLI must have sent to get a step's answer; None for nothing."""
    step = steps[number]
    kind = re.sub("/users/.*", "/users", step["path"]).rpartition("/")[2]
    answer = step["response"]
    match step["method"], kind:
        case "POST", "instances":
            sent = _creation(answer, settled(steps, number + 1)["response"])
        case "POST", "endpoints":
            sent = {"endpoint_spec": _endpoint(answer)}
        case "POST", "private-networks":
            sent = {key: answer[key] for key in ("name", "project_id", "tags")}
        case "POST", "backups":
            given = ("instance_id", "database_name", "name", "expires_at")
            sent = {key: answer[key] for key in given}
        case "POST", "clone":
            sent = {"name": answer["name"], "node_type": answer["node_type"]}
        case "POST", "restore":
            sent = {key: answer[key] for key in ("instance_id", "database_name")}
        case "POST", "databases":
            sent = {"name": answer["name"]}
        case "POST" | "PATCH", "users":
            sent = answer | {"password": "Recorded-password-2"}
        case method, "acls":
            sent = _rules(method, answer["rules"])
        case "PUT", "settings":
            sent = answer
        case "PATCH", _:
            sent = {"name": answer["name"], "tags": answer["tags"]}
        case _:
            sent = None
    return sent


def _creation(answer: Json, ready: Json) -> Json:
    return {
        "name": answer["name"],
        "project_id": answer["project_id"],
        "engine": answer["engine"],
        "user_name": "foobar",
        "password": "Recorded-password-1",
        "node_type": answer["node_type"],
        "is_ha_cluster": answer["is_ha_cluster"],
        "disable_backup": answer["backup_schedule"]["disabled"],
        "tags": answer["tags"],
        "volume_type": answer["volume"]["type"],
        "volume_size": answer["volume"]["size"],
        "backup_same_region": answer["backup_same_region"],
        "init_endpoints": [_endpoint(endpoint) for endpoint in ready["endpoints"]],
    }


def _endpoint(answer: Json) -> Json:
    details = answer.get("private_network")
    if details is None:
        return {"load_balancer": {}}
    chosen = {"private_network_id": details["private_network_id"]}
    if details["provisioning_mode"] == "static":
        return {"private_network": chosen | {"service_ip": details["service_ip"]}}
    return {"private_network": chosen | {"ipam_config": {}}}


def _rules(method: str, rules: Json) -> Json:
    if method == "DELETE":
        return {"acl_rule_ips": [rule["ip"] for rule in rules]}
    asked = [{"ip": rule["ip"], "description": rule["description"]} for rule in rules]
    at_birth = {"ip": "0.0.0.0/0", "description": "Allow All"}
    return {"rules": [rule for rule in asked if rule != at_birth]}
