"""When maintenances are applied that nobody has applied before: the operator's windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_WEEKDAYS = get_args(Weekday)
_DAY = timedelta(days=1)


class MaintenanceOptions(BaseModel):
    """The windows, all in UTC, and how long before them users are told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notice: float = Field(default=7 * 86_400.0, ge=0, le=3650 * 86_400.0)
    """How long, at least, users can choose the moment themselves."""
    weekday: Weekday | None = None
    """The day on which windows begin; default: every day has one."""
    start_hour: int = Field(default=3, ge=0, le=23)
    """The hour, in UTC, in which windows begin."""
    hours: int = Field(default=4, ge=1, le=24)
    """How long a window is: what has not begun in it waits for the next one."""

    def announced(self, moment: datetime) -> tuple[datetime, datetime]:
        """Return the begin and end of the window of what is announced at a moment."""
        return self.following(moment + timedelta(seconds=self.notice))

    def following(self, moment: datetime) -> tuple[datetime, datetime]:
        """Return the begin and end of the first window that begins at a moment or later."""
        day = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        begin = day.replace(hour=self.start_hour)
        while begin < moment or self.weekday not in (None, _WEEKDAYS[begin.weekday()]):
            begin += _DAY
        return begin, self.end_of(begin)

    def end_of(self, begin: datetime) -> datetime:
        """Return when a window that begins at a moment is over."""
        return begin + timedelta(hours=self.hours)
