"""The command ``etha-kv doctor`` run as a user runs it, and what it said, for the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Diagnosis", "run_doctor"]


class Diagnosis(NamedTuple):
    """What a run of the doctor said.

    Attributes
    ----------
    code : int
        The exit code.
    findings : list of dict
        Each ``subject``, ``level``, ``what`` and ``do``.
    text : str
        All of the output.
    """

    code: int
    findings: list[dict[str, str]]
    text: str

    def of(self, *levels: str, subject: str = "store") -> list[str]:
        """Give what was said of something, on some levels, what to do included."""
        return [
            f"{each['what']} -> {each['do']}"
            for each in self.findings
            if each["level"] in levels and each["subject"] == subject
        ]


def run_doctor(*arguments: str, environment: Mapping[str, str] | None = None) -> Diagnosis:
    """Run the doctor with ``--json``.

    Parameters
    ----------
    *arguments : str
        More of the command line.
    environment : mapping, optional
        More variables of the environment.

    Returns
    -------
    Diagnosis
        What it said.
    """
    command = [sys.executable, "-m", "etha_kvstore_cli", "doctor", "--json", *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "ETHA_KVSTORE_URL"}
    ended = subprocess.run(
        command,
        env={**clean, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if not ended.stdout:
        return Diagnosis(ended.returncode, [], ended.stderr)
    document = json.loads(ended.stdout)
    assert document["exit_code"] == ended.returncode
    return Diagnosis(ended.returncode, document["findings"], ended.stdout + ended.stderr)
