"""Which store a command speaks to, and which options contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done, Place

Kv = Callable[..., "Done"]

BACKEND = ["--backend", "etcd", "--namespace", "n", "--component", "c"]
URL = ["--url", "etcd://127.0.0.1:1/n/c"]


def test_each_way_to_name_a_store_leads_to_it(place: Place, kv: Kv, tmp_path: Path) -> None:
    place.store().set("ready", "1")
    host, _, port = place.endpoint.partition(":")
    file = tmp_path / "kvstore.toml"
    file.write_text(
        f'[kvstore]\nbackend = "{place.backend}"\nnamespace = "{place.namespace}"\ncomponent = "trainer"\n'
        f'[kvstore.options]\nhost = "{host}"\nport = {port}\n'
    )
    named = ["--backend", place.backend, "--namespace", place.namespace, "--component", "trainer"]
    for which in (
        ["--url", place.url],
        ["--config", str(file)],
        [*named, "-o", f"host={host}", "-o", f"port={port}"],  # the port is a number, as the backend's spec says
    ):
        assert kv("get", "ready", *which) == (0, b"1", "")
    assert kv("get", "ready", ETHA_KVSTORE_URL=place.url) == (0, b"1", "")


@pytest.mark.parametrize("command", [["set", "k", "1"], ["get", "ready"], ["wait", "ready", "--count", "1", "-q"]])
def test_a_configuration_is_read_once_so_that_it_may_come_through_a_pipe(
    etcd: Place, kv: Kv, command: list[str]
) -> None:
    etcd.store().set("ready", "1")
    told = f"[kvstore]\nbackend = 'etcd'\nnamespace = '{etcd.namespace}'\ncomponent = 'trainer'\n"
    told += f"options = {{ endpoints = ['{etcd.endpoint}'] }}\n"
    assert kv(*command, "--config", "/dev/stdin", given=told.encode()).code == 0


def test_an_option_wins_over_the_environment(place: Place, kv: Kv) -> None:
    place.store().set("ready", "1")
    assert kv("get", "ready", "--url", place.url, ETHA_KVSTORE_URL="etcd://127.0.0.1:1/n/c").out == b"1"


def test_the_environment_is_put_into_names_and_options(etcd: Place, kv: Kv) -> None:
    etcd.store().set("ready", "1")
    url = etcd.url.replace(etcd.namespace, "${RUN}")
    assert kv("get", "ready", "--url", url, RUN=etcd.namespace).out == b"1"
    named = ["--backend", "etcd", "--namespace", "${RUN}", "--component", "trainer", "-o", "endpoints=${SERVER}"]
    assert kv("get", "ready", *named, RUN=etcd.namespace, SERVER=etcd.endpoint).out == b"1"
    code, _, err = kv("get", "ready", "--url", url)
    assert code == 2
    assert "the environment variable RUN is not set" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which store? Give --url, --config, or --backend"),
        (["--config", "f.toml", *URL], "--config and --url contradict each other"),
        ([*URL, *BACKEND], "--url and --backend contradict each other"),
        (["--config", "f.toml", *BACKEND], "--config and --backend contradict each other"),
        (["--backend", "etcd"], "--backend goes with --namespace and --component"),
        ([*URL, "--namespace", "n"], "--namespace goes with --backend; --url says that itself"),
        ([*URL, "-o", "timeout=1"], "-o goes with --backend; --url says that itself"),
        (["--url", "kvstore.toml"], "--url is a URL, such as etcd://"),
        (["--config", "nothing.toml"], "the configuration nothing.toml can't be read: No such file"),
        ([*BACKEND, "-o", "timeout"], "-o takes option=value"),
        ([*BACKEND, "-o", "timeout=1", "-o", "timeout=2"], "-o gives the option 'timeout' twice"),
        ([*BACKEND, "-o", "timeut=1"], "backend 'etcd' has no option 'timeut'; did you mean 'timeout'?"),
        ([*BACKEND, "-o", "timeout=soon"], "option 'timeout' of backend 'etcd' is of type float, and 'soon' is not"),
        ([*BACKEND, "-o", "client=x"], "option 'client' of backend 'etcd' is a Python object"),
        ([*URL, "--component", "a", "--component", "b"], "--component was given twice; only top takes several"),
        ([*URL, "--component", "a/b"], "component"),
        (["--url", "etcd://127.0.0.1:1"], "names no namespace"),
        (["--url", "ectd://127.0.0.1:1/n/c"], "Did you mean 'etcd'?"),
    ],
)
def test_what_names_no_store_is_refused_and_the_reason_is_given(run: Kv, arguments: list[str], said: str) -> None:
    code, out, err = run("get", "ready", *arguments)
    assert (code, out) == (2, b"")
    assert said in err
    assert err.startswith("etha-kv: ")
    assert err.count("\n") == 1


def test_a_url_from_the_environment_that_is_none_is_named_as_such(kv: Kv) -> None:
    code, _, err = kv("get", "ready", ETHA_KVSTORE_URL="127.0.0.1:2379")
    assert (code, err) == (
        2,
        "etha-kv: ETHA_KVSTORE_URL is not a URL; one looks like etcd://127.0.0.1:2379/job-42/trainer\n",
    )


@pytest.mark.parametrize(
    "command", [["get", "k"], ["set", "k", "1"], ["rm", "k"], ["ls"], ["watch"], ["wait", "k"], ["top"]]
)
def test_a_store_that_no_other_process_sees_is_refused_rather_than_used_in_vain(run: Kv, command: list[str]) -> None:
    code, out, err = run(*command, "--url", "memory:///job-42/trainer")
    assert (code, out) == (2, b"")
    assert "backend 'memory' keeps its keys in the memory of one process" in err


@pytest.mark.security
@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "k", "--url", "etcd://u:hunter2@127.0.0.1:1/n/c?connect_timeout=0.1"],
        ["get", "k", *BACKEND, "-o", "endpoints=127.0.0.1:1", "-o", "user=u", "-o", "password=hunter2"],
        ["get", "k", *BACKEND, "-o", "hunter2"],
        ["get", "k", "--url", "etcd://u:hunter2@127.0.0.1:1/n/c?timeout=soon"],
        ["get", "k", "--url", "hunter2"],
        ["top", "--once", "--url", "etcd://u:hunter2@127.0.0.1:1/n/c?password=hunter2"],
    ],
)
def test_no_secret_is_shown_when_a_command_fails(run: Kv, arguments: list[str]) -> None:
    for json in ([], ["--json"]):
        code, out, err = run(*arguments, *json, *(["-o", "connect_timeout=0.1"] if "--backend" in arguments else []))
        assert code in (2, 3)
        assert out == b""
        assert "hunter2" not in err
