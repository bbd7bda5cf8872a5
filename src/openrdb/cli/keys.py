"""`openrdb keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.listing import AsJson, print_details, print_environment, print_listing

app = typer.Typer(help="API keys: create, list and revoke them; the service may be running.")


@app.command("create")
def keys_create(
    data_dir: DataDir = None,
    project: Annotated[
        str | None, typer.Option(help="The project's name or id; default: the default one.")
    ] = None,
    organization: Annotated[
        bool, typer.Option("--organization", help="For all projects; --project is its default.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may look, and change nothing.")
    ] = False,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and print its environment: eval "$(openrdb keys create)". Its secret is shown now
    and never again."""
    from openrdb.cli.state import keys  # noqa: PLC0415

    environment = keys.create(
        settings_from(data_dir=data_dir),
        project,
        whole_organization=organization,
        read_only=read_only,
        description=description,
    )
    print_environment(environment, as_json=as_json)


@app.command("list")
def keys_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the keys, without their secrets, which are not kept."""
    from openrdb.cli.state import keys  # noqa: PLC0415

    print_listing(
        keys.listed(settings_from(data_dir=data_dir)),
        ("access key", "scope", "kind", "description", "created"),
        lambda key: (
            *(key.access_key, key.scope, key.kind, key.description),
            f"{key.created_at:%Y-%m-%d %H:%M}",
        ),
        as_json=as_json,
        whole=("access key",),
    )


@app.command("revoke")
def keys_revoke(
    access_key: Annotated[str, typer.Argument(help="The key's access key.")],
    data_dir: DataDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also the key that `openrdb env` prints.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key useless, at once."""
    from openrdb.cli.state import keys  # noqa: PLC0415

    keys.revoke(settings_from(data_dir=data_dir), access_key, force=force)
    print_details({"revoked": access_key}, [f"revoked {access_key}"], as_json=as_json)


@app.command("rotate-master")
def keys_rotate_master(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Seal all secrets with a new master key. The service must be stopped; databases run on."""
    from openrdb.cli.state import rotation  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    rotation.rotate_master_key(settings)
    text = f"{settings.data_dir} has a new master key; back it up, apart from the state"
    print_details({"rotated": str(settings.data_dir)}, [text], as_json=as_json)
