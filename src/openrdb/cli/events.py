"""`openrdb events`: who asked for what, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.listing import AsJson, print_listing

Subject = Annotated[str | None, typer.Argument(help="An instance's name, or the id of anything.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the newest.")]

app = typer.Typer()


@app.command("events")
def list_events(
    subject: Subject = None, data_dir: DataDir = None, count: Count = 50, as_json: AsJson = False
) -> None:
    """Show the newest events: requests that change something, and how operations ended."""
    from openrdb.cli.state import events  # noqa: PLC0415

    found = events.newest(settings_from(data_dir=data_dir), count, subject)
    columns = ("at", "action", "outcome", "subject", "by", "reason")
    print_listing(found, columns, _cells, as_json=as_json)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    subject = " ".join(filter(None, (one["subject_type"], one["subject_id"])))
    by = " ".join(filter(None, (one["access_key"], one["source"])))
    reason = one["reason"] or one["error_type"] or ""
    return one["at"][:19], one["action"], one["outcome"], subject, by, reason
