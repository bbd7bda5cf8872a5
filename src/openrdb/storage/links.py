"""URLs from which anybody can download an object of a directory for a while: signed, and expiring.

The API serves them (`api/objects.py`). They are like those that S3 signs: the object's key is the
path, and the query has the expiry, the name of the file and an HMAC of all of it.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from openrdb.errors import PermissionsDenied
from openrdb.storage.base import check_key

PATH = "/objects"
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]", re.ASCII)


@dataclass(frozen=True)
class Links:
    """Makes and checks the URLs of one region's objects."""

    secret: bytes = field(repr=False)
    base_url: str
    """The API's."""
    region: str

    def sign(self, key: str, seconds: int, filename: str) -> str:
        expires = str(int(time.time()) + seconds)
        signature = self._signature(key, expires, filename)
        query = urlencode({"expires": expires, "filename": filename, "signature": signature})
        return f"{self.base_url}{PATH}/{self.region}/{check_key(key)}?{query}"

    def check(self, key: str, expires: str, filename: str, signature: str) -> None:
        """Check what a URL has.

        Raises:
            PermissionsDenied: it was not signed by us, was altered, or has expired.
        """
        right = self._signature(key, expires, filename)
        # Only what we have signed is a number.
        is_signed = hmac.compare_digest(right.encode(), signature.encode(errors="replace"))
        if not is_signed or int(expires) <= time.time():
            raise PermissionsDenied("read", "object")

    def _signature(self, key: str, expires: str, filename: str) -> str:
        signed = json.dumps([self.region, key, expires, filename])
        return hmac.digest(self.secret, signed.encode(), "sha256").hex()


def disposition(filename: str) -> str:
    """Return the `Content-Disposition` by which clients save a download under a name (RFC 6266)."""
    name = _NOT_IN_NAMES.sub("_", filename)
    plain = _NOT_PLAIN.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
