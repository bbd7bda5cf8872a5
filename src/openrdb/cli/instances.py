"""`openrdb list`, `openrdb status` and `openrdb connect`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.listing import AsJson, print_details, print_listing
from openrdb.engines.names import FIRST_DATABASE
from openrdb.errors import HostError

if TYPE_CHECKING:
    from openrdb.cli.state.deployment import Deployment, ListedHost
    from openrdb.cli.state.instances import ListedInstance


def _names(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the instances' names that begin so: for the shell's completion."""
    from openrdb.cli.state import instances  # noqa: PLC0415

    given: Path | None = context.params.get("data_dir")
    with suppress(HostError):
        for one in instances.listed(settings_from(data_dir=given)):
            if one.name.startswith(incomplete):
                yield one.name


_WHICH = "The instance's name, its id, or the id's first characters."
Name = Annotated[str, typer.Argument(help=_WHICH, autocompletion=_names)]
OptionalName = Annotated[str | None, typer.Argument(help=_WHICH, autocompletion=_names)]

app = typer.Typer()


@app.command("list")
def list_instances(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show all instances, of all projects and regions; the service may be stopped."""
    from openrdb.cli.state import instances  # noqa: PLC0415

    print_listing(
        instances.listed(settings_from(data_dir=data_dir)),
        ("name", "engine", "status", "nodes", "endpoints", "id"),
        lambda one: (
            *(one.name, one.engine, one.status),
            *(_availability(one), "\n".join(one.endpoints), one.id[:8]),
        ),
        as_json=as_json,
        whole=("engine", "status", "nodes", "endpoints", "id"),
    )


def _availability(one: ListedInstance) -> str:
    count = str(len(one.nodes))
    if not one.is_ha_cluster:
        return count
    return f"{count}, {'protected' if one.is_protected else 'not protected'}"


@app.command()
def status(name: OptionalName = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what runs and what is in trouble; of one instance, all that is known here."""
    from openrdb.cli.state import deployment, instances  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    if name is None:
        found = deployment.deployment(settings)
        print_details(found, _of_deployment(found, settings.data_dir), as_json=as_json)
        return
    one = instances.details(settings, name)
    fields = asdict(one).items()
    lines = [f"{field.replace('_', ' '):13} {_text(value)}" for field, value in fields]
    print_details(one, lines, as_json=as_json)


def _of_deployment(found: Deployment, data_dir: Path) -> list[str]:
    failed = found.operations.get("failed", 0)
    under_way = {state: count for state, count in found.operations.items() if state != "failed"}
    operations = [
        _counts(under_way) or "none under way",
        *([f"{found.overdue} overdue"] if found.overdue else []),
        *([f"{failed} failed in the last day: openrdb operations list"] if failed else []),
    ]
    # After `openrdb stop`, and while the agent is away.
    seen = "" if any(one.is_watched for one in found.hosts) else " when last seen"
    return [
        f"data       {data_dir}",
        f"service    {'serves' if found.is_served else 'is stopped: openrdb serve'}",
        *(f"host       {_host(one)}" for one in found.hosts),
        f"instances  {_counts(found.instances) or 'none'}{seen}",
        *(
            f"           {one.name} ({one.id}) is {one.status}: {one.reason}"
            for one in found.troubles
        ),
        f"nodes      {_counts(found.nodes) or 'none'}{seen}",
        f"operations {', '.join(operations)}",
        *(f"stranger   {one}" for one in found.strangers),
    ]


def _host(host: ListedHost) -> str:
    watched = "the agent runs" if host.is_watched else "no agent runs: nothing starts databases"
    return f"{host.name}: {watched}; nodes: {host.nodes}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_part(one) if isinstance(one, dict) else str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value if value is not None else "-")


def _part(part: dict[str, Any]) -> str:
    """Return a node or a read replica in a few words."""
    return _node(part) if "role" in part else _replica(part)


def _replica(replica: dict[str, Any]) -> str:
    why = f": {replica['reason']}" if replica["reason"] else ""
    return " ".join([f"{replica['id'][:8]} ({replica['status']}{why})", *replica["endpoints"]])


def _node(node: dict[str, Any]) -> str:
    lag = f", {node['lag']} s behind" if node["lag"] is not None else ""
    return f"{node['role']} {node['name']} ({node['state']}{lag})"


@app.command(context_settings={"ignore_unknown_options": True})
def connect(
    name: Name,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="The client's own arguments; after -- those that are ours too."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Default: the user of the instance's creation.")
    ] = None,
    database: Annotated[str, typer.Option("--database", help="The database.")] = FIRST_DATABASE,
    data_dir: DataDir = None,
) -> None:
    """Connect to an instance with the engine's client, by TLS verified against its certificate.

    The client asks for the password, or takes it from PGPASSWORD or MYSQL_PWD.
    """
    given = dict(os.environ)  # before ours is cleaned of what drivers read
    from openrdb.cli import clients  # noqa: PLC0415
    from openrdb.cli.state import instances  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    access = instances.access(settings, name)
    login = user or access.first_user
    if login is None:
        raise HostError(f"the instance {access.name} was created without a user; pass --user")
    certificate = clients.certificate_in_memory(access.certificate)
    target = clients.Target(access, login, database, certificate)
    command = clients.command(settings, target, arguments or [], given)
    os.execve(command.arguments[0], command.arguments, command.environment)  # noqa: S606
