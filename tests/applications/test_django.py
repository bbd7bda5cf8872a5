"""Django: migrations with the extensions of `contrib.postgres`, and its own test runner."""

from __future__ import annotations

from pathlib import Path

from tests.support.applications.fetching import PyPI, fetched
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, filled, on, run

NEEDS = (PyPI(("Django==5.2.19", "psycopg[binary]==3.3.9", "PyMySQL==1.2.4", "cryptography")),)

_SETTINGS = """
import os
SECRET_KEY, USE_TZ, DEFAULT_AUTO_FIELD = "s", True, "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "@MORE@", "shop",
]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.@BACKEND@", "NAME": "@DATABASE@",
    "HOST": "@HOST@", "PORT": "@PORT@",
    "USER": os.environ["AS_USER"], "PASSWORD": os.environ["AS_PASSWORD"],
    "OPTIONS": @OPTIONS@,
}}
if "@BACKEND@" == "mysql":
    import pymysql
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
"""
_MODELS = """
from django.db import models
class Thing(models.Model):
    name = models.CharField(max_length=50, unique=True)
    data = models.JSONField(default=dict)
class Part(models.Model):
    thing = models.ForeignKey(Thing, on_delete=models.CASCADE)
"""
_EXTENSIONS = """
from django.contrib.postgres import operations as o
from django.db import migrations
class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        o.BtreeGinExtension(), o.BtreeGistExtension(), o.CITextExtension(), o.CryptoExtension(),
        o.HStoreExtension(), o.TrigramExtension(), o.UnaccentExtension(),
        o.CreateCollation("german", provider="@PROVIDER@", locale="@LOCALE@"),
    ]
"""
_SEARCH = """
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0002_initial")]
    operations = [AddIndexConcurrently("thing", GinIndex(
        fields=["name"], name="by_name", opclasses=["gin_trgm_ops"]))]
"""
_IMPORTED = "from django.contrib.postgres.indexes import GinIndex"
_INDEXED = """
    class Meta:
        indexes = [GinIndex(fields=["name"], name="by_name", opclasses=["gin_trgm_ops"])]
class Part"""
_TESTS = """
from django.db import connection
from django.test import TestCase, TransactionTestCase
from shop.models import Part, Thing
class Stored(TestCase):
    def test_rows(self):
        Part.objects.create(thing=Thing.objects.create(name="chair", data={"legs": [4]}))
        self.assertEqual(Thing.objects.get(data__legs__0=4).part_set.count(), 1)
class Flushed(TransactionTestCase):
    serialized_rollback = True
    def test_rows(self):
        Thing.objects.create(name="table")
        self.assertTrue(connection.settings_dict["NAME"].startswith("test_"))
class OnlyPostgreSQL(TestCase):
    def test_search(self):
        if connection.vendor != "postgresql": self.skipTest("no trigrams")
        Thing.objects.create(name="Élan")
        self.assertTrue(Thing.objects.filter(name__unaccent="Elan").exists())
        self.assertTrue(Thing.objects.filter(name__trigram_similar="Élam").exists())
"""
_SHOWN = (
    "from shop.models import *; print('found', Thing.objects.get(data__legs=4).part_set.count())"
)
_FILLED = """
from shop.models import *
Part.objects.create(thing=Thing.objects.create(name='chair', data={'legs': 4}))
from django.contrib.auth.models import User
User.objects.create_superuser('root', password='a-Long-one-7')
"""


def _project(place: Path, tenancy: Tenancy) -> None:
    login = tenancy.app
    tls = {"sslmode": "verify-full", "sslrootcert": str(login.certificate)}
    options = tls if tenancy.is_postgresql else {"ssl": {"ca": str(login.certificate)}}
    settings = filled(
        _SETTINGS,
        BACKEND="postgresql" if tenancy.is_postgresql else "mysql",
        MORE="django.contrib.postgres" if tenancy.is_postgresql else "django.contrib.humanize",
        DATABASE=login.database,
        HOST=login.host,
        PORT=login.port,
        OPTIONS=options,
    )
    migrations = place / "shop" / "migrations"
    migrations.mkdir(parents=True)
    for name in ("__init__.py", "migrations/__init__.py"):
        (place / "shop" / name).touch()
    (place / "settings.py").write_text(settings)
    (place / "shop" / "models.py").write_text(_MODELS)
    (place / "shop" / "tests.py").write_text(_TESTS)
    if tenancy.is_postgresql:
        text = filled(_EXTENSIONS, PROVIDER="libc", LOCALE="C.UTF-8")
        (migrations / "0001_extensions.py").write_text(text)


@on(*POSTGRESQL, *MYSQL)
def test_django(tenancy: Tenancy, tmp_path: Path) -> None:
    """By the application's own user; its test runner too, once an administrator has let it."""
    python = fetched(NEEDS[0]) / "bin" / "python"
    _project(tmp_path, tenancy)

    def django(*arguments: str, user: str = tenancy.app.user, given: str = "") -> str:
        password = {tenancy.app.user: tenancy.app.password}.get(user, tenancy.admin.password)
        environment = {"AS_USER": user, "AS_PASSWORD": password, "PYTHONPATH": str(tmp_path)}
        command = [python, "-m", "django", *arguments, "--settings=settings"]
        return run(command, cwd=tmp_path, environment=environment, given=given)

    django("makemigrations", "shop", "--name=initial")
    if tenancy.is_postgresql:
        (tmp_path / "shop/migrations/0003_search.py").write_text(_SEARCH)
        models = _MODELS.replace("class Part", _INDEXED)
        (tmp_path / "shop/models.py").write_text(f"{_IMPORTED}{models}")
    django("migrate", "--verbosity=1")
    django("shell", "--command", _FILLED)
    assert "found 1" in django("shell", "--command", _SHOWN)
    assert tenancy.count("SELECT COUNT(*) FROM auth_user WHERE is_superuser") == 1
    assert "No changes detected" in django("makemigrations", "--check", "--dry-run")
    assert "shop_thing" in django("inspectdb")
    # The runner creates `test_…` and drops it: as the administrator as it is, as the user when let.
    said = django("test", "--noinput", "--verbosity=2", user="admin")
    assert "Destroying test database" in said
    assert "\nOK" in said
    with tenancy.as_admin() as session:
        if tenancy.is_postgresql:
            session.execute(f"ALTER ROLE {tenancy.app.user} CREATEDB")
            session.execute(f"GRANT CONNECT ON DATABASE postgres TO {tenancy.app.user}")
        else:
            session.execute(f"GRANT ALL ON test_{tenancy.name}.* TO {tenancy.app.user}")
    assert "\nOK" in django("test", "--noinput", "--parallel=1")
    with tenancy.as_admin() as session:
        assert f"test_{tenancy.name}" not in tenancy.admin.tenant.databases_seen(session)
    django("migrate", "shop", "zero", "--verbosity=1")
