"""Node types: sizes of the machine that an instance may have, and the volumes each takes."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from openrdb.errors import InvalidArguments

LOCAL: Final = "lssd"
"""The volume type whose size is the node type's own."""
_GIB = 2**30
_DESCRIPTIONS = {
    LOCAL: "Local Storage",
    "bssd": "Block Storage",
    "sbs_5k": "Block Storage, 5,000 IOPS",
    "sbs_15k": "Block Storage, 15,000 IOPS",
}
VOLUME_TYPES: Final = tuple(_DESCRIPTIONS)


@dataclass(frozen=True)
class VolumeType:
    """A kind of volume that a node type takes; sizes in bytes."""

    type: str
    """As the SDK's VolumeType: lssd, bssd, sbs_5k, sbs_15k."""
    class_: str
    """As the SDK's StorageClass: lssd, bssd, sbs."""
    min_size: int
    max_size: int
    chunk_size: int
    description: str


@dataclass(frozen=True)
class NodeType:
    """A size of machine; memory in bytes."""

    name: str
    vcpus: int
    memory: int
    generation: str
    """As the SDK's NodeTypeGeneration: generation_v1, generation_v2."""
    instance_range: str
    """Its family: "db-dev", "db-pop2-hm"."""
    description: str
    disabled: bool
    beta: bool
    is_ha_required: bool
    volumes: tuple[VolumeType, ...]
    """The first is the one taken when none is asked for."""

    @property
    def connections(self) -> int:
        """What every engine's `max_connections` is by default: along the line through the values
        recorded for db-dev-s and db-dev-m."""
        return min(50 + 25 * (self.memory // _GIB), 1000)


@functools.cache
def node_types() -> tuple[NodeType, ...]:
    """Return all node types in the order of the list."""
    text = (resources.files(__package__) / "node_types.json").read_text()
    return tuple(_node_type(row) for row in json.loads(text))


def node_type(name: str) -> NodeType | None:
    """Return the node type of that name, in any case; None when there is none."""
    return _by_name().get(name.lower())


def volume_type(node_type: NodeType, name: str) -> VolumeType:
    """Return a volume type of a node type; InvalidArguments (`volume_type`) if it has none."""
    for volume in node_type.volumes:
        if volume.type == name:
            return volume
    taken = ", ".join(volume.type for volume in node_type.volumes)
    raise InvalidArguments(("volume_type", "constraint", f"{node_type.name} takes {taken}"))


def volume_size(node_type: NodeType, volume_type_name: str, asked: int) -> int:
    """Return the size of a new volume in bytes; `asked` 0 is the default.

    The default of a local volume is the node type's own size, of other volumes the least possible.

    Raises:
        InvalidArguments: `volume_type` is none of the node type's, or `volume_size` is not within
            its bounds or not a multiple of its chunk.
    """
    volume = volume_type(node_type, volume_type_name)
    size = asked or volume.min_size
    if not volume.min_size <= size <= volume.max_size or size % volume.chunk_size:
        raise InvalidArguments(("volume_size", "constraint", _size_rule(node_type, volume)))
    return size


def _size_rule(node_type: NodeType, volume: VolumeType) -> str:
    if volume.min_size == volume.max_size:
        return f"{volume.type} of {node_type.name} has {volume.min_size} bytes"
    return (
        f"{volume.type} has {volume.min_size} to {volume.max_size} bytes, "
        f"in steps of {volume.chunk_size}"
    )


@functools.cache
def _by_name() -> dict[str, NodeType]:
    return {node_type.name: node_type for node_type in node_types()}


def _node_type(row: dict[str, Any]) -> NodeType:
    volumes = tuple(_volume_type(volume) for volume in row.pop("volumes"))
    return NodeType(instance_range=_range(row["name"]), volumes=volumes, **row)


def _volume_type(row: dict[str, Any]) -> VolumeType:
    class_ = row.pop("class")
    return VolumeType(class_=class_, description=_DESCRIPTIONS[row["type"]], **row)


def _range(name: str) -> str:
    """ "db-dev" of db-dev-s, "db-pop2-hm" of db-pop2-hm-2c-16g."""
    return re.sub(r"-(\d+c-\d+g|[a-z]+)$", "", name)
