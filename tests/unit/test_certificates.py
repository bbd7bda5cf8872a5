"""Certificates: names, keys, validity, and which trusted copy verifies which leaf."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509

from openrdb import certificates
from openrdb.spec import Certificate

REGION = "fr-par"


def names_of(pem: str) -> x509.SubjectAlternativeName:
    found = x509.load_pem_x509_certificate(pem.encode())
    return found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_every_address_is_named() -> None:
    instance_id, addresses = uuid4(), ["192.0.2.7", "2001:db8::7"]
    authority = certificates.make_authority(instance_id, REGION, addresses)
    leaf = certificates.issue(authority, instance_id, REGION, addresses)
    for pem in (authority.certificate, leaf.presented):
        names = names_of(pem)
        assert names.get_values_for_type(x509.IPAddress) == [
            ipaddress.ip_address("192.0.2.7"),
            ipaddress.ip_address("2001:db8::7"),
        ]
        dns = names.get_values_for_type(x509.DNSName)
        assert any(str(instance_id) in name for name in dns)
        assert "localhost" not in dns
    shown = x509.load_pem_x509_certificate(authority.certificate.encode())
    (common,) = shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common.value == "192.0.2.7"
    assert (shown.not_valid_after_utc - shown.not_valid_before_utc).days == 3650


def test_keys_of_authority_and_servers_differ() -> None:
    instance_id = uuid4()
    authority = certificates.make_authority(instance_id, REGION, ["127.0.0.1"])
    leaf = certificates.issue(authority, instance_id, REGION, ["127.0.0.1"])
    assert certificates.matches(authority.certificate, authority.key)
    assert certificates.matches(leaf.presented, leaf.key)
    assert not certificates.matches(leaf.presented, authority.key)
    assert not certificates.matches(authority.certificate, leaf.key)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.64.4.2", "::1"])
def test_localhost_is_named_beside_a_loopback_address(address: str) -> None:
    authority = certificates.make_authority(uuid4(), REGION, [address])
    assert "localhost" in names_of(authority.certificate).get_values_for_type(x509.DNSName)


def handshake(leaf: Certificate, trusted: str, host: str, directory: Path) -> None:
    """Connect by TLS as a client that verifies the server's name, and trusts one certificate."""
    presented = directory / "presented.pem"
    presented.write_text(leaf.presented + leaf.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(presented)
    client = ssl.create_default_context(cadata=trusted)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


def test_old_copies_of_the_authority_verify_new_leaves(tmp_path: Path) -> None:
    instance_id, before, after = uuid4(), ["127.0.0.1"], ["127.64.0.2", "192.0.2.7"]
    first = certificates.make_authority(instance_id, REGION, before)
    old = certificates.issue(first, instance_id, REGION, before)
    second = certificates.readdress(first, instance_id, REGION, after)
    new = certificates.issue(second, instance_id, REGION, after, key=old.key)
    assert certificates.is_for(second.certificate, after)
    assert new.key == old.key
    for trusted in (first.certificate, second.certificate):
        handshake(old, trusted, "127.0.0.1", tmp_path)
        handshake(old, trusted, "localhost", tmp_path)
        handshake(new, trusted, "127.64.0.2", tmp_path)
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(new, trusted, "127.0.0.1", tmp_path)


def test_another_authority_of_the_same_name_verifies_nothing(tmp_path: Path) -> None:
    instance_id, addresses = uuid4(), ["127.0.0.1"]
    one, other = (certificates.make_authority(instance_id, REGION, addresses) for _ in range(2))
    leaf = certificates.issue(one, instance_id, REGION, addresses)
    handshake(leaf, one.certificate, "127.0.0.1", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, other.certificate, "127.0.0.1", tmp_path)
