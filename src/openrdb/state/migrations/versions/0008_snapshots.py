"""Snapshots of instances' volumes"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("instance_name", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("node_type", sa.String(), nullable=False),
        sa.Column("volume_type", sa.String(), nullable=False),
        sa.Column("volume_class", sa.String(), nullable=False),
        sa.Column("volume_size", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", Instant(timezone=True), nullable=True),
        sa.Column("created_at", Instant(timezone=True), nullable=False),
        sa.Column("updated_at", Instant(timezone=True), nullable=True),
        sa.Column("origin", sa.JSON(), nullable=False),
        sa.Column("superuser", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    for name, columns in {
        "listing": ["region", "organization_id", "created_at", "id"],
        "project_id": ["project_id"],
        "instance_id": ["instance_id", "created_at", "id"],
        "expires_at": ["expires_at"],
    }.items():
        op.create_index(f"ix_snapshots_{name}", "snapshots", columns)


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
