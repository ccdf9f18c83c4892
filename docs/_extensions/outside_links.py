"""Links that lead out of docs/, which work on a forge, made to work in the built pages.

A Markdown page that one of these pages includes is linked as that page. Any other file is copied beside the pages,
which Sphinx does by itself; a folder stands as text, since there is nothing to copy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

INCLUDED = {
    "benchmarks/results/results.md": "explanation/results-speed.md",
    "benchmarks/results/scale.md": "explanation/results-scale.md",
    "benchmarks/README.md": "explanation/results-how.md",
}
"""Pages of the repository, and the page of docs/ that includes each or stands for it."""

LINK = re.compile(
    r"(?P<before>\[(?P<text>[^\]]*)\]\(|^\[\w+\]: )(?P<target>(?:\.\./)+[^)\s#]+)(?P<after>\)?)", re.MULTILINE
)


def rewrite(text: str, page: Path, docs: Path) -> str:
    """Rewrite the links of a page that lead out of docs/."""

    def rewritten(match: re.Match[str]) -> str:
        target = (page.parent / match["target"]).resolve()
        if docs in target.parents or not target.is_relative_to(docs.parent):
            return match[0]
        inside = INCLUDED.get(target.relative_to(docs.parent).as_posix())
        if inside is not None:
            return f"{match['before']}/{inside}{match['after']}"
        return match[0] if target.is_file() or match["text"] is None else match["text"]

    return LINK.sub(rewritten, text)


def on_source_read(app: Sphinx, docname: str, content: list[str]) -> None:
    """Have Sphinx read the rewritten page."""
    content[0] = rewrite(content[0], Path(app.env.doc2path(docname)), Path(app.srcdir).resolve())


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx know of the rewriting."""
    app.connect("source-read", on_source_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
