"""The manifest of the page on Kubernetes, read as a cluster would: each pod is given the store of its own job."""

from __future__ import annotations

import shlex
from importlib import import_module

import pytest

from etha.kvstore.config import Configuration, read_config
from etha.kvstore.options import check_options
from etha.kvstore.registry import find_backend
from pages import ROOT, blocks_of, commands_of

PAGE = blocks_of(ROOT / "docs/how-to/on-kubernetes.md")
BLOCKS = {block.file: block.text for block in PAGE if block.file}
READ = import_module("yaml").safe_load  # it comes with what reads these pages
JOB = READ(BLOCKS["trainer.yaml"])
(RANK,) = JOB["spec"]["template"]["spec"]["containers"]


def environment(uid: str) -> dict[str, str]:
    """Make the environment of a container of the Job that has this uid."""

    def value_of(entry: dict[str, str | dict[str, dict[str, str]]]) -> str:
        source = entry.get("valueFrom")
        if not isinstance(source, dict):
            return str(entry["value"])
        if "fieldRef" in source:
            return {"metadata.labels['batch.kubernetes.io/controller-uid']": uid}[source["fieldRef"]["fieldPath"]]
        return f"the {source['secretKeyRef']['key']} of {source['secretKeyRef']['name']}"

    return {entry["name"]: value_of(entry) for entry in RANK["env"]}


@pytest.fixture
def configuration(monkeypatch: pytest.MonkeyPatch) -> Configuration:
    for name, value in environment("0d1e").items():
        monkeypatch.setenv(name, value)
    return read_config()


def test_each_pod_is_an_indexed_one_that_runs_the_program_of_the_page() -> None:
    assert (JOB["apiVersion"], JOB["kind"], JOB["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert JOB["spec"]["parallelism"] == JOB["spec"]["completions"], "who waits for all would wait for those to come"
    assert RANK["command"][0] == "python"
    assert "JOB_COMPLETION_INDEX" in BLOCKS[RANK["command"][1]]


def test_the_jobs_uid_is_in_the_namespace_and_the_password_from_the_secret(configuration: Configuration) -> None:
    assert (configuration.backend, configuration.namespace) == ("etcd", "job-0d1e")
    assert configuration.options["password"] == "the password of kvstore"
    assert "password" not in RANK["env"][-1]["value"].lower().replace("${etcd_password}", "")


def test_the_backend_takes_every_option(configuration: Configuration) -> None:
    checked = check_options(find_backend(configuration.backend), configuration.options)
    assert checked["endpoints"] == ["etcd-0.etcd:2379", "etcd-1.etcd:2379"]
    assert checked["lease_ttl"] == 30


def test_the_gate_runs_the_command_that_the_page_runs_too() -> None:
    (gate,) = READ(BLOCKS["gate.yaml"])["initContainers"]
    *_, last = (command for block in PAGE if block.language == "console" for command in commands_of(block))
    assert gate["command"] == shlex.split(last.text)
    (url,) = gate["env"]
    assert read_config(url["value"]).backend == "etcd"
