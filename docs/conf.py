"""How Sphinx builds these pages: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "etha.kvstore"
version = release = metadata.version("etha-kvstore")
copyright = "the etha.kvstore authors"  # noqa: A001 (Sphinx's name for it)

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
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

copybutton_prompt_text = "$ "
