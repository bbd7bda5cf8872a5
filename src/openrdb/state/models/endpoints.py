"""The addresses that users connect to."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class Endpoint(Base):
    """An address that users connect to."""

    __tablename__ = "endpoints"
    __table_args__ = (UniqueConstraint("port", "ip"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str] = mapped_column(default="load_balancer")
    """`load_balancer`, `private_network`, or a read replica's `direct_access`."""
    ip: Mapped[str]
    port: Mapped[int]
    private_network_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("private_networks.id"), index=True
    )
    service_ip: Mapped[str | None]
    """The address in CIDR form, as asked or as booked: `127.64.4.2/22`."""
    provisioning_mode: Mapped[str | None]
    """`static`: the user's address; `ipam`: one booked of the network's."""
    zone: Mapped[str | None]
    published: Mapped[bool] = mapped_column(default=False)
    """Shown; a public one from the moment that connections succeed, a private one at once."""
    leaving: Mapped[bool] = mapped_column(default=False)
    """Being deleted: not shown any more, and no process is kept for it."""
    rule: Mapped[str] = mapped_column(default="primary")
    """Which backend takes connections: `primary`, whichever node that is, or `node`: always one."""
    node_id: Mapped[UUID | None] = mapped_column(index=True)
    """The one node of the rule `node`: that of the read replica whose endpoint it is."""
    created_at: Mapped[datetime] = mapped_column(default=now)
