"""What the memory backend says of itself to who looks for a trouble."""

from __future__ import annotations

import os

import pytest

from etha_kvstore_memory.diagnose import diagnose


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"no_such_option": object()}])
def test_it_is_always_good_and_says_that_no_other_process_sees_the_keys(options: dict[str, object]) -> None:
    ((level, told),) = diagnose(options)
    assert level == "good"
    assert f"in one process only, here in {os.getpid()}" in told
    assert "two processes never meet by it" in told
