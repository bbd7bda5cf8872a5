"""Downloads of objects in a directory, by the URLs that `storage/links.py` signs: no key is asked for.

S3 serves its own. A download has a thread only while it reads a chunk, of a few that nothing else
needs; a client that does not read is cut (`api/connections.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from functools import partial
from io import FileIO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from openrdb.api.common import CurrentBackend
from openrdb.api.lines import FairThreads, LineFull, Lines
from openrdb.errors import NotFound, ObjectMissing, OutOfStock
from openrdb.storage.directory import DirectoryStore
from openrdb.storage.links import PATH, disposition

router = APIRouter(include_in_schema=False)

_CHUNK = 2**18
_THREADS, _THREADS_OF_ONE = 4, 2
_DOWNLOADS, _DOWNLOADS_OF_ONE = 64, 16
"""At once, in all and of one object: each has a connection and an open file."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
"""A single one. Several are answered with everything, as RFC 9110 allows."""


class Downloads:
    """What all downloads of an application share."""

    def __init__(self) -> None:
        self.threads = FairThreads(_THREADS, _THREADS_OF_ONE)
        self.lines = Lines()


@router.api_route(f"{PATH}/{{region}}/{{key:path}}", methods=["GET", "HEAD"])
async def download_object(
    backend: CurrentBackend,
    request: Request,
    region: str,
    key: str,
    expires: str = "",
    filename: str = "",
    signature: str = "",
) -> Response:
    store = next((one for name, one in backend.stores.items() if name == region), None)
    if not isinstance(store, DirectoryStore):
        raise NotFound("path", request.url.path)
    store.check_link(key, expires, filename, signature)
    downloads: Downloads = request.app.state.downloads
    try:
        file = await downloads.threads.run(key, partial(store.open, key))
    except ObjectMissing:
        raise NotFound("object", key) from None
    found = os.fstat(file.fileno())
    size = found.st_size
    tag = f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{size:x}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
        "Content-Disposition": disposition(filename),
        "ETag": tag,
        "Last-Modified": formatdate(found.st_mtime, usegmt=True),
        "X-Content-Type-Options": "nosniff",
    }
    # A client that has the beginning of another object gets all of this one.
    is_same = request.headers.get("if-range", tag) == tag
    part = wanted_part(request.headers.get("range", "") if is_same else "", size)
    if not part and size:
        file.close()
        return Response(None, 416, {"Content-Range": f"bytes */{size}"})
    headers["Content-Length"] = str(len(part))
    status = 200
    if len(part) < size:
        status, headers["Content-Range"] = 206, f"bytes {part.start}-{part.stop - 1}/{size}"
    if request.method == "HEAD":
        file.close()
        return Response(None, status, headers, "application/octet-stream")
    return _Download(downloads, key, file, part, status, headers)


def wanted_part(header: str, size: int) -> range:
    """Return which bytes a `Range` asks for: none where it asks for what there is not."""
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or not any(found.groups()):
        return range(size)
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return range(size)  # is no range
    return range(int(first), min(size, int(last) + 1) if last else size)


class _Download(StreamingResponse):
    """Sends a part of a file, and closes the file whatever becomes of the client."""

    def __init__(
        self,
        downloads: Downloads,
        key: str,
        file: FileIO,
        part: range,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(self._chunks(), status, headers, "application/octet-stream")
        self._downloads, self._key, self._file, self._part = downloads, key, file, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn = self._downloads.lines.turn
        try:
            async with (
                turn(None, _DOWNLOADS, most=_DOWNLOADS),
                turn(self._key, _DOWNLOADS_OF_ONE, most=_DOWNLOADS_OF_ONE),
            ):
                await super().__call__(scope, receive, send)
        except LineFull:
            raise OutOfStock("download") from None
        finally:
            self._file.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        for start in range(self._part.start, self._part.stop, _CHUNK):
            count = min(_CHUNK, self._part.stop - start)
            read = partial(os.pread, self._file.fileno(), count, start)
            yield await self._downloads.threads.run(self._key, read)
