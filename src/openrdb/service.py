"""The control plane, put together and run: what `openrdb serve` does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from functools import partial
from typing import Any

from sqlalchemy import select

from openrdb import data_directory
from openrdb.agent.link import AgentLink
from openrdb.agent.settings import AgentSettings
from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.api.server import BACKLOG, Server
from openrdb.api.tls import Tls, require_safe
from openrdb.build import build
from openrdb.catalog.offers import Offers
from openrdb.config import REGIONS, Region, Settings
from openrdb.credentials import ensure_credentials
from openrdb.errors import HostError
from openrdb.host import checks
from openrdb.host.balancer import choose
from openrdb.host.balancer.base import address_text
from openrdb.host.base import Host
from openrdb.host.bundles.cache import Bundles
from openrdb.observe import metrics
from openrdb.observe.changes import Changes
from openrdb.observe.nodes import NodeObserver
from openrdb.operations import desired
from openrdb.operations.adoption import adopt_certificates
from openrdb.operations.reconciliation import reconcile
from openrdb.operations.run import Services
from openrdb.operations.workflows import Operations
from openrdb.schedules.backups import BackupSchedule
from openrdb.schedules.maintenances import MaintenanceSchedule
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.state.models import Instance, Node
from openrdb.state.models.hosts import LOCAL_HOST
from openrdb.state.secrets import Secrets
from openrdb.storage import open_store
from openrdb.storage.base import Store
from openrdb.storage.links import Links
from openrdb.system import process
from openrdb.system.addresses import family_of
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)


def installed_versions(settings: Settings) -> dict[str, str]:
    """Return the minor version of each installed engine version."""
    bundles = Bundles(settings.cache, settings.engine_aliases)
    return {name: bundle.version for name, bundle in bundles.installed().items()}


def require_binaries(settings: Settings) -> dict[str, str]:
    """Return what `installed_versions` does.

    Raises:
        HostError: there are none, or no load balancer's.
    """
    Bundles(settings.cache).haproxy()
    installed = installed_versions(settings)
    if not installed:
        raise HostError("no engine is installed: run `openrdb engines install`")
    return installed


def adopt_nodes(database: Database, host: Host, secrets: Secrets) -> None:
    """Tell the agent of nodes that it does not know, or not the volumes' sizes of: those that an older
    version made."""
    known = {node.node_id: node for node in host.nodes()}
    with database.read() as session:
        is_own = (Node.desired == "running") & (Node.role != "replica")
        running = list(session.scalars(select(Node.id).where(is_own)))
        for node_id in [one for one in running if one not in known or not known[one].volume_size]:
            node = session.get_one(Node, node_id)
            instance = session.get_one(Instance, node.instance_id)
            spec = desired.node_spec(instance, node, secrets)
            if node_id in known:
                host.ensure_volume_size(spec)
                continue
            host.adopt_node(spec, "running")
            for route in desired.routes(instance):
                host.ensure_route(route)


def open_stores(settings: Settings, secrets: Secrets, url: str) -> dict[Region, Store]:
    """Return each region's objects; `url` is the API's.

    Raises:
        HostError: the credentials of S3 are missing.
    """
    secret = secrets.derive("object links")
    base_url = settings.download_url or url
    return {
        region: open_store(settings.store_of(region), Links(secret, base_url, region))
        for region in REGIONS
    }


def listen(settings: Settings) -> socket.socket:
    """Return the API's socket.

    Raises:
        HostError: the port is in use, or the address not this machine's.
    """
    family = family_of(settings.listen_host)
    # The protocol by name: only then asyncio turns off Nagle's delay, which costs 44 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.listen_host, settings.listen_port))
    except OSError as error:
        listener.close()
        why = os.strerror(error.errno or errno.EIO).lower()
        raise HostError(f"cannot listen on {settings.listen}: {why}") from None
    listener.listen(BACKLOG)
    return listener


def serve(settings: Settings, started: Any) -> None:  # noqa: ANN401
    """Serve until SIGTERM or SIGINT; `started(credentials)` is called when requests are answered.

    Databases run on afterwards.

    Raises:
        HostError: something on this machine is in the way.
    """
    descriptors = process.prepare()
    require_safe(settings)
    for region in REGIONS:
        settings.store_of(region)  # refuses S3 without credentials before anything is started
    tls = Tls.of(settings)
    warnings = checks.require(settings)
    layout = Layout(settings.data_dir)
    data_directory.make(layout)
    with data_directory.exclusive(layout), contextlib.ExitStack() as ending:
        data_directory.require_whole(layout)
        data_directory.prepare_files(layout)
        installed = require_binaries(settings)
        listener = ending.enter_context(listen(settings))
        for warning in warnings:
            log.warning("%s: %s", warning.subject, warning.text)
        host = tls.client_host(settings.client_host) if tls else settings.client_host
        place = address_text((host, listener.getsockname()[1]))
        url = f"{'https' if tls else 'http'}://{place}"
        database = Database(settings.database_url)
        ending.callback(database.close)
        database.migrate()
        credentials = ensure_credentials(database, settings, url)
        secrets = open_secrets(database, layout.master_key)
        choose(settings.balancer, settings.public_address)  # refuses what cannot work here
        link = AgentLink(layout, AgentSettings.of(settings))
        ending.callback(link.close)
        state = link.open()
        reconcile(database, link.host)
        adopt_certificates(database, link.host, secrets)
        adopt_nodes(database, link.host, secrets)
        changes = Changes()
        hosts = {LOCAL_HOST: link.host}
        stores = open_stores(settings, secrets, url)
        services = Services(settings, database, hosts, changes, secrets, stores, build())
        operations = Operations(services)
        operations.launch()
        ending.callback(operations.close)
        offers = Offers(installed, settings.allow_disabled_engines)
        look = partial(installed_versions, settings)
        for schedule in (
            BackupSchedule(services, operations.start),
            MaintenanceSchedule(services, operations.start, offers, look),
        ):
            schedule.start()
            ending.callback(schedule.close)
        observer = NodeObserver(database, link.host, changes)
        observer.start(state)
        ending.callback(observer.close)
        metrics.watch(database, hosts)
        backend = Backend(
            settings,
            database,
            changes,
            offers,
            operations.start,
            operations.perform,
            hosts,
            secrets,
            stores,
        )
        server = Server(create_app(backend), tls, descriptors, lambda: started(credentials))
        server.run(sockets=[listener])
