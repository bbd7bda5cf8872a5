"""A repository of Debian packages in a directory, for apt-get."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def make(pool: Path, suite: str, packages: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    """Make an unsigned repository of packages: by name their further fields, and their files."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    place = pool / "dists" / suite
    index = place / "main" / f"binary-{architecture}" / "Packages"
    index.parent.mkdir(parents=True)
    entries = (_package(pool, name, fields, files) for name, (fields, files) in packages.items())
    index.write_text("".join(entries))
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    (place / "Release").write_text(
        f"Suite: {suite}\nCodename: {suite}\nArchitectures: {architecture}\nComponents: main\n"
        f"SHA256:\n {digest} {index.stat().st_size} {index.relative_to(place)}\n"
    )


def _package(pool: Path, name: str, fields: str, files: Mapping[str, str]) -> str:
    """Put a .deb with some programs into a pool; its entry in the list of packages."""
    root = pool / name
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    control = (
        f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nDescription: for a test\n"
        f"Maintainer: nobody <nobody@localhost>\n{fields}"
    )
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(control)
    made = pool / f"{name}_1.0-1_all.deb"
    build = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root), str(made)]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(root)
    content = made.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: {made.name}\nSize: {len(content)}\nSHA256: {digest}\n\n"
