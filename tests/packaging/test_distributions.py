"""What is in each distribution's sdist and wheel, and what the wheel says of itself."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]


class Expected(NamedTuple):
    """What a distribution promises to be."""

    package: str
    requires: set[str]
    entry_points: set[str]


DISTRIBUTIONS = {
    "etha-kvstore": Expected(
        package="etha/kvstore", requires={"pluggy", "importlib-metadata", "tomli"}, entry_points=set()
    ),
    "etha-kvstore-memory": Expected(
        package="etha_kvstore_memory",
        requires={"etha-kvstore"},
        entry_points={"[etha.kvstore]", "memory = etha_kvstore_memory.plugin"},
    ),
    "etha-kvstore-tcpstore": Expected(
        package="etha_kvstore_tcpstore",
        requires={"etha-kvstore", "importlib-metadata", "pybase64", "torch"},
        entry_points={"[etha.kvstore]", "tcpstore = etha_kvstore_tcpstore.plugin"},
    ),
    "etha-kvstore-etcd": Expected(
        package="etha_kvstore_etcd",
        requires={"etha-kvstore", "grpcio", "protobuf", "etcd3"},
        entry_points={"[etha.kvstore]", "etcd = etha_kvstore_etcd.plugin"},
    ),
    "etha-kvstore-testkit": Expected(
        package="etha_kvstore_testkit",
        requires={"etha-kvstore", "hypothesis", "pytest"},
        entry_points={"[pytest11]", "etha_kvstore_testkit.plugin = etha_kvstore_testkit.plugin"},
    ),
    "etha-kvstore-cli": Expected(
        package="etha_kvstore_cli",
        requires={"etha-kvstore", "importlib-metadata", "rich", "typer"},
        entry_points={"[console_scripts]", "etha-kv = etha_kvstore_cli.__main__:main"},
    ),
}

each_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


def files_of(wheel: Path) -> set[str]:
    """List a wheel's files without those that describe it."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def described(wheel: Path, name: str) -> bytes:
    """Read a file of a wheel's description."""
    with ZipFile(wheel) as archive:
        (found,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
        return archive.read(found)


def metadata_of(wheel: Path) -> Message:
    """Read a wheel's core metadata."""
    return message_from_bytes(described(wheel, "METADATA"))


@each_distribution
def test_a_wheel_holds_its_typed_package_and_nothing_else(distribution: str, wheel: Callable[[str], Path]) -> None:
    package = DISTRIBUTIONS[distribution].package
    files = files_of(wheel(distribution))
    assert {name for name in files if not name.startswith(f"{package}/")} == set()
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= files
    assert {name for name in files if "test_" in name or "conftest" in name} == set()
    assert {Path(name).suffix for name in files} <= {".py", ".pyi", ".typed", ".proto"}


@each_distribution
def test_no_wheel_takes_the_namespace_from_the_others(distribution: str, wheel: Callable[[str], Path]) -> None:
    assert "etha/__init__.py" not in files_of(wheel(distribution))


@each_distribution
def test_wheel_and_sdist_carry_the_licence(distribution: str, built: Callable[[str], tuple[Path, Path]]) -> None:
    sdist, wheel = built(distribution)
    text = described(wheel, "licenses/LICENSE")
    assert b"Apache License" in text
    assert metadata_of(wheel)["License-Expression"] == "Apache-2.0"
    with tarfile.open(sdist) as archive:
        (found,) = (each for each in archive.getmembers() if re.fullmatch("[^/]+/LICENSE", each.name))
        content = archive.extractfile(found)
        assert content is not None
        assert content.read() == text


@each_distribution
def test_a_wheel_requires_what_it_needs_and_no_more(distribution: str, wheel: Callable[[str], Path]) -> None:
    metadata = metadata_of(wheel(distribution))
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert {requirement.name for requirement in requirements} == DISTRIBUTIONS[distribution].requires
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_package_etcd3_comes_with_its_extra_only(wheel: Callable[[str], Path]) -> None:
    metadata = metadata_of(wheel("etha-kvstore-etcd"))
    requirements = {text.name: text for text in map(Requirement, metadata.get_all("Requires-Dist", []))}
    assert metadata.get_all("Provides-Extra") == ["etcd3"]
    assert str(requirements["etcd3"].marker) == 'extra == "etcd3"'


def test_the_tcpstore_plugin_accepts_a_range_of_torch(wheel: Callable[[str], Path]) -> None:
    metadata = metadata_of(wheel("etha-kvstore-tcpstore"))
    (torch,) = (each for each in map(Requirement, metadata.get_all("Requires-Dist", [])) if each.name == "torch")
    assert torch.specifier.contains("2.13.0")
    assert torch.specifier.contains("2.14.1")


@each_distribution
def test_a_wheel_offers_its_entry_point(distribution: str, wheel: Callable[[str], Path]) -> None:
    expected = DISTRIBUTIONS[distribution].entry_points
    if expected:
        text = described(wheel(distribution), "entry_points.txt").decode()
        assert {line for line in text.splitlines() if line} == expected
    else:
        with ZipFile(wheel(distribution)) as archive:
            assert not [name for name in archive.namelist() if name.endswith("entry_points.txt")]


@each_distribution
def test_the_readme_is_what_an_index_shows(distribution: str, wheel: Callable[[str], Path]) -> None:
    metadata = metadata_of(wheel(distribution))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert f"# {distribution}" in str(metadata.get_payload())
