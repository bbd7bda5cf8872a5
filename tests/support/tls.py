"""Certificates for the API itself, and what it presents."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from openrdb import certificates
from tests.support.service import Service


def write_pair(directory: Path, *addresses: str) -> Path:
    """A certificate and its key, in files of their own; return the authority's certificate."""
    authority = certificates.make_authority(uuid4(), "fr-par", addresses)
    leaf = certificates.issue(authority, uuid4(), "fr-par", addresses)
    for name, text in (
        ("cert.pem", leaf.presented),
        ("key.pem", leaf.key),
        ("ca.pem", leaf.authority),
    ):
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
    return directory / "ca.pem"


def presented(service: Service) -> str:
    """The certificate that a new connection is shown, whatever it is."""
    place = urlsplit(service.url)
    assert place.hostname is not None
    assert place.port is not None
    return ssl.get_server_certificate((place.hostname, place.port))
