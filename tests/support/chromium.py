"""A real Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.support.service import Service

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_NO_FAULTS = (
    "Failed to load resource",  # a page that says why it refuses has a status of its own
    *("htmx:sendAbort", "htmx:afterRequest"),  # a choice that a later one replaces
)
_SERIOUS = {"serious", "critical"}
_UNFOLDED = 4
PHONE: ViewportSize = {"width": 360, "height": 740}


def program() -> str:
    """Where it is; skips where it is not installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    path = program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser
        browser.close()


def faults(page: Page) -> list[str]:
    """Return what axe finds serious or critical on a page."""
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in _SERIOUS
    ]


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than the window."""
    width: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width


class Watched:
    """A window of a browser, which notes what its pages complain about and what they ask for."""

    def __init__(self, browser: Browser, service: Service, **options: Any) -> None:
        self.service = service
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self._note(said.type, said.text))
        self.page.on("request", lambda request: self.asked.add(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and not text.startswith(_NO_FAULTS):
            self.complaints.append(text)

    def open(self, path: str) -> Page:
        self.page.goto(self.service.url + path)
        return self.page

    def sign_in(self) -> Page:
        page = self.open("/console/login")
        page.get_by_label("Secret key").fill(self.service.secret_key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/instances")
        return page

    def unfold(self) -> None:
        """Open the first forms of the page that are closed."""
        for closed in self.page.locator("details > summary").all()[:_UNFOLDED]:
            closed.click()

    def faults(self) -> list[str]:
        """What axe finds serious or critical on the present page."""
        return faults(self.page)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return overflow(self.page)

    def close(self) -> None:
        self.context.close()
