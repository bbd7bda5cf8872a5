"""`openrdb operations`: what is under way, what failed and why, and beginning that again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from openrdb.cli.common import DataDir, out, settings_from

if TYPE_CHECKING:
    from openrdb.cli.state.operations import ListedOperation

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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
    if as_json:
        out.print_json(data=[asdict(one) for one in found])
    else:
        out.print(_table(found))


@app.command("show")
def show_operation(
    operation_id: OperationId, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show one operation, and the events of its subject."""
    from openrdb.cli.state import operations  # noqa: PLC0415

    shown = operations.details(settings_from(data_dir=data_dir), operation_id)
    if as_json:
        out.print_json(data=shown)
        return
    history = shown.pop("events")
    for name, value in shown.items():
        if value is not None:
            out.print(Text(f"{name:16} {value}"), soft_wrap=True)
    for event in history:
        words = (event["at"], event["action"], event["outcome"], event["reason"] or "")
        out.print(Text("  " + "  ".join(words)), soft_wrap=True)


@app.command("retry")
def retry_operation(
    operation_id: OperationId, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Begin a failed operation's work again; a running service takes it up within seconds."""
    from openrdb.cli.state import operations  # noqa: PLC0415

    begun = operations.retry(settings_from(data_dir=data_dir), operation_id)
    if as_json:
        out.print_json(data=asdict(begun))
    else:
        out.print(f"recorded {begun.kind} again as {begun.id}", soft_wrap=True)


def _table(found: Sequence[ListedOperation]) -> Table:
    table = Table("operation", "kind", "subject", "status", "step", "age", "reason", box=None)
    for one in found:
        status = f"{one.status}, overdue" if one.is_late else one.status
        subject = f"{one.subject_type} {one.subject_name or 'deleted'} {one.subject_id}"
        age = str(timedelta(seconds=int(one.age)))
        cells = (one.id[:8], one.kind, subject, status, one.step or "", age, one.reason or "")
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return table
