"""To be replaced by the branch mysql-inside."""

from __future__ import annotations

from typing import Any

from openrdb.engines.base import NodeSpec
from openrdb.host.layout import NodePaths


class Administration:
    def __init__(self, spec: NodeSpec, paths: NodePaths, secret: str) -> None: ...
    def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401
