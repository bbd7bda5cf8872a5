"""`openrdb operations`: what is under way, what failed and why, and beginning that again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.listing import AsJson, print_details, print_listing

if TYPE_CHECKING:
    from openrdb.cli.state.operations import ListedOperation

OperationId = Annotated[str, typer.Argument(help="The operation's id, or its first characters.")]
Everything = Annotated[bool, typer.Option("--all", help="Also what is done, of the last week.")]

app = typer.Typer(help="Operations: what is under way, what failed, and trying that again.")


@app.command("list")
def list_operations(
    data_dir: DataDir = None, everything: Everything = False, as_json: AsJson = False
) -> None:
    """Show operations that are unfinished, or failed in the last day."""
    from openrdb.cli.state import operations  # noqa: PLC0415

    found = operations.overview(settings_from(data_dir=data_dir), everything=everything)
    columns = ("operation", "kind", "subject", "status", "step", "age", "reason")
    print_listing(found, columns, _cells, as_json=as_json)


@app.command("show")
def show_operation(
    operation_id: OperationId, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show one operation, and the events of its subject."""
    from openrdb.cli.state import operations  # noqa: PLC0415

    shown = operations.details(settings_from(data_dir=data_dir), operation_id)
    print_details(shown, _details(shown), as_json=as_json)


def _details(shown: dict[str, Any]) -> Iterator[str]:
    for name, value in shown.items():
        if value is not None and name != "events":
            yield f"{name:16} {value}"
    for event in shown["events"]:
        words = (event["at"], event["action"], event["outcome"], event["reason"] or "")
        yield "  " + "  ".join(words)


@app.command("retry")
def retry_operation(
    operation_id: OperationId, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Begin a failed operation's work again; a running service takes it up within seconds."""
    from openrdb.cli.state import operations  # noqa: PLC0415

    begun = operations.retry(settings_from(data_dir=data_dir), operation_id)
    print_details(begun, [f"recorded {begun.kind} again as {begun.id}"], as_json=as_json)


def _cells(one: ListedOperation) -> tuple[str, ...]:
    status = f"{one.status}, overdue" if one.is_late else one.status
    subject = f"{one.subject_type} {one.subject_name or 'deleted'} {one.subject_id}"
    age = str(timedelta(seconds=int(one.age)))
    return one.id[:8], one.kind, subject, status, one.step or "", age, one.reason or ""
