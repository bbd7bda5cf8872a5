"""An instance's TLS certificate: self-signed, naming its endpoints' addresses.

As recorded: common name the endpoint's address, ten years, alternative names by DNS and by IP.
Elliptic keys instead of the recorded RSA: made in a millisecond, and quicker at each handshake.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=3650)
Key = ec.EllipticCurvePrivateKey


Pair = tuple[str, str]
"""A certificate and its key, both PEM."""


def make(
    instance_id: UUID, region: str, addresses: Sequence[str], *, instead_of: Pair | None = None
) -> Pair:
    """A new certificate and its key; `addresses` are IPs, the first the common name.

    With the key and the name of the one that it stands `instead_of`: who pinned the key need not
    do it again, and the name stays even when its address is no endpoint's any more, as recorded.
    """
    host_name = f"rw-{instance_id}.rdb.{region}.openrdb.internal"
    if instead_of is None:
        key: Key = ec.generate_private_key(ec.SECP256R1())
        name = _name(addresses[0] if addresses else str(instance_id))  # at most 64 characters
    else:
        key = _load_key(instead_of[1])
        name = x509.load_pem_x509_certificate(instead_of[0].encode()).subject
    names: list[x509.GeneralName] = [x509.DNSName(host_name)]
    names += [x509.DNSName(address) for address in addresses]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clients' clocks differ
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpenRDB"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _load_key(key: str) -> Key:
    loaded = serialization.load_pem_private_key(key.encode(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic key")
    return loaded


def matches(certificate: str, key: str) -> bool:
    """Whether a certificate belongs to a key."""
    mine = _load_key(key).public_key()
    return x509.load_pem_x509_certificate(certificate.encode()).public_key() == mine


def is_for(certificate: str, addresses: Sequence[str]) -> bool:
    """Whether a certificate names these addresses and no others."""
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    named = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return named == {str(ipaddress.ip_address(address)) for address in addresses}
