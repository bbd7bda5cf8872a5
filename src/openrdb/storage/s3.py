"""Objects in a bucket of S3, or of what speaks its protocol."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import ssl
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.etree import ElementTree

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError
from obstore.store import S3Store

from openrdb.errors import ObjectMissing, StoreUnavailable
from openrdb.spec import StoreSpec
from openrdb.storage.base import Stored, StoredObject, check_key
from openrdb.storage.links import disposition
from openrdb.storage.presigned import Access

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

log = logging.getLogger(__name__)

DEFAULT_REGION = "us-east-1"
"""What servers of one's own expect where they are told nothing else."""
_MEBIBYTE = 2**20
_PART = 8 * _MEBIBYTE
_MOST_PARTS = 1000
"""Of an upload, with some providers; others allow ten times as many."""
_PARTS_AT_ONCE = 4
_IN_MEMORY = 64 * _MEBIBYTE
"""Of parts under way, as long as one part is smaller."""
_LARGEST_PART = 256 * _MEBIBYTE
"""Above it parts become more instead: memory is worth more than providers that take so few."""
RETRIES: RetryConfig = {
    "max_retries": 1000,
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 3,
    },
}
_AWAY = timedelta(minutes=1)
"""How long a store may be away; twice the time that a request may take, if that is less."""
_UPLOADS_TIMEOUT = 30.0
_MOST_PAGES = 100
_NOT_ALLOWED = (403, 405, 501)
_SAID = re.compile(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", re.DOTALL)
_STATUS = re.compile(r"status code: (\d+ [\w ]+)")
_CONNECTION = re.compile(r"HTTP error: ([\w ]+)")


class BucketStore:
    """A store in a bucket, whose keys come after the specification's prefix."""

    def __init__(self, spec: StoreSpec) -> None:
        region = spec.region or DEFAULT_REGION
        self._bucket, self._prefix = spec.location, spec.prefix
        self._authorities, self._timeout = _authorities(spec), spec.timeout
        self._access = Access(
            endpoint=(spec.endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            region=region,
            key_id=_required(spec, "AWS_ACCESS_KEY_ID"),
            secret=_required(spec, "AWS_SECRET_ACCESS_KEY"),
            session_token=spec.environment.get("AWS_SESSION_TOKEN") or None,
        )
        # The library also reads variables of the process's environment: none of those that lead it
        # elsewhere may be left to it.
        config: S3Config = {
            "aws_endpoint_url_s3": self._access.endpoint,
            "region": region,
            "virtual_hosted_style_request": False,
            "skip_signature": False,
        }
        self._store = S3Store(
            self._bucket,
            prefix=self._prefix or None,
            config=config,
            client_options=self._client_options(),
            retry_config=self._retries(),
            credential_provider=self._credentials,
        )

    def _retries(self) -> RetryConfig:
        return {**RETRIES, "retry_timeout": min(_AWAY, timedelta(seconds=2 * self._timeout))}

    def _client_options(self) -> ClientConfig:
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=self._timeout),
            "allow_http": self._access.endpoint.startswith("http:"),
        }
        if self._authorities:
            options["root_certificate"] = self._authorities
        return options

    def _credentials(self) -> S3Credential:
        return {
            "access_key_id": self._access.key_id,
            "secret_access_key": self._access.secret,
            "token": self._access.session_token,
            "expires_at": None,
        }

    def put(self, key: str, chunks: Iterator[bytes], at_most: int = 0) -> Stored:
        check_key(key)
        part = min(max(_PART, -(-at_most // (_MOST_PARTS - 1))), _LARGEST_PART)
        measured = _Measured(chunks)
        try:
            obstore.put(
                self._store,
                key,
                measured,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=max(1, min(_PARTS_AT_ONCE, _IN_MEMORY // part)),
            )
        except Exception as error:
            if measured.failure is not None:
                raise measured.failure from None
            raise self._explained("write to", error) from None
        return Stored(measured.size, measured.checksum.hexdigest())

    def get(self, key: str) -> Iterator[bytes]:
        check_key(key)
        try:
            found = obstore.head(self._store, key)
        except FileNotFoundError:
            raise self._missing(key) from None
        except (BaseError, OSError) as error:
            raise self._explained("read from", error) from None
        return self._chunks(key, found["size"], found["e_tag"])

    def _chunks(self, key: str, size: int, tag: str | None) -> Iterator[bytes]:
        # A request a chunk: servers cut connections whose readers are slow, and a restore is.
        for start in range(0, size, _PART):
            try:
                answer = obstore.get(
                    self._store,
                    key,
                    options={"range": (start, min(start + _PART, size)), "if_match": tag},
                )
                chunk = answer.bytes().to_bytes()
            except FileNotFoundError:
                raise self._missing(key) from None
            except (BaseError, OSError) as error:
                raise self._explained("read from", error) from None
            yield chunk

    def _missing(self, key: str) -> ObjectMissing | StoreUnavailable:
        """Return what is meant by 404: the answer to HEAD does not say whether there is a bucket."""
        try:
            next(iter(obstore.list(self._store, chunk_size=1)), None)
        except (BaseError, OSError) as error:
            return self._explained("read from", error)
        return ObjectMissing(f"there is no object {key}")

    def list(self, prefix: str) -> list[StoredObject]:
        try:
            found = obstore.list(self._store, check_key(prefix) if prefix else None).collect()
        except (BaseError, OSError) as error:
            raise self._explained("read from", error) from None
        objects = (StoredObject(one["path"], one["size"], one["last_modified"]) for one in found)
        return sorted(objects, key=lambda one: one.key)

    def delete(self, key: str) -> None:
        check_key(key)
        self._abort_uploads(key)
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._explained("delete from", error) from None

    def sign(self, key: str, seconds: int, filename: str) -> str:
        query = {"response-content-disposition": disposition(filename)}
        return self._access.sign("GET", self._path(check_key(key)), query, seconds)

    # -- uploads that a killed put has left --------------------------------------------------------

    def _abort_uploads(self, key: str) -> None:
        """Abort what obstore cannot list; a bucket's owner pays for it until then."""
        whole = self._whole(key)
        for _ in range(_MOST_PAGES):
            query = {"uploads": "", "prefix": whole}
            status, body = self._request("GET", f"/{self._bucket}", query)
            if status in _NOT_ALLOWED:
                log.warning("unfinished uploads stay in bucket %s: %d", self._bucket, status)
                return
            if status != HTTPStatus.OK:
                raise self._refused("delete from", _reason(body) or str(status))
            uploads = [upload for name, upload in _uploads(body) if name == whole]
            if not uploads:
                return
            for upload in uploads:
                self._request("DELETE", self._path(key), {"uploadId": upload})

    def _path(self, key: str) -> str:
        return f"/{self._bucket}/{self._whole(key)}"

    def _whole(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _request(self, method: str, path: str, query: dict[str, str]) -> tuple[int, str]:
        timeout = min(_UPLOADS_TIMEOUT, self._timeout)
        url = urlsplit(self._access.sign(method, path, query, int(_UPLOADS_TIMEOUT)))
        if url.scheme == "https":
            context = ssl.create_default_context()
            if self._authorities:
                context.load_verify_locations(cadata=self._authorities)
            connection: HTTPConnection = HTTPSConnection(
                url.netloc, timeout=timeout, context=context
            )
        else:
            connection = HTTPConnection(url.netloc, timeout=timeout)
        with contextlib.closing(connection):
            try:
                connection.request(method, f"{url.path}?{url.query}")
                answer = connection.getresponse()
                return answer.status, answer.read().decode(errors="replace")
            except (OSError, HTTPException) as error:
                raise self._explained("delete from", error) from None

    # -- errors ------------------------------------------------------------------------------------

    def _explained(self, action: str, error: Exception) -> StoreUnavailable:
        return self._refused(action, _why(error))

    def _refused(self, action: str, why: str) -> StoreUnavailable:
        where = f"bucket {self._bucket} of {self._access.endpoint}"
        return StoreUnavailable(f"cannot {action} {where}: {why}")


class _Measured:
    """An iterator whose bytes are counted and hashed as they pass, and whose failure is kept: the
    library tells it from its own only by the type."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.size = 0
        self.checksum = hashlib.sha256()
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            raise
        except BaseException as error:
            self.failure = error
            raise
        self.size += len(chunk)
        self.checksum.update(chunk)
        return chunk


def _required(spec: StoreSpec, name: str) -> str:
    value = spec.environment.get(name)
    if not value:
        raise StoreUnavailable(f"bucket {spec.location} needs {name} in the environment")
    return value


def _authorities(spec: StoreSpec) -> str | None:
    """Return the certificates of authorities that are trusted besides the system's, as PEM."""
    path = spec.environment.get("AWS_CA_BUNDLE")
    if not path:
        return None
    try:
        text = Path(path).read_text()
        ssl.create_default_context().load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"AWS_CA_BUNDLE: cannot read {path}: {error}") from None
    return text


def _uploads(body: str) -> Iterator[tuple[str, str]]:
    """Yield key and id of each upload in the answer of `GET ?uploads`."""
    for upload in ElementTree.fromstring(body).iterfind("{*}Upload"):  # noqa: S314
        yield upload.findtext("{*}Key", ""), upload.findtext("{*}UploadId", "")


def _why(error: Exception) -> str:
    """Return what the library says, without where in its code it says it, in one line."""
    text = str(error)
    if isinstance(error, PreconditionError):
        return "the object was replaced while it was read"
    if said := _reason(text):
        return said
    if isinstance(error, PermissionDeniedError):
        return "permission denied (403)"
    for pattern in (_STATUS, _CONNECTION):
        if found := pattern.search(text):
            return found[1].strip().lower()
    return (text.splitlines() or [type(error).__name__])[0][:200]


def _reason(body: str) -> str | None:
    """Return code and message of an answer of S3, if it has them."""
    found = _SAID.search(body)
    if found is None:
        return None
    return f"{found[2]} ({found[1]})" if found[2] else found[1]
