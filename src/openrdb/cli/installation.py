"""Installing engines and the load balancer: `openrdb engines install`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar

from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.host.bundles.downloads import Progress


def run(
    settings: Settings, names: Sequence[str], out: Console, err: Console, build: str | None = None
) -> None:
    """Install engine versions and the load balancer, and say what is left out and why.

    Without names all current versions are asked for, and one that cannot be installed does not
    stop the others. `build` is that of the versions that are named.

    Raises:
        HostError: a version that was named cannot be installed, or no engine works.
    """
    bundles = Bundles(settings.cache)
    left_out = {} if names else _lacking(settings, bundles)
    for name, reason in left_out.items():
        _say(out, f"! {name}: not installed: {reason}")
    chosen = names or [release.version_name for release in bundles.releases() if release.default]
    for name in [name for name in chosen if name not in left_out]:
        try:
            with _progress(name, out, err) as progress:
                bundle = bundles.install(name, progress, mirror=settings.debian_mirror, build=build)
        except HostError as error:
            if names:
                raise
            left_out[name] = str(error)
            _say(out, f"! {name}: not installed: {error}")
        else:
            _say(out, f"✓ {name}: {bundle.name}")
    _say(out, f"✓ load balancer {bundles.haproxy().name}")
    if not bundles.installed():
        raise HostError("no engine is installed; the reasons are above")
    if left_out:
        _say(out, f"! left out, for the reasons above: {', '.join(left_out)}")


def _lacking(settings: Settings, bundles: Bundles) -> dict[str, str]:
    """Return the current versions that are missing and that this host cannot fetch, and why."""
    installed = bundles.installed()
    reasons = {
        release.version_name: release.why_not(settings.debian_mirror)
        for release in bundles.releases()
        if release.default and release.version_name not in installed
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _say(out: Console, line: str) -> None:
    out.print(line, soft_wrap=True, highlight=False, markup=False)


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
