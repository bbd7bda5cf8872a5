"""The web console as a browser without scripts uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html import unescape
from html.parser import HTMLParser
from typing import Any, Protocol
from uuid import UUID

import requests
from sqlalchemy.orm import Session

from openrdb.state import access
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.models import Project
from tests.support.service import Service

FIRST = "/console/fr-par/instances"


class Served(Protocol):
    """What serves the console: a whole service, or the API within the tests' process."""

    @property
    def url(self) -> str: ...

    @property
    def secret_key(self) -> str: ...


class Browser:
    """Keeps the cookies, and sends forms as their pages have them."""

    def __init__(self, service: Served) -> None:
        self.service = service
        self.session = requests.Session()
        self._token = ""

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.service.url + path, timeout=60, **options)

    def post(self, path: str, fields: dict[str, str], **options: Any) -> requests.Response:
        return self.session.post(self.service.url + path, fields, timeout=60, **options)

    def sign_in(self, key: str | None = None) -> requests.Response:
        token = token_of(self.get("/console/login"))
        fields = {"csrf": token, "secret_key": key or self.service.secret_key}
        return self.post("/console/login", fields)

    def send(self, page: str, action: str, **fields: str) -> requests.Response:
        """Send a form of a page, with the token that the session's pages have."""
        self._token = self._token or token_of(self.get(page))
        return self.post(f"{page}/{action}", {"csrf": self._token, "form": action, **fields})


@contextmanager
def state_of(service: Service) -> Iterator[Session]:
    """The state, to be changed as if something had happened."""
    database = Database(f"sqlite:///{service.data_dir}/state.sqlite")
    with closing(database), database.write() as session:
        yield session


def new_key(service: Service, *, project_id: str | None = None, read_only: bool = False) -> NewKey:
    """A key of the whole organization, or of a project."""
    with state_of(service) as session:
        default = access.default_project(session)
        project = session.get(Project, UUID(project_id)) if project_id else default
        assert project is not None
        return access.create_key(
            session, project, whole_organization=project_id is None, read_only=read_only
        )


def token_of(page: requests.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page.text[:2000]
    return unescape(found[1])


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def text_of(page: requests.Response) -> str:
    """What is to be read on a page, its spaces shortened."""
    parser = _Texts()
    parser.feed(page.text)
    return " ".join(" ".join(parser.said).split())
