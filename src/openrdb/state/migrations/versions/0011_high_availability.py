"""What hosts say of pairs"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    epoch = sa.Column("observed_epoch", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("nodes", epoch)
    op.add_column("nodes", sa.Column("observed_unprotected", sa.String(), nullable=True))
    op.add_column("nodes", sa.Column("observed_lag", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
