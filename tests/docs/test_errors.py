"""The page on errors: each of them has its cause and its cure, from its docstring."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest

from etha.kvstore import errors
from etha.kvstore.errors import KVStoreError

FROM_THE_CODE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_extensions" / "from_the_code.py"))
ERRORS = [error for error in vars(errors).values() if inspect.isclass(error) and issubclass(error, KVStoreError)]


@pytest.mark.parametrize(
    "error", [error for error in ERRORS if error is not KVStoreError], ids=lambda error: error.__name__
)
def test_an_error_says_its_cause_and_what_to_do(error: type[KVStoreError]) -> None:
    cause, cure = FROM_THE_CODE["cause_and_cure"](error)
    assert cause.endswith(".")
    assert cure.endswith(".")


def test_the_table_has_a_row_for_every_error() -> None:
    assert len(FROM_THE_CODE["error_table"]().splitlines()) == len(errors.__all__) - 1 + 2
