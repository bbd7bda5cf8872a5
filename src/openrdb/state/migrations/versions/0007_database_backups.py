"""Backups of logical databases, and instances by when their next one is due"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "database_backups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("instance_name", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("database_name", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("same_region", sa.Boolean(), nullable=False),
        sa.Column("store_region", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.String(), nullable=True),
        sa.Column("expires_at", Instant(timezone=True), nullable=True),
        sa.Column("created_at", Instant(timezone=True), nullable=False),
        sa.Column("updated_at", Instant(timezone=True), nullable=True),
        sa.Column("download_url", sa.String(), nullable=True),
        sa.Column("download_url_expires_at", Instant(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_database_backups")),
    )
    for name, columns in {
        "listing": ["region", "organization_id", "created_at", "id"],
        "project_id": ["project_id"],
        "instance_id": ["instance_id", "created_at", "id"],
        "expires_at": ["expires_at"],
    }.items():
        op.create_index(f"ix_database_backups_{name}", "database_backups", columns)
    due = ["backup_disabled", "backup_next_run_at"]
    op.create_index("ix_instances_backup_due", "instances", due)


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
