"""Events know the instance that their subject is of"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("instance_id", sa.Uuid(), nullable=True))
    op.create_index("ix_events_instance_id_at", "events", ["instance_id", "at"])


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
