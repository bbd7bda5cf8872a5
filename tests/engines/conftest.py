"""A bundle's template, made once for the tests of a version."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.engines import engine_of
from openrdb.host import accounts
from openrdb.host.bundles import Bundle, Bundles

SECRET = "a-secret-of-the-tests"


@pytest.fixture
def bundle(cache: Path, engine: str) -> Bundle:
    return Bundles(cache).find(engine)


@pytest.fixture
def template(bundle: Bundle, engine: str, short_tmp: Path) -> Iterator[Path]:
    data = short_tmp / "template"
    engine_of(engine).make_template(bundle, data, accounts.template_account(), SECRET)
    yield data
    shutil.rmtree(data)
