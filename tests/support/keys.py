"""API keys as their operator makes them: by the command line."""

from __future__ import annotations

import shlex
import subprocess

from tests.support.service import Service


def keys(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return service.run("keys", *arguments, "--data-dir", str(service.data_dir))


def create(service: Service, *arguments: str) -> dict[str, str]:
    """The environment of a new key, read as a shell would."""
    done = keys(service, "create", *arguments)
    assert done.returncode == 0, done.stderr
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(len(word) == 2 and word[0] == "export" for word in words)
    name_and_value = [word[1].partition("=") for word in words]
    return {name: value for name, _, value in name_and_value}
