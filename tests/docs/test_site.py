"""The site: built without a warning, as GitHub shows its texts, and working without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser
from tools.pages.links import PAGES

from tests.support import chromium
from tests.support.service import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")

_TAGS = ("h1", "h2", "h3", "h4", "ul", "ol", "li", "table", "tr", "pre", "strong", "em")
"""What both sides make of a text's structure."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; the build ends with an error at any warning."""
    made = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "-q", "--site-dir", str(made)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.launched() as browser:
        yield browser


def _sources() -> dict[str, Path]:
    """The pages that are somebody's text, by their places in the site."""
    docs = ROOT / "docs"
    own = {str(path.relative_to(docs)): path for path in docs.rglob("*.md")}
    return own | {page: ROOT / source for source, page in PAGES.items()}


@pytest.mark.parametrize("page", sorted(_sources()))
def test_a_page_has_the_structure_of_its_text(site: Path, page: str) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    wanted = _tags(reader.render(_sources()[page].read_text()))
    html = site.joinpath(page).with_suffix(".html").read_text()
    assert _tags(html[html.index("<article") : html.index("</article>")]) == wanted


def _tags(html: str) -> dict[str, int]:
    found = Counter(re.findall(r"<(\w+)[ >]", html))
    return {tag: found[tag] for tag in _TAGS}


def test_nothing_of_another_host_is_asked_for(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, images and fonts may not."""
    for path in site.rglob("*.html"):
        asked = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", path.read_text())
        asked += re.findall(r"<link[^>]* href=\"?([^\" >]+)", path.read_text())
        assert [one for one in asked if re.match(r"(https?:)?//", one)] == [], path


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_from_the_file_system(site: Path, browser: Browser, width: int, scheme: str) -> None:
    window = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = window.new_page()
    page.set_default_timeout(30_000)
    asked, complaints = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for name in ("index.html", "tutorials/local.html", "reference/settings.html", "figures.html"):
        page.goto(f"{site.as_uri()}/{name}")
        assert chromium.overflow(page) <= 0, name
        if name.startswith("tutorials"):
            assert chromium.faults(page) == []
    colours = page.evaluate("document.body.dataset.mdColorScheme")
    assert colours == {"light": "default", "dark": "slate"}[scheme]
    if width > 1000:
        page.get_by_placeholder("Search").fill("backups_at_once")
        found = page.locator(".md-search-result__item a").first
        found.wait_for()
        assert "reference/settings.html" in (found.get_attribute("href") or "")
    window.close()
    # Without a server, the search runs in a frame, and each of its scripts is a file.
    assert {one.partition(":")[0] for one in asked} <= {"file", "data", "blob", "about"}
    assert complaints == []
