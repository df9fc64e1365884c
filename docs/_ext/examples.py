"""Below each public name in the reference, links to examples that use it.

Which ones is in docs/examples.json, which ``python -m tests.kit.examples`` makes by running them.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from links import to_page
from sphinx import addnodes
from sphinx.application import Sphinx

from tests.kit import examples

ROOT = Path(__file__).parents[2]


def added(app: Sphinx, domain: str, _kind: str, content: addnodes.desc_content) -> None:
    """Add the links to a name's description, before its members."""
    signature = content.parent[0]
    if domain != "py" or not signature.get("ids"):
        return
    name = signature["ids"][0].removeprefix("libevent_py.")
    places = examples.table().get(name)
    if not places:
        return
    line = nodes.paragraph(classes=["examples"])
    line += nodes.Text("Example: " if len(places) == 1 else "Examples: ")
    for number, place in enumerate(places):
        if number:
            line += nodes.Text(", ")
        line += link(place, app.env.docname)
    members = [at for at, node in enumerate(content) if isinstance(node, addnodes.desc)]
    content.insert(members[0] if members else len(content), line)


def link(place: str, docname: str) -> nodes.Node:
    """Return a link to a place, such as ``tutorial/07-buffers#lines`` or ``samples/pair.py``."""
    if (ROOT / place).is_file():
        return nodes.reference("", "", nodes.literal(place, place), refuri=f"repo:{place}")
    page, _, anchor = place.partition("#")
    title = examples.title(place).removeprefix("Examples: ")
    title = title[:1].upper() + title[1:]
    return to_page(nodes.inline(title, title), page, docname, anchor)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what adds them."""
    app.connect("object-description-transform", added)
    return {"parallel_read_safe": True}
