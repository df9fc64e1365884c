"""The C index, and the links to it from each name of C's on the site."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from docutils import nodes
from reference import may_link
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from libevent_py import lib
from tests.kit import c_names
from tests.kit.c_names import Name

PAGE = "c-index"
#: Up to so many names that begin alike share a heading with others.
FEW = 3
#: What is said of a name that has no counterpart, before the reason.
ABSENT = {
    c_names.FUNCTION: "Not wrapped: ",
    c_names.MACRO: "A macro: ",
    c_names.CONSTANT: "In no enumeration: ",
    c_names.STRUCTURE: "No class: ",
    c_names.ENUMERATION: "No enumeration: ",
    c_names.CALLBACK: "No type: ",
}

#: How a name of C's stands in backquotes.
WRITTEN = re.compile(
    r"(?:libevent_py\.)?(?:lib\.)?(?P<struct>struct )?(?P<name>[A-Za-z_]\w+)(?:\(\))?(?: \*)?"
)


def name_in(text: str) -> Name | None:
    """Return what *text*, which stands in backquotes, names in C."""
    found = WRITTEN.fullmatch(text)
    if not found:
        return None
    all_names = c_names.names()
    if found["struct"]:
        return all_names.get(f"struct-{found['name']}")
    return all_names.get(f"c-{found['name']}")


class CIndex(SphinxDirective):
    """``c-index``: all names of libevent's headers, in alphabetical order."""

    def run(self) -> list[nodes.Node]:
        found = []
        for _, group in itertools.groupby(c_names.names().values(), key=prefix):
            found.append([*group])
        return [self.section(group) for group in joined(found)]

    def section(self, group: list[Name]) -> nodes.Node:
        """Return the part of the index with a heading of its own."""
        head = title(group)
        section = nodes.section(ids=[nodes.make_id(f"names-{group[0].id}")])
        section += nodes.title(head, head)
        items = nodes.definition_list(classes=["c-index"])
        for one in group:
            items += self.item(one)
        section += items
        return section

    def item(self, one: Name) -> nodes.Node:
        """Return the entry of a name."""
        shown = f"struct {one.name}" if one.kind == c_names.STRUCTURE else one.name
        term = nodes.term("", "", nodes.literal(shown, shown), ids=[one.id])
        self.state.document.note_explicit_target(term)
        self.env.domains.standard_domain.note_object("cname", one.id, one.id, location=term)
        term += nodes.inline("", f" {one.kind}, {one.header}", classes=["c-kind"])
        told = nodes.definition()
        if "(" in one.text and one.kind != c_names.MACRO:
            told += nodes.paragraph("", "", nodes.literal(one.text, one.text), classes=["c-text"])
        told += nodes.paragraph("", "", *self.where(one))
        return nodes.definition_list_item("", term, told)

    def where(self, one: Name) -> Iterator[nodes.Node]:
        """Yield what says where a name went."""
        if one.wrapped:
            yield from self.listed("", one.wrapped)
        if one.stood_for:
            lead = "; in its place " if one.wrapped else "In its place: "
            yield from self.listed(lead, one.stood_for)
        said = bool(one.wrapped or one.stood_for)
        if one.instead:
            yield from self.listed("", one.instead)
            said = True
        if one.why:
            yield nodes.Text(": " if said else ABSENT[one.kind])
            yield from quoted(one.why)
        if one.instead_in_c:
            yield nodes.Text(". Use ")
            for number, name in enumerate(one.instead_in_c):
                yield nodes.Text(" or " if number else "")
                yield nodes.literal(name, name)
                for place in c_names.names()[f"c-{name}"].wrapped[:1]:
                    yield from self.listed(", which is ", [place])
        raw = one.kind in (c_names.FUNCTION, c_names.CONSTANT) and hasattr(lib, one.name)
        if raw and not said:
            yield nodes.Text(". As in C: ")
            yield nodes.literal("", f"lib.{one.name}", classes=["c-raw"])
        yield nodes.Text(".")

    def listed(self, lead: str, names: list[str]) -> Iterator[nodes.Node]:
        """Yield names of Python's, with links to the reference."""
        if lead:
            yield nodes.Text(lead)
        for number, name in enumerate(dict.fromkeys(names)):
            if number:
                yield nodes.Text(", ")
            yield reference(name, self.env.docname)


def reference(name: str, docname: str) -> nodes.Node:
    """Return a link to the public *name* in the reference."""
    target = re.sub(r"\.__\w+__$", "", name).replace("rpc_message.", "rpc.")
    node = addnodes.pending_xref(
        "",
        nodes.literal(name, name),
        refdomain="py",
        reftype="obj",
        reftarget=f"libevent_py.{target}",
        refdoc=docname,
        refwarn=True,
    )
    return node


def quoted(text: str) -> Iterator[nodes.Node]:
    """Yield a text, whose names are in backquotes."""
    for number, part in enumerate(text.split("`")):
        if part:
            yield nodes.literal(part, part) if number % 2 else nodes.Text(part)


def prefix(one: Name) -> str:
    """Return the first part of a name, in small letters."""
    return one.name.lower().partition("_")[0]


def title(group: list[Name]) -> str:
    """Return the heading for *group*: how its names begin, or the first and the last."""
    first, last = group[0].name, group[-1].name
    if prefix(group[0]) != prefix(group[-1]):
        return f"{first} to {last}"
    if len(group) == 1:
        return first
    pair = (first.lower(), last.lower())
    same = itertools.takewhile(lambda two: two[0] == two[1], zip(*pair, strict=False))
    return "".join(letter for letter, _ in same)


def joined(groups: list[list[Name]]) -> list[list[Name]]:
    """Return the groups, small ones that follow each other as one."""
    found: list[list[Name]] = []
    for group in groups:
        if found and len(group) <= FEW and len(found[-1]) <= 2 * FEW:
            found[-1] += group
        else:
            found.append([*group])
    return found


def linked(app: Sphinx, doctree: nodes.document) -> None:
    """Let each name of C's in backquotes lead to the index, but where it stands there itself."""
    for literal in [*doctree.findall(nodes.literal)]:
        if "c-raw" in literal["classes"] or not may_link(literal):
            continue
        if one := name_in(literal.astext()):
            literal.replace_self(to_index(literal, one, app.env.docname))


def to_index(literal: nodes.literal, one: Name, docname: str) -> nodes.Node:
    """Return a name as a link to the index."""
    node = addnodes.pending_xref(
        "",
        literal.deepcopy(),
        refdomain="std",
        reftype="cname",
        reftarget=one.id,
        refdoc=docname,
        refexplicit=True,
        refwarn=True,
    )
    return node


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the index and the links to it."""
    app.add_object_type("cname", "cname", objname="C name")
    app.add_directive("c-index", CIndex)
    app.connect("doctree-read", linked)
    return {"parallel_read_safe": True}
