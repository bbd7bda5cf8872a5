"""What crosses between control plane and host: plain data, nothing live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID


@dataclass(frozen=True)
class Certificate:
    """What a server presents to its clients: all PEM."""

    key: str = field(repr=False)
    presented: str
    """The leaf that the authority signed."""
    authority: str
    """The certificate of the instance's authority: what users are shown. Its key is not here."""


@dataclass(frozen=True)
class NodeSpec:
    """A node as it is wanted: all that an engine needs to configure and run it."""

    instance_id: UUID
    node_id: UUID
    engine: str
    """The version's name on the wire, `PostgreSQL-17`."""
    address: str
    port: int
    uid: int | None
    """The Unix account its processes run as; None: the agent's own."""
    memory: int
    """Bytes that the node type grants."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The user's, by the catalogue's names and in its units."""
    init_settings: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    """Of the instance: hosts refuse specifications older than one they have seen."""
    secret: str = field(default="", repr=False)
    """The password of the engine's superuser."""
    replication_secret: str = field(default="", repr=False)
    """The password with which nodes replicate from each other."""
    certificate: Certificate | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Administrator:
    """The first user: its password only as the engine's verifier."""

    name: str
    verifier: str


Permission = Literal["readonly", "readwrite", "all", "custom", "none"]
"""What a user may do in a database; `custom`: grants that are none of our levels (DESIGN section 7)."""


@dataclass(frozen=True)
class User:
    """A user of an instance, whoever made it."""

    name: str
    is_admin: bool


@dataclass(frozen=True)
class Database:
    """A database of an instance; managed: made by the API, or at birth."""

    name: str
    owner: str
    managed: bool
    size: int
    """Bytes; 0 where it was not asked for."""


@dataclass(frozen=True)
class Privilege:
    """What one user may do in one managed database."""

    database: str
    user: str
    permission: Permission
