"""The reference: each public name with its docstring, and links from names to it.

A page of docs/reference names classes, functions or modules; which of their names are public says
tests/kit/names.py, which a test compares with what there is.
"""

from __future__ import annotations

import asyncio
import builtins
import enum
import functools
import importlib
import inspect
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import TypeAliasForwardRef
from sphinx.util.nodes import make_refnode

import pytest_libevent
from libevent_py import types
from tests.kit import c_names, names

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]

#: What a name in a docstring may leave out.
PREFIXES = ["libevent_py.", "libevent_py.types.", "libevent_py.rpc.", "libevent_py.testing."]
PREFIXES += ["libevent_py.aio.", "libevent_py.enums."]


def thing(name: str) -> Any:
    """Return the object of that dotted name, whose first parts are modules."""
    found: Any = importlib.import_module("libevent_py")
    for part in name.split(".")[1:]:
        found = getattr(found, part, None) or importlib.import_module(f"{found.__name__}.{part}")
    return found


class Public(SphinxDirective):
    """``public``: the reference of the names given, one a line.

    Of a class all its public members, of a module its docstring alone.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.directive(name.strip()) for name in self.content if name.strip())
        return self.parse_text_to_nodes(text)

    def directive(self, name: str) -> str:
        """Return the directive of autodoc's for *name*."""
        full = f"libevent_py.{name}"
        found = thing(full)
        if inspect.ismodule(found) and name != "lib":  # which cffi makes look like one
            return f".. automodule:: {full}\n"
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return f".. autoclass:: {full}\n   :class-doc-from: class\n\n{enumerated(found)}"
        if isinstance(found, type):
            members = ", ".join(names.members(found))
            own = issubclass(found, tuple)  # whose __new__ says nothing
            shown = f"   :members: {members}\n   :undoc-members:\n" if members else ""
            if special := names.special(found):
                shown += f"   :special-members: {', '.join(special)}\n"
            kind = "   :class-doc-from: class\n" if own else ""
            return f".. autoclass:: {full}\n{kind}{shown}"
        kind = "function" if callable(found) and not hasattr(found, "__args__") else "data"
        return f".. auto{kind}:: {full}\n"


class PublicTypes(SphinxDirective):
    """``public-types``: what the docstring of `libevent_py.types` says of each."""

    def run(self) -> list[nodes.Node]:
        found = re.findall(r"^    (\w+) +(.*(?:\n {30,}.*)*)", types.__doc__ or "", re.MULTILINE)
        lines = [".. py:module:: libevent_py.types", ""]
        for name, said in found:
            kind = getattr(types, name)
            value = "" if inspect.isclass(kind) else f"   :type: {written(kind)}\n"
            lines += [f".. py:data:: {name}\n{value}", f"   {linked(said)}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def written(kind: Any) -> str:
    """Return an alias as one writes it."""
    text = str(kind) if not isinstance(kind, type) else kind.__name__
    text = re.sub(r"ForwardRef\('([\w |]+)'\)", r"\1", text)
    text = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text).replace("NoneType", "None")
    return text.replace("'", "")


def linked(said: str) -> str:
    """Return what is said with C's callbacks marked as such."""
    text = " ".join(said.split())
    return re.sub(r"\b(\w+_(?:cb|fn|type|func|errorcb)|evhttp_\w+)(?:\(\))?", r"``\1``", text)


def missing(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Node
) -> nodes.Node | None:
    """Find a name that leaves something out, or is Python's own."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    domain = env.domains.python_domain
    for name in (*(f"{prefix}{target}" for prefix in PREFIXES), *aliased(target)):
        if name in domain.objects:
            found = domain.objects[name]
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content)
    return content if pythons(target) or others(target) else None


def aliased(target: str) -> Iterator[str]:
    """Yield the public names of an internal one, such as ``libevent_py.event.event.Event``."""
    last = target.rpartition(".")[2]
    if target.startswith("libevent_py."):
        yield from (f"{prefix}{last}" for prefix in PREFIXES)


def pythons(target: str) -> bool:
    """Tell whether a name is of Python's own, or of a package of others."""
    root, _, rest = target.partition(".")
    if hasattr(builtins, root):
        return True
    return bool(rest) and root in sys.stdlib_module_names


def others(target: str) -> bool:
    """Tell whether a name is that of a fixture, a file, or a type that has no page of its own."""
    last = target.rpartition(".")[2]
    if hasattr(pytest_libevent, target) or (ROOT / target).exists():
        return True
    return last in TYPES or any(hasattr(kind, target) for kind in FAMILIAR)


#: What stands in signatures and has no page: variables for types, and types for checkers alone.
TYPES = {"Arguments", "B", "CData", "Default", "E", "F", "HasFileno", "HookedRequest", "M", "N"}
TYPES |= {"PathLike", "Request", "Result", "Self", "State", "T", "Totals", "V"}

#: Whose methods docstrings name alone.
FAMILIAR = (asyncio.AbstractEventLoop, socket.socket)


def plain(_app: Sphinx, doctree: nodes.document) -> None:
    """Let the names of Python's own types lead to them, not to members that have the same name."""
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("reftype") == "class" and hasattr(builtins, node["reftarget"]):
            for key in ("refspecific", "py:class"):
                node.attributes.pop(key, None)


