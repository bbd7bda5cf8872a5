"""Pages from their templates."""

from __future__ import annotations

import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from openrdb import __version__
from openrdb.console import charts, formats, remedies

_HASH_DIGITS = 16


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("openrdb.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        size=formats.size,
        moment=formats.moment,
        day=formats.day,
        choices=formats.choices,
        node_types=formats.node_types,
        tone=formats.tone,
        words=formats.words,
        engine=formats.engine,
        metric=formats.metric,
        switch=formats.switch,
        pretty=formats.pretty,
        chart=charts.chart,
        remedy=remedies.of_copy,
    )
    made.tests["ahead"] = formats.is_ahead
    made.globals["version"] = __version__
    made.globals["ui"] = made.get_template("ui.html").module
    return made


_templates = _environment()


def render(name: str, /, **values: Any) -> Markup:  # noqa: ANN401
    """Return a page, or a part of one; every value is escaped unless it is markup already."""
    return Markup(_templates.get_template(name).render(values))  # noqa: S704


def fingerprint(*parts: str) -> str:
    """Return what says whether a part of a page has changed since it was shown."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH_DIGITS]
