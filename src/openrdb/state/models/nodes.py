"""The database servers of instances."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base


class Node(Base):
    """One database server process of an instance."""

    __tablename__ = "nodes"
    __table_args__ = (UniqueConstraint("port", "address"), UniqueConstraint("uid"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    role: Mapped[str] = mapped_column(default="main")
    address: Mapped[str]
    port: Mapped[int]
    uid: Mapped[int | None]
    """The Unix account its processes run as; null: that of the control plane."""
    desired: Mapped[str] = mapped_column(default="stopped", index=True)
    """`running`: it is started again whenever it is found dead; `stopped`: it is left alone."""
