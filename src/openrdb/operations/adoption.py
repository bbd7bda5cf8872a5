"""Taking over what instances of an older version kept on their host only."""

from __future__ import annotations

from sqlalchemy import select

from openrdb import certificates
from openrdb.host.base import Host
from openrdb.state.database import Database
from openrdb.state.models import Instance, InstanceSecrets
from openrdb.state.secrets import Secrets


def adopt_certificates(database: Database, host: Host, secrets: Secrets) -> None:
    """Seal the keys of certificates that older versions left on the host; a no-op afterwards.

    Where the host has none, or that of a renewal which was interrupted, there are new certificates.
    """
    uncertified = select(InstanceSecrets.instance_id).where(InstanceSecrets.server_key.is_(None))
    with database.read() as session:
        found = session.scalars(select(Instance).where(Instance.id.in_(uncertified))).all()
    keys = {one.id: host.server_key(one.id, one.primary.id) for one in found}
    for instance_id, key in keys.items():
        with database.write() as session:
            instance = session.get_one(Instance, instance_id)
            shown = instance.certificate
            if key is not None and shown is not None and certificates.matches(shown, key):
                secrets.adopt(instance, key)
            else:
                secrets.renew(instance)
