"""Logs on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from openrdb.api.common import NoneIfEmpty
from openrdb.api.wire import Answer, Instant, Name, Request
from openrdb.api.wire_backups import OptionalMoment
from openrdb.config import Region

InstanceLogStatus = Literal["unknown", "ready", "creating", "error"]
LogsOrder = Literal["created_at_asc", "created_at_desc"]


class InstanceLog(Answer):
    id: UUID
    status: InstanceLogStatus
    node_name: str
    download_url: str | None
    expires_at: Instant | None
    created_at: Instant | None
    region: Region


class InstanceLogs(Answer):
    instance_logs: list[InstanceLog]


class LogDetail(Answer):
    log_name: str
    size: int


class LogDetails(Answer):
    details: list[LogDetail]


class PrepareLogs(Request):
    """POST …/prepare-logs; an absent date is no bound."""

    start_date: OptionalMoment = None
    end_date: OptionalMoment = None


class PurgeLogs(Request):
    """POST …/purge-logs; without a name all logs."""

    log_name: Annotated[Name | None, NoneIfEmpty] = None
