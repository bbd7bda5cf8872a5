"""`openrdb recovery`: turning recovery to a point in time on and off, and going back."""

from __future__ import annotations

from typing import Annotated

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.instances import Name
from openrdb.cli.listing import AsJson, print_details

app = typer.Typer(help="Recovery of instances to any point in time.")


@app.command()
def enable(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Keep from now on what an instance can be recovered from to any moment."""
    from openrdb.cli.state import recovery  # noqa: PLC0415

    found = recovery.switch(settings_from(data_dir=data_dir), name, on=True)
    text = f"{found} can be recovered as soon as its first base backup is made"
    print_details({"name": found, "enabled": True}, [text], as_json=as_json)


@app.command()
def disable(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Remove what an instance can be recovered from, and keep nothing any more."""
    from openrdb.cli.state import recovery  # noqa: PLC0415

    found = recovery.switch(settings_from(data_dir=data_dir), name, on=False)
    text = f"what {found} can be recovered from is removed"
    print_details({"name": found, "enabled": False}, [text], as_json=as_json)


@app.command()
def show(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show which moments an instance can be recovered to."""
    from openrdb.cli.state import recovery  # noqa: PLC0415

    found = recovery.shown(settings_from(data_dir=data_dir), name)
    lines = [
        f"enabled  {'yes' if found['enabled'] else 'no'}",
        *(f"window   {one['begins']} to {one['ends']}" for one in found["windows"]),
        f"bases    {found['bases']}",
        f"size     {found['size'] / 2**20:.0f} MiB",
        *([f"problem  {found['reason']}"] if found["reason"] else []),
    ]
    print_details(found, lines, as_json=as_json)


@app.command()
def restore(
    name: Name,
    new_name: Annotated[str, typer.Option("--name", help="The new instance's name.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="The moment, as 2026-01-31T12:30:00Z; without it, the last one."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a new instance with the data that an instance had at a moment."""
    from openrdb.cli.state import recovery  # noqa: PLC0415

    made = recovery.restore(settings_from(data_dir=data_dir), name, new_name, to)
    text = f"{made['name']} ({made['id']}) is being made; `openrdb list` shows its status"
    print_details(made, [text], as_json=as_json)
