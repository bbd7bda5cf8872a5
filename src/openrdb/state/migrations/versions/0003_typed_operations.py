"""Operations on any subject, with their step and deadline; events"""

import sqlalchemy as sa
from alembic import op

import openrdb.state.models

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHECKED = "checked"
"""Among the parameters until now."""


def upgrade() -> None:
    instant = openrdb.state.models.Instant(timezone=True)
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("subject_type", sa.String(), nullable=True),
        sa.Column("subject_id", sa.String(), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("access_key", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("error_type", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("duration", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events") as batch:
        batch.create_index("ix_events_subject_id_at", ["subject_id", "at"])
        batch.create_index("ix_events_at", ["at"])

    with op.batch_alter_table("operations") as batch:
        batch.drop_index("ix_operations_instance_id")
    with op.batch_alter_table("operations") as batch:
        batch.alter_column("instance_id", new_column_name="subject_id")
        text = sa.String()
        batch.add_column(sa.Column("subject_type", text, nullable=False, server_default="instance"))
        batch.add_column(sa.Column("status_before", text, nullable=True))
        batch.add_column(
            sa.Column("is_checked", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch.add_column(sa.Column("step", text, nullable=True))
        batch.add_column(sa.Column("step_started_at", instant, nullable=True))
        batch.add_column(sa.Column("deadline_at", instant, nullable=True))
        batch.add_column(
            sa.Column("is_overdue", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch.add_column(sa.Column("attempts", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("build", text, nullable=True))
    with op.batch_alter_table("operations") as batch:
        batch.create_index("ix_operations_subject_id", ["subject_id"])
    _take_over()


def _take_over() -> None:
    """Make a column of what the parameters held: that the precondition has held.

    A running creation of an endpoint has found its port.
    """
    operations = sa.table(
        "operations",
        sa.column("id", sa.Uuid()),
        sa.column("kind", sa.String()),
        sa.column("status", sa.String()),
        sa.column("parameters", sa.JSON()),
        sa.column("is_checked", sa.Boolean()),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(operations.c.id, operations.c.parameters)).all():
        if _CHECKED in row.parameters:
            kept = {name: value for name, value in row.parameters.items() if name != _CHECKED}
            changed = sa.update(operations).where(operations.c.id == row.id)
            connection.execute(changed.values(parameters=kept, is_checked=True))
    found = (operations.c.kind == "create_endpoint", operations.c.status == "running")
    connection.execute(sa.update(operations).where(*found).values(is_checked=True))


def downgrade() -> None:
    with op.batch_alter_table("operations") as batch:
        batch.drop_index("ix_operations_subject_id")
    with op.batch_alter_table("operations") as batch:
        batch.alter_column("subject_id", new_column_name="instance_id")
        for name in (
            *("subject_type", "status_before", "is_checked", "step", "step_started_at"),
            *("deadline_at", "is_overdue", "attempts", "build"),
        ):
            batch.drop_column(name)
    with op.batch_alter_table("operations") as batch:
        batch.create_index("ix_operations_instance_id", ["instance_id"])
    op.drop_table("events")
