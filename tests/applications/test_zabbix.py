"""Zabbix: the schema, images and data of its server, as its manual has them loaded."""

from __future__ import annotations

import gzip

from tests.support.applications.fetching import Debian, fetched
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, on

_OF_POSTGRESQL, _OF_MYSQL = Debian(("zabbix-server-pgsql",)), Debian(("zabbix-server-mysql",))
NEEDS = (_OF_POSTGRESQL, _OF_MYSQL)


@on(*POSTGRESQL, *MYSQL)
def test_zabbix(tenancy: Tenancy) -> None:
    place = fetched(_OF_POSTGRESQL if tenancy.is_postgresql else _OF_MYSQL)
    scripts = {one.name.partition(".")[0]: one for one in place.glob("usr/share/zabbix-*/*.sql.gz")}
    if tenancy.is_postgresql:
        client = ("psql", tenancy.app, "--quiet", "--set=ON_ERROR_STOP=1")
    else:
        tenancy.set("log_bin_trust_function_creators", "ON")  # for triggers, as its manual says
        client = ("mysql", tenancy.app, "--default-character-set=utf8mb4", tenancy.name)
    for name in ("schema", "images", "data"):
        text = gzip.decompress(scripts[name].read_bytes()).decode()
        tenancy.client(*client, given=text)
    assert tenancy.count("SELECT COUNT(*) FROM users") == 2
    assert tenancy.count("SELECT COUNT(*) FROM images") > 100
    assert tenancy.count("SELECT COUNT(*) FROM items") > 1000
    if not tenancy.is_postgresql:  # what a trigger wrote
        assert tenancy.count("SELECT COUNT(*) FROM hosts WHERE name_upper = 'ZABBIX SERVER'") == 1
    host = "SELECT COUNT(*) FROM hosts h JOIN interface i ON i.hostid = h.hostid WHERE host = '{}'"
    assert tenancy.count(host.format("Zabbix server")) == 1
