"""Recovery to a point in time"""

import sqlalchemy as sa
from alembic import op

from openrdb.state.models import Instant

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in batches: SQLite would get another table of instances, and lose what refers to the old one.
    op.add_column(
        "instances",
        sa.Column("recovery", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("nodes", sa.Column("recovery_lost_at", Instant(timezone=True), nullable=True))


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
