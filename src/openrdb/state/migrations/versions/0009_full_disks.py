"""What users of nodes may write"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    open_ = sa.Column("observed_writes", sa.String(), server_default="open", nullable=False)
    with op.batch_alter_table("nodes") as nodes:
        nodes.add_column(open_)


def downgrade() -> None:
    raise RuntimeError("there is no way back: restore the copy saved before the migration")
