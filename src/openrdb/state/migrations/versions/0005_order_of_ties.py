"""Lists order ties by creation; what is in force of settings is the instance's own"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ORDERED = ("name", "status")
_INSTANCES = sa.table(
    "instances",
    sa.column("id", sa.Uuid()),
    sa.column("engine", sa.String()),
    sa.column("node_type", sa.String()),
    sa.column("settings", sa.JSON()),
    sa.column("first_ready_at", sa.String()),
)
_NODE_TYPES = """
    play2-pico:2:1 play2-nano:4:2 play2-micro:8:4 dev-s:2:2 dev-m:4:3 dev-l:8:4 dev-xl:12:4
    gp-xs:16:4 gp-s:32:8 gp-m:64:16 gp-l:128:32 gp-xl:256:48 pro2-xxs:8:2 pro2-xs:16:4
    pro2-s:32:8 pro2-m:64:16 pro2-l:128:32 pop2-2c-8g:8:2 pop2-4c-16g:16:4 pop2-8c-32g:32:8
    pop2-16c-64g:64:16 pop2-32c-128g:128:32 pop2-48c-192g:192:48 pop2-64c-256g:256:64
    pop2-hm-2c-16g:16:2 pop2-hm-4c-32g:32:4 pop2-hm-8c-64g:64:8 pop2-hm-16c-128g:128:16
    pop2-hm-32c-256g:256:32 pop2-hc-2c-4g:4:2 pop2-hc-4c-8g:8:4 pop2-hc-8c-16g:16:8
    pop2-hc-16c-32g:32:16 pop2-hc-32c-64g:64:32
"""
"""Each with its GiB of memory and its processors, as they were then."""


def upgrade() -> None:
    with op.batch_alter_table("instances") as batch:
        for column in _ORDERED:
            batch.drop_index(f"ix_instances_{column}")
    with op.batch_alter_table("instances") as batch:
        for column in _ORDERED:
            columns = ["region", "organization_id", column, "created_at", "id"]
            batch.create_index(f"ix_instances_{column}", columns, unique=False)
    _write_down_settings()


def _write_down_settings() -> None:
    """Until now the node type's defaults were in force where an instance had no setting of its own;
    from now on the catalogue's are, which must not change what runs."""
    sizes = {}
    for entry in _NODE_TYPES.split():
        name, gib, vcpus = entry.split(":")
        sizes[f"db-{name}"] = (int(gib), int(vcpus))
    connection = op.get_bind()
    columns = (_INSTANCES.c.id, _INSTANCES.c.engine, _INSTANCES.c.node_type, _INSTANCES.c.settings)
    made = sa.select(*columns).where(_INSTANCES.c.first_ready_at.is_not(None))
    for instance_id, engine, node_type, settings in connection.execute(made).all():
        if node_type in sizes:
            in_force = _defaults(engine, *sizes[node_type]) | settings
            changed = sa.update(_INSTANCES).where(_INSTANCES.c.id == instance_id)
            connection.execute(changed.values(settings=in_force))


def _defaults(engine: str, gib: int, vcpus: int) -> dict[str, str]:
    connections = min(50 + 25 * gib, 1000)
    if not engine.startswith("PostgreSQL"):
        return {"max_connections": str(connections)}
    workers = max(vcpus - 2, 0)
    values = {
        "effective_cache_size": 700 * gib - 100,
        "maintenance_work_mem": min(75 * gib, 2048),
        "max_connections": connections,
        "max_parallel_workers": workers,
        "max_parallel_workers_per_gather": workers // 2,
        "work_mem": min(2 * gib, gib * 1024 // connections),
    }
    return {name: str(value) for name, value in values.items()}


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
