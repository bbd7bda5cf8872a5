"""Installing engines and the load balancer: `openrdb engines install`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar

from openrdb.cli.common import plain
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.host.bundles.downloads import Progress
from openrdb.system.bundle import Bundle


@dataclass(frozen=True)
class Installed:
    """What is there afterwards, and what is not."""

    installed: dict[str, str]
    """Bundles, by versions."""
    left_out: dict[str, str]
    """Why the versions are not there."""
    load_balancer: str


def run(
    settings: Settings, names: Sequence[str], out: Console, err: Console, build: str | None = None
) -> Installed:
    """Install engine versions and the load balancer, and say what is left out and why.

    Without names all current versions are asked for, and one that cannot be installed does not
    stop the others. `build` is that of the versions that are named; without it, the best is
    installed that can be.

    Raises:
        HostError: a version that was named cannot be installed, or no engine works.
    """
    bundles = Bundles(settings.cache)
    current = dict.fromkeys(one.version_name for one in bundles.releases() if one.default)
    left_out = {} if names else _lacking(settings, bundles, current)
    installed = {}
    for name, reason in left_out.items():
        _say(out, f"! {name}: not installed: {reason}")
    for name in [name for name in names or current if name not in left_out]:
        try:
            bundle = _install(settings, bundles, name, build, out, err)
        except HostError as error:
            if names:
                raise
            left_out[name] = str(error)
            _say(out, f"! {name}: not installed: {error}")
        else:
            installed[name] = bundle.name
            _say(out, f"✓ {name}: {bundle.name}")
    load_balancer = bundles.haproxy().name
    _say(out, f"✓ load balancer {load_balancer}")
    if not bundles.installed():
        raise HostError("no engine is installed; the reasons are above")
    if left_out:
        _say(out, f"! left out, for the reasons above: {', '.join(left_out)}")
    return Installed(installed, left_out, load_balancer)


def _install(
    settings: Settings, bundles: Bundles, name: str, build: str | None, out: Console, err: Console
) -> Bundle:
    """Install the best build of a version, or else the next one, and say why."""
    mirror = settings.debian_mirror
    tried, *others = bundles.builds(name, build, mirror=mirror)
    while True:
        try:
            with _progress(name, out, err) as progress:
                return bundles.install(tried, progress, mirror=mirror)
        except HostError as error:
            if not others or others[0].why_not(mirror):
                raise
            _say(out, f"! {name}: {others[0].build} instead of {tried.build}: {error}")
            tried, *others = others


def _lacking(settings: Settings, bundles: Bundles, names: Iterable[str]) -> dict[str, str]:
    """Return which versions are missing and cannot be fetched by this host, and why."""
    installed, mirror = bundles.installed(), settings.debian_mirror
    missing = [name for name in names if name not in installed]
    reasons = {name: bundles.builds(name, mirror=mirror)[0].why_not(mirror) for name in missing}
    return {name: reason for name, reason in reasons.items() if reason}


def _say(out: Console, line: str) -> None:
    out.print(plain(line), soft_wrap=True, highlight=False)


@contextmanager
def _progress(name: str, out: Console, err: Console) -> Iterator[Progress]:
    """Show a bar on a terminal, else a line for each step."""
    if not err.is_terminal:
        yield _Lines(name, lambda line: _say(out, line))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task(f"downloading {name}", total=None)

        def show(done: int, total: int) -> None:
            step = "downloading" if done < total else "unpacking"
            bar.update(task, completed=done, total=total, description=f"{step} {name}")

        yield show


class _Lines:
    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._step = ""

    def __call__(self, done: int, total: int) -> None:
        step = "downloading" if done < total else "unpacking"
        if step != self._step:
            self._step = step
            size = f" ({total / 1e6:.0f} MB)" if step == "downloading" else ""
            self._say(f"· {step} {self._name}{size}")
