"""Maintenances"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "maintenances",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=True),
        sa.Column("starts_at", Instant(timezone=True), nullable=False),
        sa.Column("forced_at", Instant(timezone=True), nullable=False),
        sa.Column("stops_at", Instant(timezone=True), nullable=False),
        sa.Column("closed_at", Instant(timezone=True), nullable=True),
        sa.Column("created_at", Instant(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name=op.f("fk_maintenances_instance_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenances")),
    )
    op.create_index(
        "ix_maintenances_instance_id", "maintenances", ["instance_id", "created_at", "id"]
    )
    op.create_index("ix_maintenances_status", "maintenances", ["status", "forced_at"])


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
