"""What docstrings name in short is found: other modules' names, what a class inherits, and parameters.

Sphinx itself finds what stands in the same class or module. A name that is misspelt, or that the pages have nothing of,
is still a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

LINKED = ("attribute", "class", "exception", "function", "method")


def parameters_around(node: nodes.Node) -> Iterator[str]:
    """Give the parameters of what the docstring around a node describes, and of the class that this is in."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, addnodes.desc):
            for signature in node.children[:-1]:
                for parameter in signature.findall(addnodes.desc_parameter):
                    yield from (name.astext() for name in parameter.findall(addnodes.desc_sig_name))


def inherited(node: addnodes.pending_xref) -> Iterator[str]:
    """Give what a name would be in full in each base of the class that a docstring belongs to."""
    if node.get("py:class"):
        described: Any = import_module(node["py:module"])
        for part in node["py:class"].split("."):
            described = getattr(described, part)
        for base in described.__mro__:
            yield f"{base.__module__}.{base.__qualname__}.{node['reftarget']}"


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Link a name if exactly one thing is meant, and leave a parameter's name as it is."""
    if node.get("refdomain") != "py":
        return None
    python, wanted = env.domains.python_domain, node["reftarget"]
    if node["reftype"] == "obj" and wanted in parameters_around(node):
        return content
    found = [name for name in inherited(node) if name in python.objects][:1] or [
        name
        for name, known in python.objects.items()
        if f".{name}".endswith(f".{wanted}") and known.objtype in LINKED and not known.aliased
    ]
    if len(found) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found[0], node, content)


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx ask for what it does not find."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