@functools.cache
def public() -> set[str]:
    """Return all public names, without ``libevent_py``."""
    return {
        f"{heading}.{name}".removeprefix("libevent_py.").removeprefix(".")
        for heading, listed in names.sections()
        for name in listed
    }


#: The names that variables have in the documents, and their class.
VARIABLES = {"base": "EventBase", "bev": "BufferEvent", "event": "Event", "listener": "Listener"}
VARIABLES |= {"server": "HttpServer", "buffer": "Buffer", "connection": "HttpConnection"}
WRITTEN = re.compile(r"(\w+)((?:\.\w+)*)(\(.*\))?")


def meant(text: str) -> str | None:
    """Return the public name that is meant by *text*, such as ``base.defer(f)``."""
    found = WRITTEN.fullmatch(text.removeprefix("libevent_py."))
    if not found or not (found[2] or found[1][0].isupper()):
        return None
    full = "".join(found.group(1, 2))
    held = f"{VARIABLES.get(found[1], '')}{found[2]}"
    for name in (full, held, f"testing.{full}", f"aio.{full}"):
        if name in public():
            return name
    return None


def refer(app: Sphinx, doctree: nodes.document) -> None:
    """Let each public name in backquotes lead to the reference."""
    for literal in [*doctree.findall(nodes.literal)]:
        name = meant(literal.astext())
        if name and may_link(literal):
            literal.replace_self(
                addnodes.pending_xref(
                    "",
                    literal.deepcopy(),
                    refdomain="py",
                    reftype="obj",
                    reftarget=f"libevent_py.{name}",
                    refdoc=app.env.docname,
                    refwarn=True,
                )
            )


def may_link(literal: nodes.literal) -> bool:
    """Tell whether a name may become a link: it is none, and in no heading."""
    above: Any = literal.parent
    while above is not None:
        if isinstance(above, (nodes.reference, addnodes.pending_xref, nodes.title, nodes.term)):
            return False
        above = above.parent
    return True


def told(_app: Sphinx, _what: str, name: str, obj: Any, _options: Any, lines: list[str]) -> None:
    """Give attributes the docstrings that they have elsewhere; complain where there is none."""
    parent, _, last = name.rpartition(".")
    of_type = not isinstance(obj, type) and getattr(obj, "__doc__", None) == type(obj).__doc__
    if of_type or any(line.startswith("Alias for field number") for line in lines):
        lines.clear()  # that is Python's own, and says nothing of the name
    if not any(lines):
        lines[:] = inherited(parent, last)
        if not any(lines):
            logger.warning("%s has no docstring", name)


def enumerated(kind: type[enum.Enum]) -> str:
    """Return the members of an enumeration, with their docstrings and their names in C."""
    parts = []
    for name, member in kind.__members__.items():
        c = [f"``{one.name}``" for one in c_names.python(f"{kind.__name__}.{name}")]
        said = f"{member.__doc__ or ''} {', '.join(c)}{'.' if c else ''}".strip()
        value = f"{member.value:d}" if isinstance(member.value, int) else repr(member.value)
        parts.append(f"   .. py:attribute:: {name}\n      :value: {value}\n\n      {said}\n")
    return "\n".join(parts)


#: What is said of values and of the door to C, which have no docstrings.
DOOR = {
    "ffi": "cffi's ``ffi`` for libevent: types, memory and callbacks of C.",
    "lib": "All of libevent's functions and constants, as they are in C.",
    "libevent_version": "The version of the libevent in use. Wraps ``event_get_version``.",
    "libevent_version_number": "The same as a number, such as 0x02010c00 for 2.1.12. "
    "Wraps ``event_get_version_number``.",
}


def inherited(parent: str, name: str) -> list[str]:
    """Return what is said of an attribute where it is annotated, in a class or one above."""
    if name in DOOR:
        return [DOOR[name]]
    kind = thing(parent)
    for above in getattr(kind, "__mro__", ()):
        slots = vars(above).get("__slots__")
        if isinstance(slots, dict) and slots.get(name):
            return [slots[name]]
        if above.__module__.startswith("libevent_py"):
            source = inspect.getsource(above)
            found = re.search(rf"((?:^ +#:.*\n)+) +{name}\b", source, re.MULTILINE)
            if found:
                return [line.strip().removeprefix("#:").strip() for line in found[1].splitlines()]
    return []


def signed(
    _app: Sphinx,
    _what: str,
    _name: str,
    obj: Any,
    _options: Any,
    signature: str | None,
    returns: Any,
) -> tuple[str | None, Any]:
    """Leave out that an enumeration is called with a value."""
    is_enum = isinstance(obj, type) and issubclass(obj, enum.Enum)
    return ("" if is_enum else signature), returns


def alias(self: TypeAliasForwardRef) -> str:
    """Return the name of an alias, which Sphinx shows in the middle of a type."""
    return str(self.name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives, and how names are found."""
    app.add_directive("public", Public)
    app.add_directive("public-types", PublicTypes)
    app.connect("missing-reference", missing)
    app.connect("autodoc-process-docstring", told)
    app.connect("autodoc-process-signature", signed)
    app.connect("doctree-read", plain)
    app.connect("doctree-read", refer)
    TypeAliasForwardRef.__repr__ = alias  # type: ignore[method-assign]
    return {"parallel_read_safe": True}
