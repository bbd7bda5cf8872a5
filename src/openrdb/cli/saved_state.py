"""`openrdb state`: backup and restore of the control plane's own state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrdb.cli.common import DataDir, err, out, settings_from
from openrdb.cli.listing import AsJson, print_details

app = typer.Typer(help="The control plane's own state: back it up, and restore it.")


@app.command()
def backup(
    destination: Annotated[
        Path, typer.Argument(help="A new file, which gets mode 0600; - is standard output.")
    ],
    data_dir: DataDir = None,
    without_master_key: Annotated[
        bool,
        typer.Option("--without-master-key", help="Leave it out: without it nothing is readable."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Save the state while it is served: all but the databases themselves. Keep the file secret."""
    from openrdb.cli.state import saved  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    made = saved.backup(settings, destination, master_key=not without_master_key)
    left_out = "; back up master.key apart from it" if without_master_key else ""
    text = f"saved the state of {made.instances} instances to {destination}{left_out}"
    console = err if destination == Path("-") else out
    print_details(made, [text], as_json=as_json, console=console)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="The backup's file; - is standard input.")],
    data_dir: DataDir = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set aside the state that is there.")
    ] = False,
    master_key: Annotated[
        Path | None, typer.Option("--master-key", help="The key's file, if the backup has none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a saved state back, next to the instances' data; the service must be stopped."""
    from openrdb.cli.state import saved  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    done = saved.restore(settings, source, replace=replace, master_key=master_key)
    made = done.manifest
    lines = [f"restored the state of {made.instances} instances as of {made.created_at}"]
    if done.interrupted:
        lines.append(f"{done.interrupted} operations were under way then, and are ended as failed")
    if done.replaced:
        lines.append(f"the former state is in {done.replaced}")
    lines.append("`openrdb serve` compares it with this host; `openrdb status` says what differs")
    print_details(done, lines, as_json=as_json)
