"""Virtual private clouds, private networks and their addresses."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from openrdb.state.models.base import Base, now


class Vpc(Base):
    """A virtual private cloud: a group of private networks."""

    __tablename__ = "vpcs"
    __table_args__ = (Index("ix_vpcs_listing", "region", "organization_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    name: Mapped[str]
    tags: Mapped[list[str]]
    is_default: Mapped[bool] = mapped_column(default=False)
    routing_enabled: Mapped[bool] = mapped_column(default=True)
    custom_routes_propagation_enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class PrivateNetwork(Base):
    """A private network; its endpoints are addresses of its subnets."""

    __tablename__ = "private_networks"
    __table_args__ = (
        Index("ix_private_networks_listing", "region", "organization_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    vpc_id: Mapped[UUID] = mapped_column(ForeignKey("vpcs.id"), index=True)
    name: Mapped[str]
    tags: Mapped[list[str]]
    dhcp_enabled: Mapped[bool] = mapped_column(default=True)
    default_route_propagation_enabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    subnets: Mapped[list[Subnet]] = relationship(
        order_by="Subnet.position", cascade="all, delete-orphan", lazy="selectin"
    )


class Subnet(Base):
    """A range of a private network: one for IPv4, one for IPv6."""

    __tablename__ = "subnets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    private_network_id: Mapped[UUID] = mapped_column(
        ForeignKey("private_networks.id", ondelete="CASCADE"), index=True
    )
    position: Mapped[int]
    subnet: Mapped[str] = mapped_column(unique=True)
    """CIDR; no two networks of a deployment share an address, whose endpoints are real ones."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Ip(Base):
    """An address of a private network, booked by a user or for an endpoint."""

    __tablename__ = "ips"
    __table_args__ = (
        UniqueConstraint("private_network_id", "address"),
        Index("ix_ips_listing", "region", "organization_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    private_network_id: Mapped[UUID] = mapped_column(ForeignKey("private_networks.id"))
    subnet_id: Mapped[UUID] = mapped_column(ForeignKey("subnets.id"))
    address: Mapped[str]
    """Without its length: `127.64.4.2`."""
    is_ipv6: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[str]]
    endpoint_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("endpoints.id", ondelete="CASCADE"), index=True
    )
    """Whose it is; null: booked by a user for later."""
    mac_address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
