"""`openrdb undelete`: deleted instances that are still in the trash, and bringing one back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from openrdb.cli.common import DataDir, out, settings_from

app = typer.Typer()


@app.command()
def undelete(
    instance: Annotated[
        str | None,
        typer.Argument(help="Its name or id; without it, list what can be brought back."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring back a deleted instance, with its data, users and endpoints."""
    from openrdb.cli.state import trash  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    found = [trash.undelete(settings, instance)] if instance else trash.listed(settings)
    if as_json:
        out.print_json(data=[asdict(one) for one in found])
    elif instance:
        out.print(f"{found[0].name} ({found[0].id}) comes back; a running service starts it")
    else:
        table = Table("instance", "id", "engine", "deleted", "kept until", box=None)
        for one in found:
            cells = (one.name, one.id, one.engine, one.deleted_at, one.kept_until)
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
        out.print(table)
