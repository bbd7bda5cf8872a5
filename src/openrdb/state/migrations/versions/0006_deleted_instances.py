"""Deleted instances that can be brought back, and what the API made inside instances"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deleted_instances",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", Instant(timezone=True), nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.Column("superuser", sa.LargeBinary(), nullable=False),
        sa.Column("replication", sa.LargeBinary(), nullable=False),
        sa.Column("authority_key", sa.LargeBinary(), nullable=True),
        sa.Column("server_key", sa.LargeBinary(), nullable=True),
        sa.Column("server_certificate", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_deleted_instances")),
    )
    op.create_table(
        "known_contents",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("users", sa.JSON(), nullable=False),
        sa.Column("databases", sa.JSON(), nullable=False),
        sa.Column("privileges", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name=op.f("fk_known_contents_instance_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_known_contents")),
    )


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
