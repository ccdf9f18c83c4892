"""No error about a configuration shows a secret that the configuration holds, and neither does a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etha.kvstore import open_store, open_store_from_config
from etha.kvstore.errors import ConfigError, KVStoreError
from secrecy import all_texts

pytestmark = [pytest.mark.security, pytest.mark.usefixtures("noted_backends")]

CANARY = "canary-271828"
BASE = {"backend": "many", "namespace": "job-42", "component": "trainer"}

URLS = [
    f"alone://u:{CANARY}@h1/job-42/trainer",
    f"many://u:{CANARY}@h1/job-42",
    f"many://u:{CANARY}@h1/job-42/trainer/key",
    f"many://u:{CANARY}@h1/job-42/trainer#part",
    f"many://u:{CANARY}@h1/job-42/trainer?timeuot=5",
    f"many://u:{CANARY}@h1/job-42/trainer?timeout=soon",
    f"many://u:{CANARY}@h1/job-42/trainer?password={CANARY}",
    f"many://u:{CANARY}@h1/job%2F42/trainer",
    f"many://u:{CANARY}@h1/${{UNSET}}/trainer",
    f"one://u:{CANARY}@h1,h2/job-42/trainer",
    f"one://u:{CANARY}@h1:http/job-42/trainer",
    f"nobodys://u:{CANARY}@h1/job-42/trainer",
    f"my_store://u:{CANARY}@h1/job-42/trainer",
    f"many://u:{CANARY}[@h1/job-42",
    f"many://u:[{CANARY}]@h1/job-42",
    f"many://u:{CANARY}\u2100@h1/job-42",
    f"many://u:{CANARY}\n@h1/job-42",
    f"many://u:{CANARY}@[h1]:1/job-42",
    f"many://u:{CANARY}@[::1/job-42",
]
MAPPINGS: list[dict[str, Any]] = [
    {**BASE, "options": {"password": [CANARY]}},
    {**BASE, "options": {"password": CANARY.encode()}},
    {**BASE, "options": {"password": CANARY, "timeuot": 5}},
    {**BASE, "options": {"password": "${SECRET}", "timeuot": 5}},
    {**BASE, "options": {"password": "${SECRET}${UNSET}"}},
    {**BASE, "options": [CANARY]},
    {**BASE, "password": CANARY},
    {**BASE, "namespace": "job/42", "options": {"password": CANARY}},
]
BROKEN_FILES = {
    "an end that is missing": f'[kvstore]\npassword = "{CANARY}',
    "a value that is missing": f'[kvstore.options]\npassword = "{CANARY}"\nuser = \n',
    "a secret without quotes": f"[kvstore.options]\npassword = {CANARY}\n",
    "a secret that is given twice": f'[kvstore.options]\npassword = "{CANARY}"\npassword = "{CANARY}"\n',
    "another encoding": f'[kvstore.options]\npassword = "{CANARY}"\nuser = "\u00e9"\n',
    "no table": f'password = "{CANARY}"\n',
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", CANARY)
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize("source", [*URLS, *MAPPINGS])
def test_no_error_shows_a_secret(source: Any) -> None:
    with pytest.raises(KVStoreError) as caught:
        open_store_from_config(source)
    assert CANARY not in all_texts(caught.value)


@pytest.mark.parametrize("source", URLS)
def test_no_error_about_the_environments_url_shows_a_secret(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETHA_KVSTORE_URL", source)
    with pytest.raises(KVStoreError) as caught:
        open_store_from_config()
    assert CANARY not in all_texts(caught.value)


@pytest.mark.parametrize("backend", ["many", "one", "alone"])
@pytest.mark.parametrize("mark", ["/", "?", "?timeout=", "#", "/?"])
def test_a_password_with_a_mark_that_should_have_been_encoded_is_refused_and_not_shown(backend: str, mark: str) -> None:
    url = f"{backend}://u:{CANARY}{mark}{CANARY}@h1:1/job-42/trainer"
    with pytest.raises(ConfigError) as caught:
        open_store_from_config(url, namespace="job-42", component="trainer")
    assert CANARY not in all_texts(caught.value)


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_no_error_about_a_toml_file_shows_a_secret(content: str, tmp_path: Path) -> None:
    file = tmp_path / "kvstore.toml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"kvstore\.toml") as caught:
        open_store_from_config(file)
    assert CANARY not in all_texts(caught.value)


@pytest.mark.parametrize("options", [{"password": (CANARY,)}, {"password": {CANARY: 1}}, {"pasword": CANARY}])
def test_no_error_about_an_option_shows_a_secret(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="pas") as caught:
        open_store(**BASE, **options)  # type: ignore[arg-type]
    assert CANARY not in all_texts(caught.value)


def test_a_stores_repr_shows_no_secret() -> None:
    with open_store_from_config(f"many://u:{CANARY}@h1/job-42/trainer") as store:
        assert CANARY in repr(vars(store))  # this store keeps it
        assert CANARY not in repr(store) + str(store)
