"""A real server of S3, which checks signatures and expiry: SeaweedFS, on ports of its own."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import Self

import httpx

from openrdb.spec import StoreSpec
from openrdb.storage.presigned import Access
from openrdb.storage.s3 import DEFAULT_REGION
from openrdb.system import files
from tests.support.service import wait_until
from tests.support.tls import write_pair

KEY_ID, SECRET = "AKIDTESTS", "a-secret-of-the-object-store"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
_PARTS = ("master", "volume", "filer", "s3")
_START = 60.0


class SeaweedFS:
    """Runs within its context; a bucket is there once something is put into it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        ports = iter(_free_ports(2 * len(_PARTS) + 1))
        self._ports = {name: next(ports) for name in _PARTS}
        self._ports_grpc = {name: next(ports) for name in _PARTS}
        self._port_tls = next(ports)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def endpoint_tls(self) -> str:
        """The same by TLS, with a certificate of the authority `ca`."""
        return f"https://127.0.0.1:{self._port_tls}"

    @property
    def ca(self) -> Path:
        return self._place / "ca.pem"

    def spec(self, bucket: str, prefix: str = "") -> StoreSpec:
        """Return the specification of a store in a bucket, with the right credentials."""
        return StoreSpec("s3", bucket, prefix, self.endpoint, environment=CREDENTIALS)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, also again after `kill`, and wait until it answers."""
        data, config = self._place / "data", self._place / "s3.json"
        data.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        if not self.ca.exists():
            write_pair(self._place, "127.0.0.1")
        config.write_text(json.dumps({"identities": [identity]}))
        ports = [
            part
            for name in _PARTS
            for part in (
                f"-{name}.port={self._ports[name]}",
                f"-{name}.port.grpc={self._ports_grpc[name]}",
            )
        ]
        command = [
            *(str(Path(sysconfig.get_path("scripts"), "weed")), "server"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", *ports),
            *("-filer", f"-filer.localSocket={data}/filer.sock"),
            *("-s3", f"-s3.config={config}", f"-s3.localSocket={data}/s3.sock", "-s3.iam=false"),
            *(f"-s3.cert.file={self._place}/cert.pem", f"-s3.key.file={self._place}/key.pem"),
            *(f"-s3.port.https={self._port_tls}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=100"),
        ]
        with (self._place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._place,
                env={"HOME": str(self._place), "TMPDIR": str(self._place)},
            )
        wait_until(self._answers, _START)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and bytes, as far as the kernel takes them, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        for name, port in self._ports_grpc.items():  # it takes no other place for these
            files.remove_file(Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock"))
        shutil.rmtree(self._place, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._place / "log").read_text()[-2000:]
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["s3"], timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def unfinished(spec: StoreSpec) -> list[str]:
    """Return what is left of puts that have not come to their end: uploads, or files."""
    if spec.kind == "directory":
        return [str(path) for path in Path(spec.location).glob(".partial/*")]
    region = spec.region or DEFAULT_REGION
    access = Access(spec.endpoint or "", region, KEY_ID, SECRET)
    query = {"uploads": "", "prefix": spec.prefix}
    answer = httpx.get(access.sign("GET", f"/{spec.location}", query, 60))
    return re.findall("<Upload>.*?<Key>(.*?)</Key>", answer.raise_for_status().text)
