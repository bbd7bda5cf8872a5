"""Read replicas"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "read_replicas",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("same_zone", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", Instant(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name=op.f("fk_read_replicas_instance_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_read_replicas_node_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_read_replicas")),
        sa.UniqueConstraint("node_id", name=op.f("uq_read_replicas_node_id")),
    )
    op.create_index("ix_read_replicas_instance_id", "read_replicas", ["instance_id"])
    op.create_index("ix_endpoints_node_id", "endpoints", ["node_id"])
    # Not in batches: SQLite would get another table of nodes, and lose what refers to the old one.
    op.add_column("nodes", sa.Column("observed_follows", sa.Boolean(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
