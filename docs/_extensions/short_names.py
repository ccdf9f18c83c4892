"""What a docstring of one module calls by its bare name is linked where it is another module's class or function."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

LINKED = ("class", "exception", "function")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Link a bare name if exactly one thing has it."""
    if node.get("refdomain") != "py":
        return None
    python = env.domains.python_domain
    wanted = node["reftarget"]
    found = [
        name
        for name, known in python.objects.items()
        if name.rpartition(".")[2] == wanted and known.objtype in LINKED and not known.aliased
    ]
    if len(found) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found[0], node, content)


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx ask for what it does not find."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
