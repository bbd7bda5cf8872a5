"""WordPress and MediaWiki, as Debian has them: installed by their own programs, written to and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.applications.fetching import Debian, fetched
from tests.support.applications.programs import libraries, php
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, filled, on, run
from tests.support.tenants import Login

_WORDPRESS = Debian(("wordpress", "php-cli", "php-mysql"))
_MEDIAWIKI = Debian(("mediawiki", "php-cli", "php-intl", "php-mysql", "php-pgsql"))
NEEDS = (_WORDPRESS, _MEDIAWIKI)
_INSTALLED = """<?php
define('DB_NAME', '@DATABASE@'); define('DB_USER', '@USER@'); define('DB_PASSWORD', '@PASSWORD@');
define('DB_HOST', '@HOST@:@PORT@'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');
define('MYSQL_CLIENT_FLAGS', MYSQLI_CLIENT_SSL);
define('WP_INSTALLING', @FIRST@); define('ABSPATH', '@PLACE@/'); define('WP_DEBUG', true);
define('WP_SITEURL', 'http://shop.example'); define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
$table_prefix = 'wp_';
$_SERVER += ['HTTP_HOST' => 'shop.example', 'REQUEST_METHOD' => 'GET', 'REQUEST_URI' => '/'];
function wp_mail() { return true; }
require ABSPATH . 'wp-settings.php';
if (WP_INSTALLING) {
  require ABSPATH . 'wp-admin/includes/upgrade.php';
  wp_install('Shop', 'root', 'root@shop.example', true, '', 'A-long-one-7');
  echo "installed\\n";
} else {
  $id = wp_insert_post(['post_title' => 'Chairs 🪑', 'post_content' => 'four legs',
                        'post_status' => 'publish'], true);
  $found = new WP_Query(['s' => 'legs']);
  echo $found->post->post_title, ' by ', wp_authenticate('root', 'A-long-one-7')->user_login, "\\n";
}
"""


@on(*MYSQL)
def test_wordpress(tenancy: Tenancy, tmp_path: Path) -> None:
    place, login = fetched(_WORDPRESS), tenancy.app

    def wordpress(first: str) -> str:
        script = filled(
            _INSTALLED,
            DATABASE=login.database,
            USER=login.user,
            PASSWORD=login.password,
            HOST=login.host,
            PORT=login.port,
            PLACE=place / "usr/share/wordpress",
            FIRST=first,
        )
        (tmp_path / "run.php").write_text(script)
        return run([*php(place), "run.php"], cwd=tmp_path, environment=libraries(place))

    assert "installed" in wordpress("true")
    assert "Chairs 🪑 by root" in wordpress("false")
    assert tenancy.count("SELECT COUNT(*) FROM wp_posts WHERE post_title LIKE 'Chairs%'") == 1


@pytest.fixture
def wiki(tenancy: Tenancy, tmp_path: Path) -> Callable[..., str]:
    """Runs a maintenance script of MediaWiki's."""
    place = fetched(_MEDIAWIKI)
    trusted = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(tenancy.app.certificate)}
    environment = libraries(place) | trusted

    def ran(script: str, *arguments: str, given: str = "") -> str:
        found = place / "usr/share/mediawiki/maintenance" / f"{script}.php"
        settings = tmp_path / "LocalSettings.php"
        told = {"MW_CONFIG_FILE": str(settings)} if settings.exists() else {}
        command = [*php(place), found, *arguments]
        return run(command, cwd=tmp_path, environment=environment | told, given=given)

    return ran


def _install(wiki: Callable[..., str], tenancy: Tenancy, place: Path, by: Login, user: str) -> None:
    kind = "postgres" if tenancy.is_postgresql else "mysql"
    server = ["--dbserver", by.host, "--dbport", str(by.port)]
    if not tenancy.is_postgresql:
        server = ["--dbserver", f"{by.host}:{by.port}", "--dbssl"]
    said = wiki(
        *("install", "--dbtype", kind, *server, "--dbname", by.database),
        *("--installdbuser", by.user, "--installdbpass", by.password),
        *("--dbuser", user, "--dbpass", tenancy.app.password),
        *("--confpath", str(place), "--pass", "A-long-one-7", "--server", "http://wiki.example"),
        *("--scriptpath", "", "Shop", "Root"),
    )
    assert "MediaWiki has been successfully installed" in said, said
    wiki("edit", "--user", "Root", "Chairs", given="four [[legs]] 🪑")
    wiki("runJobs")
    assert "Done in" in wiki("update", "--quick")
    assert "four [[legs]] 🪑" in wiki("getText", "Chairs")


@on(*POSTGRESQL, *MYSQL)
def test_mediawiki(tenancy: Tenancy, tmp_path: Path, wiki: Callable[..., str]) -> None:
    """In a database that is there, by its user alone."""
    _install(wiki, tenancy, tmp_path, tenancy.app, tenancy.app.user)
    with tenancy.as_app() as session:
        table = "mediawiki.page" if tenancy.is_postgresql else "page"
        query = f"SELECT COUNT(*) FROM {table} WHERE page_title = 'Chairs'"
        assert session.execute(query).fetchone() == (1,)


@on(*POSTGRESQL, *MYSQL)
def test_mediawiki_makes_its_user(
    tenancy: Tenancy, tmp_path: Path, wiki: Callable[..., str]
) -> None:
    """The database and the user are made by its installer, as the administrator."""
    made, user = f"{tenancy.name}_d", f"{tenancy.name}_u"
    by = replace(tenancy.admin, database=made)
    _install(wiki, tenancy, tmp_path, by, user)
    sdk, where = tenancy.service.sdk(), {"instance_id": tenancy.instance.id}
    users = {one.name: one.is_admin for one in sdk.list_users_all(**where)}
    assert users[user] is False
    assert made in {one.name for one in sdk.list_databases_all(**where)}
    sdk.delete_database(**where, name=made)
    sdk.delete_user(**where, name=user)
