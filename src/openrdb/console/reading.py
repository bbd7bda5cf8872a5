"""What several pages read: by the API, and of the state what the API has shown the subject of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.console.client import Client, Json, segment
from openrdb.console.formats import GB
from openrdb.operations import reasons as reasons_of
from openrdb.state import events, known, operations
from openrdb.state.models import DatabaseBackup, Instance, InstanceLog, ReadReplica

Form = Mapping[str, str]
PAGE_SIZE = 25
_MOST = 100
_SETTLED = {"ready", "error", "disk_full", "locked", "unknown"}


def is_moving(subject: Json) -> bool:
    """Return whether a status will soon be another one."""
    return subject["status"] not in _SETTLED


def is_in_trouble(instance: Json) -> bool:
    return instance["status"] in ("error", "autohealing", "disk_full") or any(
        one["status"] != "ready" for one in instance["read_replicas"]
    )


@dataclass(frozen=True)
class Origin:
    """Where data comes from, and may go to."""

    project_id: UUID
    family: str


async def every(client: Client, path: str, items: str, **parameters: Any) -> list[Json]:  # noqa: ANN401
    """Return all pages of a list."""
    found: list[Json] = []
    page = 1
    while True:
        asked = {**parameters, "page": page, "page_size": _MOST}
        answer = await client.get(path, asked)
        found += answer[items]
        if not answer[items] or len(found) >= answer["total_count"]:
            return found
        page += 1


@dataclass(frozen=True)
class Part:
    """A page of a list that may be long."""

    items: list[Json]
    page: int
    last_page: int = 1
    refusal: str | None = None
    """Why it cannot be read now."""


async def part(client: Client, path: str, items: str, page: int, **parameters: Any) -> Part:  # noqa: ANN401
    """Return a page of a list."""
    answer = await client.get(path, {**parameters, "page": page, "page_size": PAGE_SIZE})
    return Part(answer[items], page, max(1, -(-answer["total_count"] // PAGE_SIZE)))


async def engines(client: Client, region: str) -> list[Json]:
    return await every(client, f"/rdb/v1/regions/{region}/database-engines", "engines")


async def node_types(client: Client, region: str) -> list[Json]:
    return await every(client, f"/rdb/v1/regions/{region}/node-types", "node_types")


async def projects(client: Client) -> dict[str, str]:
    """Return the names of the projects that a key is for, by their ids."""
    found = await every(client, "/account/v3/projects", "projects")
    return {one["id"]: one["name"] for one in found}


async def instances(client: Client, region: str, **parameters: Any) -> list[Json]:  # noqa: ANN401
    path = f"/rdb/v1/regions/{region}/instances"
    return await every(client, path, "instances", order_by="name_asc", **parameters)


async def same_engine(client: Client, region: str, instance: Json) -> list[Json]:
    """Return an instance and the others of its project that run the same engine."""
    found = await instances(client, region, project_id=instance["project_id"])
    return fitting(found, origin(instance), instance["id"])


def fitting(found: Iterable[Json], wanted: Origin | None, own_id: str) -> list[Json]:
    """Return the instances that data can go to, its own first."""
    fit = (one for one in found if origin(one) == wanted)
    return sorted(fit, key=lambda one: one["id"] != own_id)


def origin(instance: Json) -> Origin:
    """Return what an instance has in common with those that its endpoints and backups can go to."""
    return Origin(UUID(instance["project_id"]), family(instance["engine"]))


def family(engine: str) -> str:
    """Return an engine without its version."""
    return engine.rpartition("-")[0]


async def private_networks(client: Client, region: str) -> list[Json]:
    path = f"/vpc/v2/regions/{region}/private-networks"
    return await every(client, path, "private_networks")


# -- of the state -----------------------------------------------------------------------------------


def reasons(session: Session, instance_ids: Iterable[str]) -> dict[str, str]:
    """Return why instances are not as they should be, as far as that is known."""
    found = ((one, session.get(Instance, UUID(one))) for one in instance_ids)
    said = {one: reasons_of.of_instance(session, row) for one, row in found if row is not None}
    return {one: reason for one, reason in said.items() if reason}


def failures(session: Session, subject_ids: Iterable[str]) -> dict[str, str]:
    """Return why backups, snapshots or copies of logs are in `error`."""
    return {
        one: reasons_of.of_failure(session, *_together(session, UUID(one))) for one in subject_ids
    }


def _together(session: Session, subject_id: UUID) -> list[UUID]:
    """Return what an operation has been made for at once: copies of the logs of all nodes."""
    log = session.get(InstanceLog, subject_id)
    if log is None:
        return [subject_id]
    same = (InstanceLog.instance_id == log.instance_id, InstanceLog.created_at == log.created_at)
    return list(session.scalars(select(InstanceLog.id).where(*same)))


def origins(session: Session, backup_ids: Iterable[str]) -> dict[str, Origin]:
    """Return where backups come from, by their ids: their instances may be gone."""
    found = (session.get(DatabaseBackup, UUID(one)) for one in backup_ids)
    return {
        str(row.id): Origin(row.project_id, family(row.engine)) for row in found if row is not None
    }


def steps(session: Session, subject_ids: Iterable[str]) -> dict[str, str]:
    """Return the step that the operation under way on each subject has reached."""
    wanted = {UUID(one) for one in subject_ids}
    return {
        str(one.subject_id): one.step or "waiting"
        for one in operations.unfinished(session)
        if one.subject_id in wanted
    }


def administrator(session: Session, instance_id: UUID) -> str | None:
    """Return the user to connect as: the one that the instance was created with, or another
    administrator; None: nothing is known of any."""
    first = events.first_user(session, instance_id)
    found = known.of(session, instance_id)
    if found is None or first in found.admins:
        return first
    return next((name for name, is_admin in found.admins.items() if is_admin), None)


def is_unmade(session: Session, instance_id: UUID) -> bool:
    """Return whether an instance's creation has not ended well."""
    row = session.get(Instance, instance_id)
    return row is not None and row.is_unmade


@dataclass(frozen=True)
class SeenReplica:
    """What the host said of a read replica last."""

    lag: int | None
    reason: str | None


def replicas(session: Session, replica_ids: Iterable[str]) -> dict[str, SeenReplica]:
    """Return how far read replicas are, by their ids."""
    found = (session.get(ReadReplica, UUID(one)) for one in replica_ids)
    return {
        str(row.id): SeenReplica(row.node.observed_lag, reasons_of.of_replica(session, row))
        for row in found
        if row is not None
    }


# -- of forms ---------------------------------------------------------------------------------------


def id_of(form: Form, name: str) -> str:
    """Return an id that a form names; none that would name something else in a path."""
    return segment(form.get(name, "") or "none")


def number(text: str) -> int | str | None:
    """Return a whole number; what is none as it is, for the API to refuse."""
    try:
        return int(text) if text else None
    except ValueError:
        return text


def gigabytes(text: str) -> int | str | None:
    """Return a size in bytes; what is no number as it is, for the API to refuse."""
    try:
        return round(float(text) * GB) if text else None
    except (ValueError, OverflowError):
        return text


def listed(text: str) -> list[str]:
    """Return the parts of a text that commas separate."""
    return [one.strip() for one in text.split(",") if one.strip()]
