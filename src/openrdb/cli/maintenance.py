"""`openrdb maintenance`: which instances are to run newer binaries, and when."""

from __future__ import annotations

from typing import Annotated

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.instances import Name
from openrdb.cli.listing import AsJson, print_details, print_listing

Everything = Annotated[bool, typer.Option("--all", help="Also those that are done or canceled.")]
At = Annotated[str, typer.Option("--at", help="The moment, as 2026-01-31T03:00:00Z, or `now`.")]

app = typer.Typer(help="Maintenances: newer binaries of instances, and when they are applied.")


@app.command("list")
def list_maintenances(
    data_dir: DataDir = None, everything: Everything = False, as_json: AsJson = False
) -> None:
    """Show the maintenances that are pending or under way."""
    from openrdb.cli.state import maintenances  # noqa: PLC0415

    found = maintenances.overview(settings_from(data_dir=data_dir), everything=everything)

    def cells(one: dict[str, str]) -> list[str]:
        times = (str(one["forced_at"])[:16], str(one["stops_at"])[:16])
        reason = one["refusal"] or one["reason"]
        return [one["instance_name"], one["status"], one["version"], *times, reason]

    columns = ("instance", "status", "version", "begins (UTC)", "until (UTC)", "reason")
    print_listing(found, columns, cells, as_json=as_json)


@app.command()
def schedule(name: Name, at: At, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let the window of an instance's pending maintenance begin at another moment."""
    from openrdb.cli.state import maintenances  # noqa: PLC0415

    found = maintenances.schedule(settings_from(data_dir=data_dir), name, at)
    what = f"{found['version']} is applied to {found['instance_name']}"
    times = f"from {found['forced_at'][:16]} to {found['stops_at'][:16]} UTC"
    print_details(found, [f"{what} {times}, unless its users do it before"], as_json=as_json)
