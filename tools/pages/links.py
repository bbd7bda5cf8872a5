"""Links within the repository, made links within the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "tests/README.md": "project/tests.md",
    "bench/RESULTS.md": "figures.md",
}
"""Files of the repository outside `docs` that are pages of the site, by their paths."""

_LINK = re.compile(r"\[([^\[\]]+)\]\(([^()\s]+)\)")
_FENCED = re.compile(r"(^ *(```+).*?^ *\2 *$)", re.MULTILINE | re.DOTALL)


def linked(text: str, source: str, page: str) -> str:
    """Return Markdown with links that lead to pages of the site.

    A link to a file that the site does not have becomes its text: where the repository is published
    is not known here. One to nothing at all stays as it is, so that the strict build names it.

    Args:
        source: The path of the file in the repository, which links are relative to.
        page: The path of its page in the site.
    """

    def replaced(link: re.Match[str]) -> str:
        shown, target = link.groups()
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        path, hash_, anchor = target.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        to = PAGES.get(wanted)
        if to is None and wanted.startswith("docs/"):
            to = wanted.removeprefix("docs/")
        elif to is None and (ROOT / wanted).exists():
            return shown
        if to is None:
            return link[0]
        relative = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"[{shown}]({relative}{hash_}{anchor})"

    parts = _FENCED.split(text)
    # Each block of code is there twice: the whole, and the marks around it.
    return "".join(
        one if number % 3 else _LINK.sub(replaced, one)
        for number, one in enumerate(parts)
        if number % 3 != 2
    )
