"""What the doctor has done in a process of its own, since a plugin that is loaded may end or hang the interpreter.

The task comes as JSON on standard input: ``plugin`` with the name of a backend, or ``source``, ``is_file`` and
``component`` of a `Target`, with ``read_only``. What is found goes to standard output, as `Report` writes it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from etha.kvstore import open_store
from etha.kvstore.errors import KVStoreError
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.options import check_options
from etha.kvstore.registry import find_backend, load_object
from etha_kvstore_cli.failures import exit_code
from etha_kvstore_cli.probe import probe
from etha_kvstore_cli.report import LEVELS, Report
from etha_kvstore_cli.target import Target

__all__ = ["main"]

PATIENCE = {"connect_timeout": 3.0, "timeout": 5.0}
"""Options that most backends have, and the most seconds that the doctor gives them."""

LITTLE_PATIENCE = 1.0
"""Seconds that the opening may take where the diagnosis has said already that it fails."""

LIMITS = ("timeout", "connect_timeout", "max_request_bytes", "lease_ttl")
"""Options that limit what a job may do."""


def main() -> None:
    """Do the task on standard input."""
    task = json.load(sys.stdin)
    report = Report(_take_output())
    if "plugin" in task:
        _load(report, task["plugin"])
    else:
        source = Path(task["source"]) if task["is_file"] else task["source"]
        _examine_store(report, Target(source, task["component"]), read_only=task["read_only"])
    report.done()


def _take_output() -> TextIO:
    """Take standard output away from all else in this process: what a plugin prints is not part of the report."""
    mine = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return mine


def _load(report: Report, name: str) -> None:
    """Load a plugin and the store class that it names."""
    report.step("loading its plugin")
    try:
        spec = find_backend(name)
        report.step("importing its store")
        if isinstance(spec.store, str):
            load_object(spec.store, spec.name)
    except KVStoreError as error:
        report.failed("it can't be used", error)
    else:
        report.found("good", f"it loads; {spec.summary}")


def _examine_store(report: Report, target: Target, *, read_only: bool) -> None:
    """Examine the store that is configured: what its backend knows, whether it opens, and what works there."""
    report.step("reading the configuration")
    try:
        settings = target.settings()
        report.step(f"loading the plugin of backend {settings.backend!r}")
        spec = find_backend(settings.backend)
        report.keep_secret(spec, settings.options)
        options = check_options(spec, settings.options)
    except KVStoreError as error:
        report.failed("the store can't be opened", error)
        report.end_with(exit_code(error))
        return
    longest, cure = PATIENCE, ""
    if spec.diagnose is not None:
        report.step(f"the diagnosis of backend {spec.name!r}")
        if not _diagnose(report, spec, options):
            longest, cure = {**PATIENCE, "connect_timeout": LITTLE_PATIENCE}, "see the bad lines before this one"
    _tell_limits(report, spec, options)
    if options.get("is_master"):
        report.found("good", "a store that hosts its server is not opened here, since the doctor would be the host")
        return
    for option in spec.options:
        if option.name in longest:
            given = options.get(option.name, option.default)
            most = longest[option.name]
            options[option.name] = min(given, most) if isinstance(given, float) else most
    report.step("opening the store")
    try:
        store = open_store(spec.name, namespace=settings.namespace, component=settings.component, **options)
    except Exception as error:  # noqa: BLE001 (a stranger's store may fail with anything)
        report.failed("the store can't be opened", error, cure=cure)
        report.end_with(exit_code(error))
        return
    try:
        report.found("good", f"the store opens: {store!r}")
        probe(store, spec, report, read_only=read_only)
        report.step("closing the store")
    finally:
        store.close(cleanup=False)


def _diagnose(report: Report, spec: BackendSpec, options: Mapping[str, object]) -> bool:
    """Have the backend say what only it can know, and tell whether nothing of it is bad."""
    levels = set()
    try:
        findings: Iterable[tuple[str, str]] = load_object(str(spec.diagnose), spec.name)(options)
        for level, message in findings:
            levels.add(level)
            report.found(level if level in LEVELS else "doubtful", message)
    except Exception as error:  # noqa: BLE001 (a stranger's code)
        report.failed("the backend's own diagnosis failed", error)
    return "bad" not in levels


def _tell_limits(report: Report, spec: BackendSpec, options: Mapping[str, object]) -> None:
    told = {option.name: options.get(option.name, option.default) for option in spec.options if option.name in LIMITS}
    if given := ", ".join(f"{name}={value}" for name, value in told.items() if value is not None):
        report.found("good", f"limits: {given}")
