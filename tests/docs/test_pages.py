"""What runs the blocks of the pages notices where a page is wrong."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from pages import says
from sessions import Session

WRONG = {
    "Python that raises": "```python\n1 / 0\n```\n",
    "Python that prints something else": "```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n",
    "a command that prints something else": "```console\n$ echo 1\n2\n```\n",
    "a command that prints more": "```console\n$ echo 1; echo 2\n1\n```\n",
    "a command that fails in silence": "```console\n$ false\n```\n",
    "a change of what is not there": "<!-- file: a -->\n```text\n1\n```\n\n<!-- file: a -->\n```diff\n-2\n+3\n```\n",
    "a terminal beside nothing": "```text\n1\n```\n\n<!-- in another terminal -->\n```console\n$ true\n```\n",
    "a console block without a command": "```console\nmake\n```\n",
}
RIGHT = """
<!-- file: a -->
```text
1
2
```

<!-- file: a -->
```diff
-2
+3
```

```console
$ export B=4
$ cat a; false
1
...
$ echo $? $B
1 4
$ until test -e met; do sleep 0.01; done; echo after
after
```

<!-- in another terminal -->
```console
$ touch met; echo before
before
```

```python
import os

print(os.path.exists("met"))
```

```python
print(os.sep)
```

<!-- prints -->
```text
True
/
```

<!-- not run: it would fail -->
```console
$ false
```
"""


def run(text: str, folder: Path) -> int:
    page = folder / "page.md"
    page.write_text(text)
    (folder / "run").mkdir()
    with ExitStack() as ending:
        return Session(page, folder / "run", ending).run()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_page_that_is_wrong_is_noticed(wrong: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        run(WRONG[wrong], tmp_path)


def test_a_page_that_is_right_is_run_to_its_end(tmp_path: Path) -> None:
    assert run(RIGHT, tmp_path) == 4


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a", "a"),
        ("a ... d", "a b c d"),
        ("a\n...\nc", "a\nb\nb\nc"),
        ("...\nc", "c"),
        ("a.b", "a.b"),
        ("a", "a  \n\n"),
    ],
)
def test_dots_stand_for_anything(expected: str, printed: str) -> None:
    assert says(expected, printed)


@pytest.mark.parametrize(("expected", "printed"), [("a.b", "axb"), ("a ... d", "a\nd"), ("a", "a\nb"), ("a\n...", "b")])
def test_all_else_stands_for_itself(expected: str, printed: str) -> None:
    assert not says(expected, printed)
