"""`openrdb serve` as it is begun and ended by hand, in environments that would lead it astray."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import Service, ports_of_worker, wait_until

_NOWHERE = "127.9.9.9"
_FOREIGN = {
    "PGHOSTADDR": _NOWHERE,
    "PGSERVICE": "nonsense",
    "PGOPTIONS": "-c nonsense=1",
    "PGPASSFILE": "/nowhere",
    "PGSSLMODE": "verify-full",
    "MYSQL_HOST": _NOWHERE,
    "http_proxy": f"http://{_NOWHERE}:9",
    "HTTPS_PROXY": f"http://{_NOWHERE}:9",
    "ALL_PROXY": f"http://{_NOWHERE}:9",
}


@pytest.fixture(scope="module")
def astray(cache: Path, worker_id: str) -> Iterator[Service]:
    """A service in whose environment everything leads elsewhere."""
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        running.environment |= _FOREIGN
        running.start()
        yield running


def test_nothing_is_led_elsewhere(astray: Service, newest: str) -> None:
    done = astray.run("demo", "--data-dir", str(astray.data_dir), "--engine", newest)
    assert done.returncode == 0, done.stderr
    assert "hello from OpenRDB" in done.stdout


def test_no_program_gets_foreign_variables(astray: Service) -> None:
    done = astray.run("demo", "--data-dir", str(astray.data_dir))
    assert done.returncode == 0, done.stderr
    running = [one for one in astray.processes() if "openrdb" not in one.cmdline()]
    assert running
    for process in running:
        assert not _FOREIGN.keys() & process.environ().keys(), process.cmdline()


def test_unknown_names_are_refused(service: Service) -> None:
    for name, value, words in (
        ("OPENRDB_HOLDS", "1", "OPENRDB_HOLDS is unknown; did you mean OPENRDB_HOLD?"),
        ("OPENRDB_ENGINE_ALIASES", '{"MySQL8": "MySQL-9"}', "did you mean MySQL-8?"),
    ):
        service.environment[name] = value
        try:
            done = service.run("serve")
        finally:
            del service.environment[name]
        assert done.returncode == 1
        assert done.stderr.startswith("openrdb: ")
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_toml(service: Service) -> None:
    path = service.home / "openrdb.toml"
    path.write_text("listen =")
    try:
        done = service.run("serve")
    finally:
        path.unlink()
    assert done.returncode == 1
    assert done.stderr.startswith("openrdb: configuration: openrdb.toml is no TOML")


def serve(service: Service, *arguments: str) -> subprocess.Popen[str]:
    """`serve`, with its output at hand."""
    words = ("serve", "--data-dir", str(service.data_dir), *arguments)
    command, environment = service.command(*words)
    return subprocess.Popen(
        command,
        env=environment,
        cwd=service.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(process: subprocess.Popen[str]) -> str:
    """What `serve` prints in all when ctrl-C is pressed after its banner."""
    assert process.stdout is not None
    banner = ""
    while "env --data-dir" not in banner:
        line = process.stdout.readline()
        assert line, process.communicate()
        banner += line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    return banner + rest


def test_what_runs_on_after_ctrl_c(fresh_service: Service) -> None:
    service = fresh_service
    assert "there are no databases" in interrupted(serve(service, "--listen", "127.0.0.1:0"))
    service.start()
    service.create()
    service.kill(signal.SIGTERM)
    said = interrupted(serve(service, "--listen", "127.0.0.1:0"))
    assert "stopped; 1 database runs on" in said
    assert f"stop --data-dir {service.data_dir}" in said
    wait_until(lambda: service.processes("postgres"))


def test_the_banner_of_all_addresses(fresh_service: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = interrupted(serve(fresh_service, "--listen", f"0.0.0.0:{port}", "--insecure"))
    assert f"http://127.0.0.1:{port}" in said
    assert "http://0.0.0.0" not in said
    assert "OPENRDB_PUBLIC_ADDRESS" in said
    assert fresh_service.credentials["SCW_API_URL"] == f"http://127.0.0.1:{port}"


def lost(service: Service, path: str, content: bytes | None) -> Any:
    """What `serve` says when a file was removed, or has another content."""
    file = service.data_dir / path
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    return service.run("serve", "--data-dir", str(service.data_dir), "--listen", "127.0.0.1:0")


def test_damaged_files(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    service.create()
    service.kill()
    key = (service.data_dir / "master.key").read_bytes()
    for path, content, words in (
        ("master.key", None, "restore it from a backup"),
        ("master.key", b"", "is not a master key"),
        ("credentials.json", b"", "credentials.json is damaged: remove it"),
    ):
        done = lost(service, path, content)
        assert done.returncode == 1, path
        assert words in done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("openrdb: "), done.stderr
        assert "Traceback" not in done.stderr
        if path == "master.key":
            (service.data_dir / path).write_bytes(key)
    (service.data_dir / "credentials.json").unlink()
    (service.data_dir / "workflows.sqlite").write_bytes(b"nonsense")
    service.start()
    assert service.sdk().list_instances_all()[0].status == "ready"


@pytest.mark.root
def test_without_room_it_serves_and_deletes(root_service: Service) -> None:
    """The least free space keeps nobody from deleting what takes it."""
    service = root_service
    service.data_dir.mkdir(mode=0o711)
    size = 900
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=711", "none", str(service.data_dir)],
        check=True,
    )
    try:
        service.start()
        instance = service.create()
        service.kill()
        filler = service.data_dir / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(2**20))
        service.start()
        assert "no space left" in (service.home / "serve.log").read_text()
        service.sdk().delete_instance(instance_id=instance.id)
        wait_until(lambda: not list((service.data_dir / "instances").iterdir()))
        service.stop_everything()
    finally:
        subprocess.run(["umount", "--lazy", str(service.data_dir)], check=True)
