"""An instance's TLS certificates: pure functions, nothing is stored here.

Each instance has an authority of its own. Its self-signed certificate is what users download: common
name the first endpoint's address, ten years, alternative names by DNS and by IP. Servers present
leaves that the authority signed, so that a client that trusts the authority trusts every node of the
instance, before and after endpoints change or another node takes over. Only a renewal replaces the
authority.

The keys are elliptic, where the reference service has RSA: they are made in less than a millisecond,
and handshakes are faster.
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

from openrdb.spec import Certificate

_VALID = timedelta(days=3650)
_CLOCK_DIFFERENCE = timedelta(minutes=5)
"""How far a client's clock may be behind."""
Key = ec.EllipticCurvePrivateKey


class Authority(NamedTuple):
    """What signs an instance's leaves, both as PEM. The key never leaves the control plane."""

    key: str
    certificate: str


def make_authority(instance_id: UUID, region: str, addresses: Sequence[str]) -> Authority:
    """Make a new authority; `addresses` are IP addresses, the first becomes the common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(_common_name(instance_id, addresses))
    names = _alternative_names(instance_id, region, addresses)
    return Authority(_pem(key), _certificate(key.public_key(), name, key, name, names))


def readdress(
    authority: Authority, instance_id: UUID, region: str, addresses: Sequence[str]
) -> Authority:
    """Make an authority's certificate name other addresses; its key and its name stay.

    Clients that trust an older certificate of the authority still verify its leaves. The common name
    stays even when its address is no longer an endpoint's, as in the reference service.
    """
    key = _load_key(authority.key)
    name = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
    names = _alternative_names(instance_id, region, addresses)
    certificate = _certificate(key.public_key(), name, key, name, names)
    return Authority(authority.key, certificate)


def issue(
    authority: Authority,
    instance_id: UUID,
    region: str,
    addresses: Sequence[str],
    *,
    key: str | None = None,
) -> Certificate:
    """Issue the leaf that the instance's servers present, with a new key unless one is given."""
    leaf_key = ec.generate_private_key(ec.SECP256R1()) if key is None else _load_key(key)
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
    # A subject other than the issuer's: OpenSSL would take the leaf for self-signed.
    subject = _name(_common_name(instance_id, addresses), "server")
    names = _alternative_names(instance_id, region, addresses)
    signed = _certificate(leaf_key.public_key(), subject, _load_key(authority.key), issuer, names)
    return Certificate(key=_pem(leaf_key), presented=signed, authority=authority.certificate)


def matches(certificate: str, key: str) -> bool:
    """Return whether a certificate belongs to a key."""
    public = _load_key(key).public_key()
    return x509.load_pem_x509_certificate(certificate.encode()).public_key() == public


def is_for(certificate: str, addresses: Sequence[str]) -> bool:
    """Return whether a certificate names these addresses and no others."""
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    named = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return named == {str(ipaddress.ip_address(address)) for address in addresses}


def _common_name(instance_id: UUID, addresses: Sequence[str]) -> str:
    return addresses[0] if addresses else str(instance_id)  # at most 64 characters


def _alternative_names(
    instance_id: UUID, region: str, addresses: Sequence[str]
) -> list[x509.GeneralName]:
    parsed = [ipaddress.ip_address(address) for address in addresses]
    names: list[x509.GeneralName] = [
        x509.DNSName(f"rw-{instance_id}.rdb.{region}.openrdb.internal")
    ]
    names += [x509.DNSName(address) for address in addresses]
    if any(address.is_loopback for address in parsed):
        names.append(x509.DNSName("localhost"))
    return names + [x509.IPAddress(address) for address in parsed]


def _certificate(
    public: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    signer: Key,
    issuer: x509.Name,
    names: list[x509.GeneralName],
) -> str:
    is_authority = subject == issuer
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_DIFFERENCE)
        .not_valid_after(now + _VALID)
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None)
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
    signed = builder.sign(signer, hashes.SHA256())
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


def _pem(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
