"""Discovery: what distributions offer, in a real interpreter to which only the named ones are installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etha.kvstore import open_store
from etha.kvstore.errors import BackendConflictError, BackendIncompatibleError, BackendLoadError, BackendNotFoundError
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.registry import find_backend, installed_backends, register_backend, unregister_backend

BarePython = Callable[..., "subprocess.CompletedProcess[str]"]

PLUGIN = """
from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

@hookimpl
def kvstore_backend():
    return BackendSpec({name!r}, "{name}_store:Store", "keys on a shelf", contract={contract},
                       options=(Option("path", str),), capabilities=frozenset({{"list_keys"}}))
"""
STORE = """
from etha.kvstore.skeleton import SkeletalStore

class Store(SkeletalStore):
    def __init__(self, namespace, component, path=None):
        super().__init__(namespace, component)
    def _read(self, key, deadline): return None
    def _write(self, key, value, deadline): pass
    def _remove(self, key, deadline): return False
    def __repr__(self): return f"{type(self).__module__}.{type(self).__name__}"
"""
ATTEMPT = """
import sys
from etha.kvstore import open_store
from etha.kvstore.errors import KVStoreError
try:
    print(open_store({name!r}, namespace="n", component="c"))
except KVStoreError as error:
    print(type(error).__name__, " ".join(str(error).split()), type(error.__cause__).__name__, sep="\\n")
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        entry_points: str = "",
        *,
        distribution: str = "",
        version: str = "1.0",
        contract: int = 1,
        **modules: str,
    ) -> None:
        """Install a distribution: a healthy plugin, but for the modules and the entry points that are given."""
        distribution = distribution or f"kv-{name}"
        modules = {f"{name}_plugin": PLUGIN.format(name=name, contract=contract), f"{name}_store": STORE, **modules}
        information = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (information / "entry_points.txt").write_text(f"[etha.kvstore]\n{entry_points or f'{name} = {name}_plugin'}\n")
        for module, text in modules.items():
            (self.folder / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def attempt(bare_python: BarePython, name: str, *sites: Site) -> list[str]:
    """Open a store, and tell what was printed: the store, or the error's type, its text and the type of its cause."""
    done = bare_python("-c", ATTEMPT.format(name=name), folders=[site.folder for site in sites])
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# --- found ---


def test_a_healthy_backend_is_found_by_its_entry_point(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    assert attempt(bare_python, "shelf", site) == ["shelf_store.Store"]


def test_opening_one_backend_loads_nothing_of_another(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    site.install("other")
    script = ATTEMPT.format(name="shelf") + "print([m for m in sys.modules if m.startswith(('shelf_', 'other_'))])"
    done = bare_python("-c", script, folders=[site.folder])
    assert done.stdout.splitlines()[1] == "['shelf_plugin', 'shelf_store']"


def test_finding_a_backend_does_not_import_its_store(bare_python: BarePython, site: Site) -> None:
    site.install("shelf", shelf_store="raise AssertionError('imported too early')")
    script = "from etha.kvstore.registry import find_backend; print(find_backend('shelf').summary)"
    done = bare_python("-c", script, folders=[site.folder])
    assert (done.stdout, done.stderr) == ("keys on a shelf\n", "")


def test_the_same_distribution_seen_twice_is_one(bare_python: BarePython, site: Site, tmp_path: Path) -> None:
    site.install("shelf", distribution="kv-shelf")
    again = Site(tmp_path / "again")
    again.install("shelf", distribution="KV_Shelf", version="0.9")
    assert attempt(bare_python, "shelf", site, again) == ["shelf_store.Store"]


# --- not found ---


@pytest.mark.parametrize("name", ["memory", "tcpstore", "etcd"])
def test_a_backend_of_this_project_that_is_not_installed_says_how_to_install_it(
    name: str, bare_python: BarePython
) -> None:
    kind, text, _ = attempt(bare_python, name)
    assert kind == "BackendNotFoundError"
    assert text == f"Backend '{name}' is not installed. Install it with: pip install etha-kvstore-{name}"


def test_an_unknown_name_is_answered_with_the_nearest_and_all_installed(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    site.install("attic")
    kind, text, _ = attempt(bare_python, "shlef", site)
    assert kind == "BackendNotFoundError"
    assert "a backend 'shlef'; installed: attic, shelf. Did you mean 'shelf'?" in text


def test_the_nearest_name_may_be_one_that_could_be_installed(bare_python: BarePython) -> None:
    _, text, _ = attempt(bare_python, "ectd")
    assert "installed: none. Did you mean 'etcd'?" in text
    assert "etcd (pip install etha-kvstore-etcd)" in text


def test_a_name_near_to_nothing_is_answered_without_a_guess(bare_python: BarePython) -> None:
    kind, text, _ = attempt(bare_python, "zzz")
    assert kind == "BackendNotFoundError"
    assert "Did you mean" not in text


# --- broken ---

NO_HOOK = "has no function kvstore_backend, marked with etha.kvstore.hookspecs.hookimpl, that returns a BackendSpec"
HOOK = "from etha.kvstore.hookspecs import hookimpl\n@hookimpl\n"

BROKEN = {
    "an import that fails": ("import not_there", "Error: No module named 'not_there'", "ModuleNotFoundError"),
    "a syntax error": ("def", "can't be imported: SyntaxError", "SyntaxError"),
    "anything raised at import": ("1 / 0", "ZeroDivisionError: division by zero", "ZeroDivisionError"),
    "an exit at import": ("raise SystemExit(3)", "SystemExit: 3", "SystemExit"),
    "a misspelt hook": (f"{HOOK}def kvstore_bakend(): ...", "unknown hook 'kvstore_bakend'", "PluginValidationError"),
    "a hook with an argument": (f"{HOOK}def kvstore_backend(x): ...", "kvstore_backend", "PluginValidationError"),
    "a hook that fails": (f"{HOOK}def kvstore_backend(): 1 / 0", "division by zero", "ZeroDivisionError"),
    "a hook without its mark": ("def kvstore_backend(): ...", NO_HOOK, "NoneType"),
    "no hook": ("", NO_HOOK, "NoneType"),
    "a hook that returns nothing": (f"{HOOK}def kvstore_backend(): ...", NO_HOOK, "NoneType"),
    "a hook that returns something else": (f"{HOOK}def kvstore_backend(): return 'shelf'", NO_HOOK, "NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_with_the_reason_and_stops_no_other(
    case: str, bare_python: BarePython, site: Site
) -> None:
    module, said, cause = BROKEN[case]
    site.install("shelf", shelf_plugin=module)
    site.install("other")
    kind, text, cause_found = attempt(bare_python, "shelf", site)
    assert kind == "BackendLoadError"
    assert text.startswith("backend 'shelf' of kv-shelf 1.0 is installed, but ")
    assert said in text
    assert cause_found == cause
    assert attempt(bare_python, "other", site) == ["other_store.Store"]


def test_an_entry_point_that_names_no_module_is_a_broken_plugin_too(bare_python: BarePython, site: Site) -> None:
    site.install("shelf", "shelf = shelf_plugin:SHELF", shelf_plugin="SHELF = 3")
    kind, text, _ = attempt(bare_python, "shelf", site)
    assert kind == "BackendLoadError"
    assert NO_HOOK in text


def test_the_entry_point_and_the_spec_must_agree_on_the_name(bare_python: BarePython, site: Site) -> None:
    site.install("shelf", "rack = shelf_plugin")
    assert attempt(bare_python, "rack", site)[:2] == [
        "BackendLoadError",
        "kv-shelf 1.0 calls its entry point 'rack' but its backend 'shelf'; they must agree",
    ]


@pytest.mark.parametrize(
    ("store", "said", "cause"),
    [
        ("import not_there", "'shelf_store:Store' can't be imported: ModuleNotFoundError", "ModuleNotFoundError"),
        ("", "'shelf_store:Store' can't be imported: AttributeError", "AttributeError"),
        ("raise SystemExit(3)", "'shelf_store:Store' can't be imported: SystemExit", "SystemExit"),
        ("class Store: ...", "'shelf_store:Store' as its store, which is no KVStore class", "NoneType"),
        ("Store = 3", "'shelf_store:Store' as its store, which is no KVStore class", "NoneType"),
    ],
)
def test_a_store_class_that_cannot_serve_is_named_with_the_reason(
    store: str, said: str, cause: str, bare_python: BarePython, site: Site
) -> None:
    site.install("shelf", shelf_store=store)
    kind, text, cause_found = attempt(bare_python, "shelf", site)
    assert kind == "BackendLoadError"
    assert said in text
    assert cause_found == cause


@pytest.mark.parametrize("contract", [0, 2])
def test_a_plugin_for_another_contract_is_refused_with_both_versions(
    contract: int, bare_python: BarePython, site: Site
) -> None:
    site.install("shelf", contract=contract)
    site.install("other")
    kind, text, _ = attempt(bare_python, "shelf", site)
    assert kind == "BackendIncompatibleError"
    assert text.startswith(f"backend 'shelf' of kv-shelf 1.0 was written for version {contract} of the store contract")
    assert "this etha-kvstore keeps version 1" in text
    assert attempt(bare_python, "other", site) == ["other_store.Store"]


def test_two_distributions_that_claim_a_name_are_both_named_when_it_is_asked_for(
    bare_python: BarePython, site: Site
) -> None:
    site.install("shelf")
    site.install("attic", "shelf = attic_plugin\nattic = attic_plugin", version="2.0")
    kind, text, _ = attempt(bare_python, "shelf", site)
    assert kind == "BackendConflictError"
    assert "'shelf'" in text
    assert "kv-shelf 1.0" in text
    assert "kv-attic 2.0" in text
    assert attempt(bare_python, "attic", site) == ["attic_store.Store"]


def test_a_distribution_whose_entry_points_are_damaged_stops_no_other(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    site.install("other")
    (site.folder / "kv_shelf-1.0.dist-info" / "entry_points.txt").write_text("[etha.kvstore]\nno entry point\n")
    done = bare_python("-c", ATTEMPT.format(name="other"), folders=[site.folder])
    assert done.stdout == "other_store.Store\n"
    assert "damaged metadata" in done.stderr


def test_a_distribution_that_can_no_longer_say_its_name_stops_no_other_and_serves(
    bare_python: BarePython, site: Site
) -> None:
    site.install("shelf")
    site.install("other")
    (site.folder / "kv_shelf-1.0.dist-info" / "METADATA").unlink()
    assert attempt(bare_python, "other", site) == ["other_store.Store"]
    assert attempt(bare_python, "shelf", site) == ["shelf_store.Store"]
    listed = bare_python("-m", "etha.kvstore", "backends", folders=[site.folder])
    headings = [line for line in listed.stdout.splitlines() if not line.startswith(" ")]
    assert headings == ["other  (kv-other 1.0)", "shelf  (a distribution with damaged metadata)"]


def test_a_distribution_that_can_no_longer_say_its_name_claims_no_backend_of_another(
    bare_python: BarePython, site: Site
) -> None:
    site.install("shelf")
    site.install("attic", "shelf = attic_plugin")
    (site.folder / "kv_attic-1.0.dist-info" / "METADATA").unlink()
    done = bare_python("-c", ATTEMPT.format(name="shelf"), folders=[site.folder])
    assert done.stdout == "shelf_store.Store\n"
    assert "metadata are damaged" in done.stderr


def test_a_backend_in_an_archive_is_found(bare_python: BarePython, site: Site, tmp_path: Path) -> None:
    site.install("shelf")
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", site.folder))
    done = bare_python("-c", ATTEMPT.format(name="shelf"), folders=[archive, tmp_path / "absent.zip"])
    assert (done.stdout, done.stderr) == ("shelf_store.Store\n", "")


# --- the command ---


def test_the_command_says_what_to_install_where_nothing_is(bare_python: BarePython) -> None:
    done = bare_python("-m", "etha.kvstore", "backends")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "No backends are installed. Install one with pip:",
        "  pip install etha-kvstore-memory",
        "  pip install etha-kvstore-tcpstore",
        "  pip install etha-kvstore-etcd",
    ]


def test_the_command_lists_each_backend_with_what_it_can(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    site.install("attic", version="2.0")
    done = bare_python("-m", "etha.kvstore", "backends", folders=[site.folder])
    assert (done.returncode, done.stderr) == (0, "")
    described = ["  keys on a shelf", "  capabilities: list_keys", "  options: path"]
    assert done.stdout.splitlines() == ["attic  (kv-attic 2.0)", *described, "shelf  (kv-shelf 1.0)", *described]


def test_the_command_fails_where_a_backend_is_broken_and_lists_the_others_all_the_same(
    bare_python: BarePython, site: Site
) -> None:
    site.install("attic", attic_plugin="import not_there")
    site.install("cellar", contract=2)
    site.install("shelf")
    site.install("shelf2", "double = shelf2_plugin")
    site.install("shelf3", "double = shelf3_plugin")
    done = bare_python("-m", "etha.kvstore", "backends", folders=[site.folder])
    assert (done.returncode, done.stderr) == (1, "")
    headings = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert headings == [
        "attic  (kv-attic 1.0)",
        "cellar  (kv-cellar 1.0)",
        "double  (kv-shelf2 1.0)",
        "double  (kv-shelf3 1.0)",
        "shelf  (kv-shelf 1.0)",
    ]
    assert done.stdout.count("\n  broken: ") == 4
    assert "No module named 'not_there'" in done.stdout
    assert "  keys on a shelf" in done.stdout


def test_the_command_without_a_verb_says_how_to_use_it(bare_python: BarePython) -> None:
    done = bare_python("-m", "etha.kvstore")
    assert done.returncode == 2
    assert "backends" in done.stderr


# --- in this process ---

MINE = BackendSpec("mine", "nowhere:Store", "an experiment", contract=1)


@pytest.fixture
def mine() -> Iterator[None]:
    register_backend(MINE)
    yield
    unregister_backend("mine")


@pytest.mark.usefixtures("mine")
def test_a_registered_backend_is_found_and_listed() -> None:
    assert find_backend("mine") is MINE
    [listed] = [backend for backend in installed_backends() if backend.name == "mine"]
    assert (listed.distribution, listed.spec, listed.error) == ("(this process)", MINE, None)


@pytest.mark.usefixtures("mine")
def test_a_name_is_registered_once() -> None:
    with pytest.raises(BackendConflictError, match="'mine' is registered in this process already"):
        register_backend(MINE)


def test_what_was_unregistered_is_gone() -> None:
    register_backend(MINE)
    unregister_backend("mine")
    with pytest.raises(BackendNotFoundError):
        find_backend("mine")
    with pytest.raises(BackendNotFoundError, match="'mine' is not registered"):
        unregister_backend("mine")


def test_an_installed_name_cannot_be_registered_over(bare_python: BarePython, site: Site) -> None:
    site.install("shelf")
    script = """
from etha.kvstore.errors import BackendConflictError
from etha.kvstore.registry import find_backend, register_backend
try:
    register_backend(find_backend("shelf"))
except BackendConflictError as error:
    print(error)
"""
    done = bare_python("-c", script, folders=[site.folder])
    assert done.stdout == "backend 'shelf' is installed: kv-shelf 1.0; choose another name\n"


def test_a_backend_for_another_contract_is_not_registered() -> None:
    with pytest.raises(BackendIncompatibleError, match="'theirs' of this process was written for version 2"):
        register_backend(BackendSpec("theirs", "nowhere:Store", "an experiment", contract=2))
    with pytest.raises(BackendNotFoundError):
        find_backend("theirs")


@pytest.mark.usefixtures("mine")
def test_the_store_of_a_registered_backend_is_imported_when_it_is_opened() -> None:
    with pytest.raises(BackendLoadError, match="'nowhere:Store' can't be imported: ModuleNotFoundError"):
        open_store("mine", namespace="n", component="c")


@pytest.mark.parametrize("name", [None, 1, b"memory", ["memory"]])
def test_a_backend_is_chosen_by_a_str(name: object) -> None:
    with pytest.raises(TypeError, match=f"a backend is chosen by name, a str, not {type(name).__name__}"):
        find_backend(name)  # type: ignore[arg-type]
