"""The object store: where backups are, in a directory or in S3, behind five verbs."""

from __future__ import annotations

from pathlib import Path

from openrdb.spec import StoreSpec
from openrdb.storage.base import Store
from openrdb.storage.directory import DirectoryStore
from openrdb.storage.links import Links


def open_store(spec: StoreSpec, links: Links | None = None) -> Store:
    """Return a store; nothing is made or asked for yet.

    Args:
        spec: where the store is.
        links: makes the URLs of a directory's objects; only the control plane, which serves them,
            has it. S3 signs its own.

    Raises:
        StoreUnavailable: its credentials are missing.
    """
    if spec.kind == "directory":
        known = Path(spec.known) if spec.known is not None else None
        return DirectoryStore(Path(spec.location, spec.prefix), links, known)
    # Its library takes 20 MB of memory, which the agent does without.
    from openrdb.storage.s3 import BucketStore  # noqa: PLC0415

    return BucketStore(spec)
