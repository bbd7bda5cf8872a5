"""An instance's TLS certificates, both naming its endpoints' addresses.

The one that its users are shown is self-signed, as recorded: common name the first endpoint's
address, ten years, alternative names by DNS and by IP. The one that its servers present is signed
by it, so that who trusts one that was shown before trusts those presented later, too: of a server
that presents a self-signed one OpenSSL takes only the very one it was given.
Elliptic keys instead of the recorded RSA: made in a millisecond, and quicker at each handshake.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=3650)
Key = ec.EllipticCurvePrivateKey


class Certified(NamedTuple):
    """All PEM; both certificates have the same key."""

    shown: str
    presented: str
    key: str


def make(
    instance_id: UUID,
    region: str,
    addresses: Sequence[str],
    *,
    instead_of: tuple[str, str] | None = None,
) -> Certified:
    """New certificates and their key; `addresses` are IPs, the first the common name.

    With the key and the name of the shown one and key that they stand `instead_of`. The name stays
    even when its address is no endpoint's any more, as recorded.
    """
    common_name = addresses[0] if addresses else str(instance_id)  # at most 64 characters
    if instead_of is None:
        key: Key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
    else:
        key = _load_key(instead_of[1])
        name = x509.load_pem_x509_certificate(instead_of[0].encode()).subject
    names: list[x509.GeneralName] = [
        x509.DNSName(f"rw-{instance_id}.rdb.{region}.openrdb.internal")
    ]
    names += [x509.DNSName(address) for address in addresses]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Certified(
        shown=_certificate(key, name, name, names),
        presented=_certificate(key, _name(common_name, "server"), name, names),
        key=private.decode(),
    )


def _certificate(
    key: Key, subject: x509.Name, issuer: x509.Name, names: list[x509.GeneralName]
) -> str:
    shown = subject == issuer
    now = datetime.now(UTC)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clients' clocks differ
        .not_valid_after(now + _VALID)
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=shown,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=shown, path_length=0 if shown else None)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName(names), False),
        (constraints, True),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (authority, False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _name(common_name: str, unit: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpenRDB")]
    if unit is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


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
