"""Certificates: names, keys, validity."""

from __future__ import annotations

import ipaddress
from uuid import uuid4

from cryptography import x509

from openrdb.host import certificates


def test_every_address_is_named() -> None:
    instance_id = uuid4()
    pem, presented, key = certificates.make(instance_id, "fr-par", ["192.0.2.7", "2001:db8::7"])
    found = x509.load_pem_x509_certificate(pem.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.7"),
        ipaddress.ip_address("2001:db8::7"),
    ]
    assert any(str(instance_id) in name for name in names.get_values_for_type(x509.DNSName))
    (common,) = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common.value == "192.0.2.7"
    assert certificates.matches(pem, key)
    assert certificates.matches(presented, key)


def test_another_key_does_not_match() -> None:
    one, other = (certificates.make(uuid4(), "fr-par", ["127.0.0.1"]) for _ in range(2))
    assert not certificates.matches(one.shown, other.key)
