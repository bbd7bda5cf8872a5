"""URLs that carry their request's signature (AWS Signature Version 4, in the query).

The library signs URLs itself, but not with the name under which a download is saved, and it knows
nothing of unfinished uploads.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Access:
    """Where a provider's S3 is, and as whom it is asked."""

    endpoint: str
    region: str
    key_id: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def sign(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        seconds: int,
        now: datetime | None = None,
    ) -> str:
        """Return the URL of a request that anybody can make for so many seconds, up to a week.

        Args:
            path: with the bucket, not quoted.
            now: when the signature begins to be valid.
        """
        stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        signed = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.key_id}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        if self.session_token:
            signed["X-Amz-Security-Token"] = self.session_token
        pairs = sorted(
            (quote(name, safe=""), quote(text, safe="")) for name, text in signed.items()
        )
        arguments = "&".join(f"{name}={text}" for name, text in pairs)
        place = quote(path)
        host = urlsplit(self.endpoint).netloc.removesuffix(self._usual_port)
        request = "\n".join(
            [method, place, arguments, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"]
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = "\n".join([_ALGORITHM, stamp, scope, digest])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        return f"{self.endpoint}{place}?{arguments}&X-Amz-Signature={signature}"

    @property
    def _usual_port(self) -> str:
        """What no client sends in `Host`."""
        return ":443" if self.endpoint.startswith("https:") else ":80"
