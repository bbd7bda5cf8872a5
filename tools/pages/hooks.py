"""What MkDocs calls while it builds the site: pages that are no files of `docs`, links, Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.pages import commands, engines, operations, settings
from tools.pages.links import PAGES, ROOT, linked
from tools.pages.markdown import converted

GENERATED = {
    "reference/settings.md": settings.page,
    "reference/commands.md": commands.page,
    "reference/api.md": operations.page,
    "reference/engines.md": engines.page,
}
_SOURCES = {page: source for source, page in PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, make in GENERATED.items():
        files.append(File.generated(config, path, content=make()))
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    path = page.file.src_uri
    return converted(linked(markdown, _SOURCES.get(path, f"docs/{path}"), path))


def on_post_page(output: str, **_: object) -> str:
    """Name the theme's dialog for those who hear the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
