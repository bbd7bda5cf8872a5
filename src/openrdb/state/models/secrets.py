"""The sealed secrets of instances."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base


class Sealed:
    """What only the control plane can open: each value is sealed with the master key, for the
    instance whose it is."""

    superuser: Mapped[bytes]
    """The password of the engine's superuser."""
    replication: Mapped[bytes]
    """The password with which nodes replicate from each other."""
    authority_key: Mapped[bytes | None]
    """The key of the certificate authority; null: not yet taken over from the instance's host."""
    server_key: Mapped[bytes | None]
    """The key of the certificate that the servers present; null as above."""
    server_certificate: Mapped[str | None]
    """The certificate that the servers present: a leaf of the authority."""


class InstanceSecrets(Sealed, Base):
    """The secrets of an instance that there is."""

    __tablename__ = "instance_secrets"

    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True
    )
