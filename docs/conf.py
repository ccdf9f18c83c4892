"""How Sphinx builds these pages: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "etha.kvstore"
version = release = metadata.version("etha-kvstore")
copyright = "the etha.kvstore authors"  # noqa: A001 (Sphinx's name for it)

TYPES = ("optional", "callable", "iterable", "mapping", "sequence", "path", "pairs", "str to bytes", "str and int")
"""Words by which a numpydoc section says a type, and which no class is called."""

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "from_the_code",
    "outside_links",
    "short_names",
]
exclude_patterns = ["_build", "requirements.txt"]

html_theme = "furo"
html_title = "etha.kvstore"
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # they make a dash of the two hyphens before an option

default_role = "py:obj"  # what a docstring names in single backticks
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", "|".join(TYPES)),
    # Other people's names: the build asks no other site for what they are.
    ("py:.*", r"(abc|etcd3|threading|torch\.distributed)\..+|(File|Hash|Prefix|TCP)Store"),
    ("py:obj", "True|False"),  # Sphinx knows None alone of the three
    ("py:obj", "ETHA_KVSTORE_URL"),  # a variable of the environment
    ("py:obj", "timeout|max_request_bytes"),  # options, named by an error's cure
]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False

copybutton_prompt_text = "$ "


def setup(app: Sphinx) -> None:
    """Leave out what a named tuple says of its fields: their class's docstring says it."""
    app.connect("autodoc-skip-member", lambda *event: "Alias for field number" in str(event[3].__doc__) or None)
