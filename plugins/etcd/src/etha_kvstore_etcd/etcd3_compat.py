"""The package ``etcd3`` made importable on today's protobuf, with its messages in a descriptor pool of their own.

The generated code in ``etcd3`` 0.12.0 is three files' descriptors, as bytes, and calls by which protobuf 3 made classes
of them; protobuf 4 and later refuse those calls. Here the bytes are read from the source, which is parsed and not
executed, and the classes are made of them in today's way.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

__all__ = ["import_etcd3"]

KNOWN_VERSION = "0.12.0"
INSTALL = "pip install etha-kvstore-etcd[etcd3]"

GENERATED = ("kv_pb2", "auth_pb2", "rpc_pb2")
"""The modules to build; each comes after those whose messages it uses."""

_lock = threading.Lock()


def import_etcd3() -> ModuleType:
    """Import the package ``etcd3`` beside any protobuf that this distribution accepts.

    It is not tried the plain way first: that fails only after it has put a ``kv.proto`` into the process's default
    descriptor pool, where another etcd client may need to put its own. After this call ``import etcd3`` works
    everywhere in the process.

    Returns
    -------
    module
        ``etcd3``, the same one at every call and in every thread. Where it is imported already, it is returned as it
        is.

    Raises
    ------
    ImportError
        If it is not installed, or is not the version that the extra ``etcd3`` brings, or lacks something that it
        needs; the text says which. ``sys.modules`` then holds of ``etcd3`` what it held before.

    Examples
    --------
    >>> etcd3 = import_etcd3()
    >>> with etcd3.client(host="10.0.0.1", port=2379, timeout=10) as client:
    ...     reply = client.put("job-42/trainer/ready", "1")
    """
    with _lock:
        before = _loaded()
        if before.get("etcd3") is not None:
            return importlib.import_module("etcd3")
        try:
            return _import()
        except BaseException:
            for name in _loaded():
                sys.modules.pop(name, None)
            sys.modules.update(before)
            raise


def _loaded() -> dict[str, ModuleType]:
    """List what `sys.modules` holds of the package; of a copy, since other threads import meanwhile."""
    return {name: module for name, module in sys.modules.copy().items() if name.partition(".")[0] == "etcd3"}


def _import() -> ModuleType:
    generated = _build()
    sys.modules.update({module.__name__: module for module in generated.values()})
    try:
        # The import system binds a submodule to its package when it loads it, and these it finds loaded.
        vars(importlib.import_module("etcd3.etcdrpc")).update(generated)
        return importlib.import_module("etcd3")
    except Exception as error:  # a package that is imported may fail with anything
        raise ImportError(
            f"the package etcd3 is installed, but can't be imported: {type(error).__name__}: {error}; "
            f"version {KNOWN_VERSION} and what it needs come with: {INSTALL}",
            name="etcd3",
        ) from error


def _build() -> dict[str, ModuleType]:
    """Build the generated modules of the installed package, by their names in ``etcd3.etcdrpc``."""
    spec = importlib.util.find_spec("etcd3")
    if spec is None or spec.origin is None:  # a mere folder of that name has a spec, but no origin
        raise ImportError(f"the package etcd3 is not installed; install it with: {INSTALL}", name="etcd3")
    pool, modules = DescriptorPool(), {}
    for name in GENERATED:
        path = Path(spec.origin).parent / "etcdrpc" / f"{name}.py"
        try:
            modules[name] = _build_one(name, path, pool)
        except Exception as error:  # what a pool raises differs between protobuf's implementations
            raise ImportError(
                f"the installed package etcd3 does not look like version {KNOWN_VERSION}: {path} can't be used: "
                f"{type(error).__name__}: {error}; that version comes with: {INSTALL}",
                name="etcd3",
                path=str(path),
            ) from error
    return modules


def _build_one(name: str, path: Path, pool: DescriptorPool) -> ModuleType:
    file = pool.AddSerializedFile(_serialized_descriptor(path.read_text("utf-8")))
    spec = importlib.util.spec_from_file_location(f"etcd3.etcdrpc.{name}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    contents: dict[str, object] = {"DESCRIPTOR": file}
    for message in file.message_types_by_name.values():
        contents[message.name] = message_factory.GetMessageClass(message)
    for enum in file.enum_types_by_name.values():
        contents[enum.name] = EnumTypeWrapper(enum)
        contents.update({value.name: value.number for value in enum.values})
    vars(module).update(contents)
    return module


def _serialized_descriptor(source: str) -> bytes:
    """Find the bytes in ``DESCRIPTOR = _descriptor.FileDescriptor(..., serialized_pb=_b('...'))``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(arg="serialized_pb", value=ast.Call(args=[ast.Constant(value=str(text))])):
                return text.encode("latin-1")
    raise LookupError("no serialized_pb in it")
