"""What a docstring says it wraps is called; what it says it stands for is not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import libevent_py
from libevent_py._cli.find import absent, declared, places
from tests.kit.cdefs import not_declared

PACKAGE = Path(libevent_py.__file__).parent

#: Their first argument only names a function, in the error that it makes.
NAMING = {"errors.failed", "failure"}

#: They call many functions, to see what the library does.
ASKING = ("libevent_py.vulnerabilities", "libevent_py._cli")

#: Called in the same noun, but not by what stands for it; and why it is called there.
ELSEWHERE = {
    "event_base_get_running_event": "frees the event that runs, and that nobody holds",
    "bufferevent_pair_get_partner": "closing one half of a pair asks whether the other is gone",
    "evhttp_bound_socket_get_listener": "a socket that isn't completed stays its caller's",
    "evrpc_remove_hook": "takes back the package's own hook if there is no memory for the rest",
}


def code(text: str) -> str:
    """Return C without comments and text."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', "", text, flags=re.DOTALL)


@cache
def c_functions() -> dict[str, set[str]]:
    """Return the names in each of our functions and macros in C, by its name."""
    found: dict[str, set[str]] = {}
    begin = r"^(?:[a-z][\w \*]*[ \*])?(\w+)\([^;{}]*\)\s*\{|^#define (\w+)\("
    for path in PACKAGE.glob("_c/*.c"):
        text = code(path.read_text())
        starts = [*re.finditer(begin, text, re.MULTILINE)]
        ends = [start.start() for start in starts[1:]] + [len(text)]
        for start, end in zip(starts, ends, strict=False):  # a file may have none
            words = re.findall(r"\w+", text[start.start() : end])
            found.setdefault(start[1] or start[2], set()).update(words)
    return found


def with_all_below(names: Iterable[str], below: dict[str, set[str]]) -> set[str]:
    """Return *names*, what is below them, what is below that, and so on."""
    seen: set[str] = set()
    left = [*names]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += below.get(name, ())
    return seen


@cache
def modules() -> dict[str, ast.Module]:
    """Return the package's modules by name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith(ASKING):
            found[name] = ast.parse(path.read_bytes())
    return found


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield *node* and all in it, but for what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from running(child)


@cache
def imported(module: ast.Module) -> set[str]:
    """Return the modules of the package that *module* imports from."""
    names = set()
    for node in running(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("libevent_py"):
            names.update({node.module or "", *(f"{node.module}.{a.name}" for a in node.names)})
    return (names & modules().keys()) - {"libevent_py"}


@cache
def used(module: ast.Module) -> set[str]:
    """Return the names of ``lib`` that *module* uses for more than to name an error."""
    naming = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in NAMING:
            naming.update(node.args[:1])
    return {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lib"
        if node not in naming
    }


@cache
def called(noun: str) -> set[str]:
    """Return the C functions that the modules of *noun* call, with those that they import from."""
    own = [name for name in modules() if f"{name}.".startswith(f"libevent_py.{noun}.")]
    assert own
    imports = {name: imported(module) for name, module in modules().items()}
    everything = with_all_below(own, imports)
    names = set().union(*(used(modules()[name]) for name in everything))
    return with_all_below(names, c_functions())


FOUND = [(name, place) for name, found in places().items() for place in found]


def noun_of(path: str) -> str:
    return path.split("/")[1].removesuffix(".py")


@pytest.mark.slow
def test_every_docstring_wraps_what_is_called_and_stands_for_what_is_not() -> None:
    wrong = []
    for name, place in FOUND:
        if (name in called(noun_of(place.path)) - ELSEWHERE.keys()) is place.stands:
            wrong.append(f"{place.path}:{place.line} {place.name}: {name}")
    assert wrong == []
    assert len([name for name, place in FOUND if place.stands]) > 30


def test_what_is_called_elsewhere_in_its_noun_is_stood_for() -> None:
    for name in ELSEWHERE:
        (place,) = places()[name]
        assert place.stands
        assert name in called(noun_of(place.path))


def test_what_is_stood_for_can_be_called_or_is_a_macro() -> None:
    for name, place in FOUND:
        if place.stands:
            assert declared(name) or name in not_declared("macros"), name
            assert absent(name) is None or name in not_declared("macros")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("lib.f(x)", {"f"}),
        ("errors.call(lib.f, x)", {"f"}),
        ("g = lib.f", {"f"}),
        ("raise errors.failed(lib.f)", set()),
        ("raise failure(lib.f, lib.g)", {"g"}),
        ("raise errors.failed(what)", set()),
    ],
)
def test_what_only_names_an_error_is_not_called(source: str, names: set[str]) -> None:
    assert used(ast.parse(source)) == names


def test_a_function_of_ours_calls_what_is_in_its_code() -> None:
    names = c_functions()
    assert "event_new" in names["evpy_event_new"]
    assert "evbuffer_readln" not in names["evpy_buffer_readln"]  # only its comment says so
    assert code('a /* b */ "c /*" d // e\nf').split() == ["a", "d", "f"]
