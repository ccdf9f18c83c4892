"""The command ``etha-kv doctor`` run as a user runs it, and what it or a backend's diagnosis said, for the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Diagnosis", "install", "run_doctor", "said", "the_one"]


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


def install(folder: Path, distribution: str, backend: str, plugin: str) -> None:
    """Write what pip would unpack of a stranger's small distribution.

    Parameters
    ----------
    folder : Path
        Where; it is to stand in ``PYTHONPATH``.
    distribution, backend : str
        Their names.
    plugin : str
        The text of its module, in which ``{backend}`` and ``{module}`` stand for the names.
    """
    module = distribution.replace("-", "_")
    metadata = folder / f"{module}-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
    (metadata / "entry_points.txt").write_text(f"[etha.kvstore]\n{backend} = {module}\n")
    (folder / f"{module}.py").write_text(plugin.replace("{backend}", backend).replace("{module}", module))


def said(level: str, found: Iterable[tuple[str, str]]) -> list[str]:
    """Give what a backend's diagnosis said on a level, but for the version of the server that the tests happen to have.

    Parameters
    ----------
    level : str
        ``good``, ``doubtful`` or ``bad``.
    found : iterable of (str, str)
        Level and message each.

    Returns
    -------
    list of str
        The messages.
    """
    return [text for each, text in found if each == level and "-> upgrade to" not in text]


def the_one(level: str, found: Iterable[tuple[str, str]]) -> str:
    """Give the only thing that was said on a level, once it is sure that it says what is wrong and what to do."""
    (text,) = said(level, found)
    what, _, cure = text.partition(" -> ")
    assert what
    assert cure
    return text
