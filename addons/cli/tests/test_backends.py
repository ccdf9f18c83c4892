"""``backends``: what is installed, from where, and what is broken and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from etha.kvstore.hookspecs import CAPABILITIES
from etha.kvstore.registry import find_backend

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done

Kv = Callable[..., "Done"]


def _install(folder: Path, name: str, module: str) -> None:
    """Write the metadata of a distribution that offers a backend."""
    metadata = folder / f"etha_kvstore_{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: etha-kvstore-{name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[etha.kvstore]\n{name} = {module}\n")


def test_each_backend_is_listed_with_all_that_it_says_of_itself(run: Kv) -> None:
    code, out, err = run("backends", "--json")
    assert (code, err) == (0, "")
    listed = {each["name"]: each for each in json.loads(out)}
    for name in ("etcd", "memory", "tcpstore"):
        spec, said = find_backend(name), listed[name]
        assert said["distribution"] == f"etha-kvstore-{name}"
        assert said["error"] is None
        assert (Path(said["path"]) / "plugin.py").exists()
        assert (said["summary"], said["contract"]) == (spec.summary, spec.contract)
        assert said["capabilities"] == sorted(spec.capabilities)
        assert [(each["name"], each["default"], each["help"]) for each in said["options"]] == [
            (option.name, option.default, option.help) for option in spec.options
        ]
        assert [each["type"] for each in said["options"]] == [option.type.__name__ for option in spec.options]


def test_a_person_sees_the_same(run: Kv) -> None:
    code, out, _ = run("backends")
    text = " ".join(out.decode().split())
    assert code == 0
    spec = find_backend("tcpstore")
    assert "tcpstore etha-kvstore-tcpstore 0.1.0" in text
    assert f"can {', '.join(sorted(spec.capabilities))}" in text
    assert f"can't {', '.join(sorted(CAPABILITIES.keys() - spec.capabilities))}" in text
    assert "connect_timeout float 30.0 how long the opening waits for the server, in seconds" in text


def test_a_broken_backend_is_listed_with_the_reason_and_hides_no_other(kv: Kv, tmp_path: Path) -> None:
    _install(tmp_path, "shelf", "no_such_module")
    code, out, _ = kv("backends", "--json", PYTHONPATH=str(tmp_path))
    listed = {each["name"]: each for each in json.loads(out)}
    assert code == 1
    assert "No module named 'no_such_module'" in listed["shelf"]["error"]
    assert (listed["shelf"]["version"], listed["shelf"]["path"]) == ("1.0", str(tmp_path))
    assert listed["etcd"]["error"] is None
    code, out, _ = kv("backends", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "broken backend 'shelf' of etha-kvstore-shelf 1.0 is installed" in " ".join(out.decode().split())


def test_two_distributions_that_claim_one_name_are_both_listed(kv: Kv, tmp_path: Path) -> None:
    _install(tmp_path, "etcd-too", "no_such_module")
    (entry_points,) = tmp_path.glob("*/entry_points.txt")
    entry_points.write_text("[etha.kvstore]\netcd = no_such_module\n")
    code, out, _ = kv("backends", "--json", PYTHONPATH=str(tmp_path))
    claims = [each for each in json.loads(out) if each["name"] == "etcd"]
    assert code == 1
    assert sorted(each["distribution"] for each in claims) == ["etha-kvstore-etcd", "etha-kvstore-etcd-too"]
    assert all("is claimed by" in each["error"] for each in claims)


def test_the_backend_of_the_store_that_is_named_is_marked(run: Kv) -> None:
    store = ("--backend", "tcpstore", "--namespace", "job-42", "--component", "trainer")
    code, out, _ = run("backends", "--json", *store)
    assert (code, [each["name"] for each in json.loads(out) if each["chosen"]]) == (0, ["tcpstore"])
    _, out, _ = run("backends", *store)
    assert [line for line in out.decode().splitlines() if line.endswith("chosen")] == [
        "tcpstore  etha-kvstore-tcpstore 0.1.0  chosen"
    ]
    code, out, err = run("backends", "--json", "--url", "shelf://job-42/trainer")
    assert (code, [each["name"] for each in json.loads(out) if each["chosen"]]) == (2, [])
    assert "No installed distribution offers a backend 'shelf'" in json.loads(err)["message"]
