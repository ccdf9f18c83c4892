"""The README of a backend, which a package index shows, has every option that the backend takes, and no other."""

from __future__ import annotations

import re

import pytest

from etha.kvstore.registry import find_backend
from pages import ROOT

READMES = {"etcd": "plugins/etcd", "tcpstore": "plugins/tcpstore", "sqlite": "examples/etha-kvstore-sqlite"}
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


@pytest.mark.parametrize("backend", READMES)
def test_the_table_of_options_has_those_of_the_backend(backend: str) -> None:
    text = (ROOT / READMES[backend] / "README.md").read_text()
    told = [option for row in ROW.findall(text) for option in re.findall(r"\w+", row)]
    assert sorted(told) == sorted(option.name for option in find_backend(backend).options)
