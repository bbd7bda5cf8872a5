"""`openrdb undelete`: deleted instances that are still in the trash, and bringing one back."""

from __future__ import annotations

from typing import Annotated

import typer

from openrdb.cli.common import DataDir, out, plain, settings_from
from openrdb.cli.listing import AsJson, print_listing

app = typer.Typer()


@app.command()
def undelete(
    instance: Annotated[
        str | None,
        typer.Argument(help="Its name or id; without it, list what can be brought back."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring back a deleted instance, with its data, users and endpoints."""
    from openrdb.cli.state import trash  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    found = [trash.undelete(settings, instance)] if instance else trash.listed(settings)
    if instance and not as_json:
        out.print(plain(f"{found[0].name} ({found[0].id}) comes back; a running service starts it"))
        return
    print_listing(
        found,
        ("instance", "id", "engine", "deleted", "kept until"),
        lambda one: (one.name, one.id, one.engine, one.deleted_at, one.kept_until),
        as_json=as_json,
    )
