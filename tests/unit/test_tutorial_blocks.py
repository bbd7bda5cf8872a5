"""What of a tutorial is run, and what its output is compared by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tutorials import Block, blocks, differences, run

TEXT = """\
```sh
echo one
```
```text
one
```
Prose.
```bash
rm -rf everything
```
<!-- run
true
-->
1. An item:
    ```sh
    echo two
    ```
```yaml
```
"""


def test_blocks_that_are_run() -> None:
    assert list(blocks(TEXT)) == [
        Block("echo one\n", "one\n"),
        Block("true\n", ""),
        Block("echo two\n", ""),
    ]


def test_they_share_a_shell_until_one_fails(tmp_path: Path) -> None:
    def of(*codes: str) -> list[str]:
        return run(
            [Block(code + "\n", "") for code in codes],
            ["bash"],
            {"PATH": "/usr/bin:/bin"},
            tmp_path,
        )

    assert of("A=1\necho $A", "echo $A >&2") == ["1\n", "1\n"]
    with pytest.raises(AssertionError, match="this failed:\nfalse"):
        of("true", "false", "true")
    with pytest.raises(AssertionError, match="unbound"):
        of("echo $NOTHING")


@pytest.mark.parametrize(
    ("told", "printed", "missing"),
    [
        (" a  1\n b", "x\na 23\ny\nb\n", []),
        ("b\na", "a\nb", ["a"]),
        ("id 89d7d40e", "id 01234567", []),
        ("id 89d7d40e", "id nothing", ["id 89d7d40e"]),
        ("SCWGHAT68G334XGFM3Q3", "SCW00000000000000000", []),
        ("41dd1fd4-280d-405d-b2f5-e59f449d405c", "00000000-280d-405d-b2f5-e59f449d405c", []),
        ("at 2026-11-27T20:30:19.446000Z", "at 2027-01-01T00:00:00.1Z", []),
        ("stopped everything of …", "stopped everything of /tmp/x", []),
        ("a.c", "abc", ["a.c"]),
    ],
)
def test_differences(told: str, printed: str, missing: list[str]) -> None:
    assert differences(Block("", told), printed) == missing
