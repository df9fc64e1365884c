"""What calls C says so in its docstring: each operation is tried and traced."""

from __future__ import annotations

import ast
import json
import re
from functools import cache

import pytest

import libevent_py
from libevent_py._cli.find import PACKAGE, definitions_in, public, stood_for, wrapped
from tests.kit.support import ROOT
from tests.kit.tracing import traced

#: Functions that are called only to look at something, or to keep others out meanwhile.
LOOKS = re.compile(
    r"event_pending|event_debug_unassign|event_gettime_monotonic|event_base_foreach_event"
    r"|evutil_ascii_strcasecmp|\w+_get\w+|\w+_(un)?lock|evbuffer_(peek|ptr_set|(un)?freeze)"
)

#: What says nothing of C although something is called; and why.
SILENT = {
    "EventBase.defer": "the package's own: an event wakes the loop",
    "EventBase.call": "the package's own: an event wakes the loop",
    "EventBase.turns": "sets up what a turn needs",
    "CommonTimeout": "made by EventBase.init_common_timeout, which says it",
    "BufferCallback": "made by Buffer.add_cb, which says it",
    "DnsLookup": "made by the methods of DnsBase, which say it",
    "BoundSocket": "made by HttpServer.bind_socket, which says it",
    "RpcCall": "made by RpcPool.call, which says it",
    "DnsLookup.close": "cancel() says it",
    "DnsServerRequest.close": "drop() says it",
    "Rpc.close": "fail() says it",
    "HttpServer.on_headers": "the package's own: C has no such callback",
    "HttpServerRequest.on_end": "the package's own: C tells only of answers that are written",
    "Headers": "the calls of add()",
    "Headers.update": "the calls of add() and of deleting",
    "Headers.setdefault": "the calls of get() and add()",
    "Headers.pop": "the calls of get() and of deleting",
    "Headers.close": "clear() says it",
    "Query": "as Headers",
    "Query.update": "as Headers",
    "Query.setdefault": "as Headers",
    "Query.pop": "as Headers",
    "Query.close": "as Headers",
    "Uri.copy": "gets and sets each part",
    "Message.marshal": "by tag.marshal() and the like, for each field",
    "Message.unmarshal": "by tag.unmarshal() and the like, for each field",
}

#: What stands for a function, and calls another one that it doesn't name; and why.
UNNAMED = {"EventBase.once": "an event of its own, which is assigned and added as any other"}


@cache
def docstrings() -> dict[str, str]:
    """Return the docstrings of each public name; of a property, all of them."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node in definitions_in(ast.parse(path.read_bytes())):
            for known in public(name):
                found[known] = found.get(known, "") + "\n" + (ast.get_docstring(node) or "")
    return found


def said_of(name: str) -> str:
    """Return what the docstrings say of *name*, those of base classes included."""
    kind, dot, member = name.partition(".")
    thing = getattr(libevent_py, kind, None)
    classes = [one.__name__ for one in thing.__mro__] if isinstance(thing, type) else [kind]
    return "".join(docstrings().get(f"{one}{dot}{member}", "") for one in classes)


def named(operation: str) -> str | None:
    """Return the public name that *operation* is of; None for what Python itself calls."""
    kind, _, member = re.sub(r"=?(/.*)?$", "", operation).partition(".")
    if member == "__init__":
        return kind
    if member.startswith("__") or " " in member:
        return None
    return member if kind == "tag" else f"{kind}.{member}"


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each public name calls in C, in all of its operations."""
    place = tmp_path_factory.mktemp("called")
    program = str(ROOT / "tests" / "kit" / "called_in_c.py")
    done = traced(place, program, str(place / "trace"))
    found: dict[str, set[str]] = {}
    for operation, functions in json.loads(done.out).items():
        name = named(operation)
        if name is not None:
            found.setdefault(name, set()).update(functions)
    return found


@pytest.mark.more
def test_what_calls_c_says_so(called: dict[str, set[str]]) -> None:
    silent = {}
    for name, functions in called.items():
        acts = {one for one in functions if not LOOKS.fullmatch(one)}
        said = said_of(name)
        if acts and not (wrapped(said) or stood_for(said)):
            silent[name] = acts
    assert {name: acts for name, acts in silent.items() if name not in SILENT} == {}
    assert sorted(SILENT.keys() - silent.keys()) == []  # those that say it now
    assert len(called) > 400


@pytest.mark.more
def test_what_stands_for_a_function_says_what_it_calls_instead(called: dict[str, set[str]]) -> None:
    silent = {}
    for name, functions in called.items():
        said = said_of(name)
        acts = {one for one in functions if not LOOKS.fullmatch(one)}
        if stood_for(said) and acts and not functions.intersection(wrapped(said)):
            silent[name] = acts
    assert silent.keys() == UNNAMED.keys(), silent
