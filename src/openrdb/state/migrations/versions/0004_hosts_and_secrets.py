"""Hosts, observed nodes, volumes, routes, sealed secrets

Tables that others refer to get new columns only, and lose them by ALTER TABLE: on SQLite a batch that
copies a table drops the old one, which would cascade to the rows that refer to it.
"""

from uuid import UUID, uuid4

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant, now

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LOCAL_HOST = UUID("00000000-0000-4000-8000-000000000001")

_INSTANCES = sa.table(
    "instances",
    sa.column("id", sa.Uuid()),
    sa.column("engine_version", sa.String()),
    sa.column("volume_size", sa.BigInteger()),
    sa.column("uid", sa.BigInteger()),
)
_NODES = sa.table(
    "nodes",
    sa.column("id", sa.Uuid()),
    sa.column("instance_id", sa.Uuid()),
    sa.column("uid", sa.BigInteger()),
    sa.column("role", sa.String()),
    sa.column("host_id", sa.Uuid()),
    sa.column("version", sa.String()),
)


def upgrade() -> None:
    _create_hosts()
    _widen_instances()
    _widen_nodes()
    _create_volumes()
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("rule", sa.String(), nullable=False, server_default="primary")
        )
        batch_op.add_column(sa.Column("node_id", sa.Uuid(), nullable=True))
    op.create_table(
        "instance_secrets",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("superuser", sa.LargeBinary(), nullable=False),
        sa.Column("replication", sa.LargeBinary(), nullable=False),
        sa.Column("authority_key", sa.LargeBinary(), nullable=True),
        sa.Column("server_key", sa.LargeBinary(), nullable=True),
        sa.Column("server_certificate", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name=op.f("fk_instance_secrets_instance_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instance_secrets")),
    )


def _create_hosts() -> None:
    hosts = op.create_table(
        "hosts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("protocol", sa.BigInteger(), nullable=True),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column("last_seen_at", Instant(timezone=True), nullable=True),
        sa.Column("created_at", Instant(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        sa.UniqueConstraint("name", name=op.f("uq_hosts_name")),
    )
    op.bulk_insert(hosts, [{"id": _LOCAL_HOST, "name": "local", "created_at": now()}])


def _widen_instances() -> None:
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.add_column(sa.Column("uid", sa.BigInteger(), nullable=True))
        batch_op.add_column(
            sa.Column("generation", sa.BigInteger(), nullable=False, server_default="1")
        )
        batch_op.add_column(sa.Column("first_ready_at", Instant(timezone=True), nullable=True))
    op.execute("UPDATE instances SET first_ready_at = created_at WHERE certificate IS NOT NULL")
    uid = sa.select(_NODES.c.uid).where(_NODES.c.instance_id == _INSTANCES.c.id)
    op.execute(sa.update(_INSTANCES).values(uid=uid.scalar_subquery()))
    op.create_index("ix_instances_uid", "instances", ["uid"], unique=True)


def _widen_nodes() -> None:
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("host_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("observed_role", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("observed_state", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("observed_reason", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("observed_at", Instant(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("bundle", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("version", sa.String(), nullable=True))
    version = sa.select(_INSTANCES.c.engine_version).where(_INSTANCES.c.id == _NODES.c.instance_id)
    op.execute(
        sa.update(_NODES).values(
            host_id=_LOCAL_HOST, role="primary", version=version.scalar_subquery()
        )
    )
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.alter_column("host_id", existing_type=sa.Uuid(), nullable=False)
        batch_op.alter_column("version", existing_type=sa.String(), nullable=False)
        batch_op.create_index(batch_op.f("ix_nodes_host_id"), ["host_id"], unique=False)
        batch_op.create_foreign_key(batch_op.f("fk_nodes_host_id"), "hosts", ["host_id"], ["id"])
        batch_op.drop_constraint(batch_op.f("uq_nodes_uid"), type_="unique")
        batch_op.drop_column("uid")
    op.execute("ALTER TABLE instances DROP COLUMN engine_version")


def _create_volumes() -> None:
    volumes = op.create_table(
        "volumes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("collations", sa.JSON(), nullable=True),
        sa.Column("time_zones", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_volumes_node_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        sa.UniqueConstraint("node_id", name=op.f("uq_volumes_node_id")),
    )
    found = sa.select(_NODES.c.id, _NODES.c.instance_id, _INSTANCES.c.volume_size).join(
        _INSTANCES, _INSTANCES.c.id == _NODES.c.instance_id
    )
    rows = [
        {
            "id": uuid4(),
            "node_id": node_id,
            "pool": "default",
            "key": f"instances/{instance_id}/nodes/{node_id}/data",
            "size": size,
        }
        for node_id, instance_id, size in op.get_bind().execute(found)
    ]
    op.bulk_insert(volumes, rows)


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
