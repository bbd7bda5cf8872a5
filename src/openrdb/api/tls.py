"""TLS of the API: the operator's certificate and key, read again at SIGHUP."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from pathlib import Path

from cryptography import x509

from openrdb.config import Settings
from openrdb.errors import HostError

log = logging.getLogger(__name__)


def require_safe(settings: Settings) -> None:
    """Refuse to show keys to a network.

    Raises:
        HostError: the API would listen beyond this machine without TLS.
    """
    alone = ipaddress.ip_address(settings.listen_host).is_loopback
    if not alone and settings.tls_cert is None and not settings.insecure:
        raise HostError(
            f"listening on {settings.listen} without TLS shows API keys to the network: pass "
            "--tls-cert and --tls-key, or --insecure where something before it adds TLS"
        )


class Tls:
    """A certificate with its key, and the context in which connections are accepted."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both.

        Raises:
            HostError: one of them cannot be read, or they do not belong together.
        """
        self._files = certificate, key
        self._current = self.context = self._read()
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """Use what was read last; called in each handshake, whether or not the client names a host.

        Another pair in the same context would not do: it keeps the old one where only the kind of
        key differs.
        """
        connection.context = self._current

    @classmethod
    def of(cls, settings: Settings) -> Tls | None:
        """Return what the configuration names; None if it names none.

        Raises:
            HostError: one of the two is missing or wrong.
        """
        if settings.tls_cert is None and settings.tls_key is None:
            return None
        if settings.tls_cert is None or settings.tls_key is None:
            raise HostError("TLS needs both, --tls-cert and --tls-key")
        return cls(settings.tls_cert, settings.tls_key)

    def reload(self) -> None:
        """Read both again, for connections from now on; what is wrong is logged and not used."""
        try:
            self._current = self._read()
        except HostError as error:
            log.error("the old certificate stays in use: %s", error)
        else:
            log.warning("read %s again", self._files[0])

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        for path in self._files:
            try:
                path.open("rb").close()
            except OSError as error:
                raise HostError(f"cannot read {path}: {(error.strerror or '').lower()}") from None
        try:
            # Without a password: a service cannot ask for one.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or str(error)
            raise HostError(f"cannot use {certificate} with the key {key}: {why}") from None
        return context

    def client_host(self, reached_at: str) -> str:
        """Return the address in URLs: a name of the certificate's, unless it has the address itself."""
        certificate = x509.load_pem_x509_certificate(self._files[0].read_bytes())
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return reached_at
        addresses = names.value.get_values_for_type(x509.IPAddress)
        if ipaddress.ip_address(reached_at) in addresses:
            return reached_at
        hosts = names.value.get_values_for_type(x509.DNSName)
        return next((name for name in hosts if not name.startswith("*")), reached_at)
