"""What a command loads: a script that gates on it calls it often."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Place

HEAVY = ("grpc", "pydantic", "rich", "torch")

LOADED = f"""
import sys
from etha_kvstore_cli.__main__ import main
code = main()
print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["set", "k", "1"],
        ["get", "k"],
        ["ls"],
        ["ls", "--long"],
        ["wait", "k", "--timeout", "5", "--quiet"],
        ["wait", "*", "--for", "k", "--count", "1", "--json"],
        ["rm", "k"],
    ],
)
def test_a_command_at_a_pipe_loads_none_of_what_draws_and_converts_nor_another_backends_client(
    tcpstore: Place, command: list[str]
) -> None:
    tcpstore.store().set("k", "1")
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, *command, "--url", tcpstore.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (0, "")
