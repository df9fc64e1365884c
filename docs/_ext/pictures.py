"""Pictures of docs/pictures are put into the page, so that they have the colours of its theme."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parents[1]


def inlined(app: Sphinx, doctree: nodes.document) -> None:
    """Replace each such image by its text."""
    for image in [*doctree.findall(nodes.image)]:
        path = (HERE / image["uri"]).resolve()
        if path.parent == HERE / "pictures":
            app.env.note_dependency(str(path))
            html = f'<div class="picture">{path.read_text()}</div>'
            image.replace_self(nodes.raw("", html, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what replaces them."""
    app.connect("doctree-read", inlined)
    return {"parallel_read_safe": True}
