"""``departures``: what the docstrings say of C where Python does something else, in one table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from c_index import reference
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.kit.departures import DEPARTS, departing

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*])")


def sentences(docstring: str) -> str:
    """Return those sentences of *docstring* that say how C differs."""
    found = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        text = " ".join(paragraph.split())
        found += [one for one in SENTENCE.split(text) if DEPARTS.search(one)]
    return " ".join(found)


class Departures(SphinxDirective):
    """The table: each name, and the sentences of its docstring."""

    def run(self) -> list[nodes.Node]:
        rows = [*self.rows()]
        table = nodes.table(classes=["departures"])
        group = nodes.tgroup(cols=2)
        group += [nodes.colspec(colwidth=30), nodes.colspec(colwidth=70)]
        group += nodes.thead("", row(nodes.Text("name"), nodes.Text("what its docstring says")))
        group += nodes.tbody("", *rows)
        table += group
        return [table]

    def rows(self) -> Iterator[nodes.row]:
        """Yield a row for each definition that departs from C."""
        for names, docstring in departing():
            name = names[0]
            text = sentences(docstring)
            told, _ = self.parse_inline(text)  # backquotes mean the same in Markdown
            yield row(reference(name, self.env.docname), *told)


def row(first: nodes.Node, *second: nodes.Node) -> nodes.row:
    """Return a row of two cells."""
    cells = (nodes.paragraph("", "", first), nodes.paragraph("", "", *second))
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("departures", Departures)
    return {"parallel_read_safe": True}
