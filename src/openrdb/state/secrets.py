"""The secrets and certificates of instances, sealed in the state.

Each instance has a password of its engine's superuser, one with which its nodes replicate, and a
certificate authority. Whoever specifies a node for its host opens them here; the hosts never see
the authority's key, and nobody but the control plane the master key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from openrdb import certificates
from openrdb.certificates import Authority
from openrdb.spec import Certificate
from openrdb.state.models import DeletedInstance, Instance, InstanceSecrets, Snapshot
from openrdb.state.sealing import Keyring, SecretsUnreadable

_BYTES = 32
SUPERUSER = "superuser"
REPLICATION = "replication"
AUTHORITY_KEY = "authority_key"
SERVER_KEY = "server_key"
SEALED = (SUPERUSER, REPLICATION, AUTHORITY_KEY, SERVER_KEY)
"""The columns that are sealed; each one's name is its purpose."""
_SEALED_TABLES: tuple[type[InstanceSecrets | DeletedInstance], ...] = (
    InstanceSecrets,
    DeletedInstance,
)


class Passwords(NamedTuple):
    """An instance's own accounts in its engine."""

    superuser: str
    replication: str


class Secrets:
    """Opens and seals what `instance_secrets` has, with the master keys in force."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def create(self, instance: Instance) -> None:
        """Give a new instance, whose endpoints are there, its secrets and certificates.

        The certificates are made in about 0.3 ms, so this may happen inside a write transaction.
        """
        instance.secrets = self.new_row(instance.id, secrets.token_hex(_BYTES))
        self.renew(instance)

    def new_row(self, instance_id: UUID, superuser: str) -> InstanceSecrets:
        """Make the secrets of an instance, without certificates yet."""
        return InstanceSecrets(
            instance_id=instance_id,
            superuser=self._keyring.seal(superuser, SUPERUSER, instance_id),
            replication=self._keyring.seal(secrets.token_hex(_BYTES), REPLICATION, instance_id),
        )

    def derive(self, use: str) -> bytes:
        """Return a key of the deployment for a use of its own, as signing; it is stored nowhere."""
        return self._keyring.derive(use)

    def open_for(self, instance: Instance) -> Passwords:
        """Return the passwords of an instance's own accounts.

        Raises:
            SecretsUnreadable: the master key is another one.
        """
        row = _row(instance)
        return Passwords(
            superuser=self._keyring.open(row.superuser, SUPERUSER, instance.id),
            replication=self._keyring.open(row.replication, REPLICATION, instance.id),
        )

    def seal_for(self, snapshot: Snapshot, instance: Instance) -> None:
        """Give a new snapshot the superuser's password of the instance that it is of."""
        password = self.open_for(instance).superuser
        snapshot.superuser = self._keyring.seal(password, SUPERUSER, snapshot.id)

    def open_snapshot(self, snapshot: Snapshot) -> str:
        """Return the superuser's password in a snapshot's data.

        Raises:
            SecretsUnreadable: the master key is another one.
        """
        return self._keyring.open(snapshot.superuser, SUPERUSER, snapshot.id)

    # -- certificates ---------------------------------------------------------------------------

    def is_certified(self, instance: Instance) -> bool:
        """Return whether the instance's certificates are in the state.

        Those of an instance of an older version are not, before its host has handed them over.
        """
        return _row(instance).server_key is not None

    def certificate_for(self, instance: Instance) -> Certificate:
        """Return what the instance's servers present.

        Raises:
            SecretsUnreadable: the master key is another one, or the instance is not adopted yet.
        """
        row = _row(instance)
        if row.server_key is None or row.server_certificate is None or not instance.certificate:
            raise _not_adopted(instance)
        return Certificate(
            key=self._keyring.open(row.server_key, SERVER_KEY, instance.id),
            presented=row.server_certificate,
            authority=instance.certificate,
        )

    def readdress(self, instance: Instance) -> bool:
        """Make the certificates name the endpoints that stay; return whether they did not before.

        All keys and the authority's name stay: older copies of its certificate verify the new leaf.
        The authority's names no read replicas: it is the instance's, and stays as they come and go.

        Raises:
            SecretsUnreadable: the master key is another one, or the instance is not adopted yet.
        """
        old = self.certificate_for(instance)
        own = addresses_of(instance)
        is_named = certificates.is_for(old.authority, own)
        if is_named and certificates.is_for(old.presented, every_address_of(instance)):
            return False
        authority = Authority(self._authority_key(instance), old.authority)
        if not is_named:
            authority = certificates.readdress(authority, instance.id, instance.region, own)
        self._issue(instance, authority, server_key=old.key)
        return True

    def renew(self, instance: Instance) -> None:
        """Replace the authority and what the servers present, with new keys."""
        addresses = addresses_of(instance)
        self._issue(instance, certificates.make_authority(instance.id, instance.region, addresses))

    def adopt(self, instance: Instance, server_key: str) -> None:
        """Take over the authority of an instance of an older version, whose servers have its key.

        The next renewal separates both keys. Nothing changes if it was taken over before.

        Args:
            instance: one whose `certificate` is the authority's.
            server_key: PEM of the key that its servers present a certificate of.

        Raises:
            ValueError: the key is not that of the instance's certificate.
        """
        if self.is_certified(instance):
            return
        if not instance.certificate or not certificates.matches(instance.certificate, server_key):
            raise ValueError(f"the server's key is not that of the certificate of {instance.id}")
        self._issue(instance, Authority(server_key, instance.certificate), server_key=server_key)

    def _authority_key(self, instance: Instance) -> str:
        sealed = _row(instance).authority_key
        if sealed is None:
            raise _not_adopted(instance)
        return self._keyring.open(sealed, AUTHORITY_KEY, instance.id)

    def _issue(
        self, instance: Instance, authority: Authority, *, server_key: str | None = None
    ) -> None:
        leaf = certificates.issue(
            authority, instance.id, instance.region, every_address_of(instance), key=server_key
        )
        row = _row(instance)
        instance.certificate = authority.certificate
        row.authority_key = self._keyring.seal(authority.key, AUTHORITY_KEY, instance.id)
        row.server_key = self._keyring.seal(leaf.key, SERVER_KEY, instance.id)
        row.server_certificate = leaf.presented

    # -- all instances --------------------------------------------------------------------------

    def check(self, session: Session) -> None:
        """Check that the master keys open the secrets in the state, by one of them: all are sealed
        with the same key, or with one of the two of a rotation.

        Raises:
            SecretsUnreadable: they do not.
        """
        for table in (*_SEALED_TABLES, Snapshot):
            sealed = session.scalars(select(table.superuser).limit(1)).first()
            if sealed is not None:
                self._keyring.check(sealed)

    @staticmethod
    def unsealed() -> Select[UUID]:
        """Select the instances that an older version made, which have no secrets in the state."""
        with_secrets = select(InstanceSecrets.instance_id)
        return select(Instance.id).where(Instance.id.not_in(with_secrets))

    def seal_derived(self, session: Session, master_key: bytes) -> None:
        """Seal the superusers' passwords of instances that an older version made.

        That version kept none: it derived each from the master key and the instance's id. Those
        whose creation has not reached their certificate get one.
        """
        for instance in session.scalars(select(Instance).where(Instance.id.in_(self.unsealed()))):
            derived = hmac.digest(master_key, str(instance.id).encode(), hashlib.sha256).hex()
            instance.secrets = self.new_row(instance.id, derived)
            if instance.certificate is None:
                self.renew(instance)

    def seal_again(self, session: Session) -> None:
        """Seal every secret with the master key in force for sealing."""
        for table in _SEALED_TABLES:
            rows: Iterable[InstanceSecrets | DeletedInstance] = session.scalars(select(table))
            for row in rows:
                for column in SEALED:
                    sealed = getattr(row, column)
                    if sealed is not None:
                        secret = self._keyring.open(sealed, column, row.instance_id)
                        setattr(row, column, self._keyring.seal(secret, column, row.instance_id))
        for snapshot in session.scalars(select(Snapshot)):
            password = self.open_snapshot(snapshot)
            snapshot.superuser = self._keyring.seal(password, SUPERUSER, snapshot.id)


def addresses_of(instance: Instance) -> list[str]:
    """Return the addresses that the certificate of an instance's authority names."""
    return [endpoint.ip for endpoint in instance.endpoints if not endpoint.leaving]


def every_address_of(instance: Instance) -> list[str]:
    """Return the addresses that what an instance's servers present names, its own first."""
    of_replicas = [one for replica in instance.read_replicas for one in replica.endpoints]
    addresses = addresses_of(instance) + [one.ip for one in of_replicas if not one.leaving]
    return list(dict.fromkeys(addresses))  # the public ones may be one


def _row(instance: Instance) -> InstanceSecrets:
    if instance.secrets is None:
        raise SecretsUnreadable(f"the state has no secrets of instance {instance.id}")
    return instance.secrets


def _not_adopted(instance: Instance) -> SecretsUnreadable:
    return SecretsUnreadable(
        f"the certificates of instance {instance.id} have not been taken over from its host yet"
    )
