"""The house is in order: its floors, sizes and docstrings, and what only one module may do."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pydoc
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import libevent_py
from libevent_py import aio
from tests.kit.names import NAMES, text
from tests.kit.words import is_sentence

PACKAGE = Path(libevent_py.__file__).parent
LONGEST = 600  # lines of code; a class is whole in one file, however much there is to say of it
LONGEST_FUNCTION = 60

#: From the ground up. A module imports only from those before it, inside functions too.
FLOORS = """
    _ffi

    _core.names _core.called _core.for_c
    errors enums
    _core.load _core.convert _core.addrinfo _core.references _core.rank _core.described
    _core.pointers _core.sockets
    _core.frames _core.handle _core.dispatch _core.owner _core.locks _core.child _core.fork
    _core.wakeup _core.signals _core

    debug log util

    event.config event.descriptor event.common_timeout event.explain event.exits event.turns
    event.threads event.base event.event event.asked event

    buffer.failure buffer.callbacks buffer.segment buffer.memory buffer.deferral buffer.buffer
    buffer.owned buffer

    bufferevent.given bufferevent.limits bufferevent.tls bufferevent.callbacks bufferevent.eager
    bufferevent.layers bufferevent.connect bufferevent.plans bufferevent.end bufferevent.lock
    bufferevent.bufferevent bufferevent.explain bufferevent

    listener

    vulnerabilities.probe vulnerabilities.known vulnerabilities

    dns.lookup dns.base dns.server_request dns.server dns.explain dns

    http.headers http.framing http.uri http.flow http.request http.request_queue http.client
    http.end http.packed http.at_last http.server_connection http.server_request http.receiving
    http.bound_socket http.server http.explain http

    tag

    rpc.message rpc.hooks rpc.server rpc.pool rpc.explain rpc

    types

    __init__

    aio.watchers aio.native aio.transports aio.waits aio.lookups aio.loop aio.runner aio.selector
    aio.streams aio.peers aio.requests aio

    serve.config serve.errors serve.engine serve.access serve.framing
    serve.engines.llhttp_checks serve.engines.llhttp_exchange serve.engines.llhttp_writing
    serve.engines.llhttp_connection serve.engines.llhttp serve.engines.evhttp serve.engines
    serve.lifespan serve.websocket serve.asgi serve.wsgi
    serve.loading serve.worker serve.sockets serve.launch
    serve.counters serve.systemd serve.watching serve.children serve.master serve

    _trace
    _cli.program _cli.find _cli.in_c _cli.index _cli.doctor _cli.samples _cli.trace _cli.known
    _cli.compare _cli.serve _cli.commands _cli.completion _cli
    __main__

    testing.logged testing.memory testing.traces testing.waiting testing.snapshots
    testing.backends testing.tables testing.peers testing.network testing.runs testing.child
    testing
"""
ORDER = FLOORS.split()
BUILT = "_ffi"
MODULES = [module for module in ORDER if module != BUILT]

#: cffi's own ways to keep callbacks and objects alive: C has keys, and `_core` decides.
NEVER = ["callback", "from_handle", "gc", "new_handle"]

#: But `_core.pointers` frees by it what has no base, so that the collector never finalizes one: C
#: alone then frees what is let go, where no interrupt can come between.
ONLY_THERE = ("gc", "_core.pointers")

#: What a star doesn't import: the names of these packages are those of what is in them, and of
#: variables, and the standard library has `types`, too.
NOUNS = ["buffer", "bufferevent", "event", "http", "rpc", "types"]

#: The slots of a base by which `_core` decides over lives: others ask by the methods of `Root`.
KEPT_BY_CORE = {"_graveyard", "_ledger", "_live", "_parked"}

#: Trampolines whose exceptions Python prints, because nobody is left to raise them to.
LAST_WORDS = {"evpy_fatal"}


def file_of(module: str) -> Path:
    """Return the file of *module*, which may be a package."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


def module_of(path: Path) -> str:
    """Return the module that *path* holds: a package by its own name, the outermost as __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] or parts if parts[-1] == "__init__" else parts)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_bytes())


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is below *node* without what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from at_run_time(other)
        else:
            yield child
            yield from at_run_time(child)


def imports(node: ast.AST) -> set[str]:
    """The package's modules that *node* imports when it runs, the package itself as __init__."""
    found: set[str] = set()
    for child in at_run_time(node):
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute, so that one can search for them"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "libevent_py":
                while module and module not in ORDER:  # a name in a module, or in a package
                    module = module.rpartition(".")[0]
                found.add(module or "__init__")
    return found


def test_every_module_has_its_floor() -> None:
    assert {module_of(path) for path in PACKAGE.rglob("*.py")} == set(MODULES)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_below_it(module: str) -> None:
    below = set(ORDER[: ORDER.index(module)])
    assert imports(tree(module)) <= below


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from libevent_py import debug, errors", {"debug", "errors"}),
        ("from libevent_py._core import convert", {"_core.convert"}),
        ("from libevent_py.event import Event", {"event"}),
        ("from libevent_py import EventBase", {"__init__"}),
        ("import libevent_py", {"__init__"}),
        ("import libevent_py.event.base", {"event.base"}),
        ("from libevent_py.event.base import EventBase", {"event.base"}),
        ("def f():\n    if x:\n        from libevent_py import event", {"event"}),
        ("if TYPE_CHECKING:\n    from libevent_py import event", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from libevent_py import event", {"event"}),
        ("import os, libevent_pyx", set()),
    ],
)
def test_every_way_to_import_is_seen(source: str, found: set[str]) -> None:
    assert imports(ast.parse(source)) == found


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="imports are absolute"):
        imports(ast.parse("from . import event"))


@cache
def code_in(source: str) -> set[int]:
    """Return the lines of *source* that hold code: no comment, no docstring, nothing blank."""
    lines: set[int] = set()
    starts = True  # a string that starts a statement is a docstring
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            starts = True
        elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER):
            if not (starts and token.type == tokenize.STRING):
                lines.update(range(token.start[0], token.end[0] + 1))
            starts = False
    return lines


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_a_sitting(module: str) -> None:
    lines = len(code_in(file_of(module).read_text()))
    assert lines <= LONGEST, f"{module}.py has {lines} lines of code"


def functions(node: ast.AST) -> Iterator[tuple[str, range]]:
    """Yield the functions and methods below *node*, each with its lines and its decorators'."""
    for child in ast.walk(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min(part.lineno for part in (child, *child.decorator_list))
            yield child.name, range(first, (child.end_lineno or child.lineno) + 1)


@pytest.mark.parametrize("module", MODULES)
def test_a_function_can_be_seen_at_once(module: str) -> None:
    code = code_in(file_of(module).read_text())
    for name, lines in functions(tree(module)):
        long = len(code.intersection(lines))
        assert long <= LONGEST_FUNCTION, f"{module}.py: {name} has {long} lines of code"


def test_docstrings_comments_and_blank_lines_are_no_code() -> None:
    source = '"""Doc.\n\nMore."""\n\n# why\ndef f():\n    """Doc."""\n'
    source += '    return g(  # why\n        """a\nb""")\n'
    assert code_in(source) == {6, 8, 9, 10}


def test_a_function_s_lines_begin_with_its_decorators_and_end_with_what_is_in_it() -> None:
    source = "@a\n@b(\n    c,\n)\ndef f():\n    def g():\n        pass\n\n\nx = 1\n"
    assert dict(functions(ast.parse(source))) == {"f": range(1, 8), "g": range(6, 8)}


def test_init_gives_out_one_name_a_line_under_its_own_name() -> None:
    lines = []
    for node in ast.walk(tree("__init__")):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                # "as" the same: so that type checkers take it for given out
                assert alias.asname in (alias.name, "rpc_message"), ast.unparse(node)
                lines.append(alias.lineno)
    assert len(lines) == len(set(lines))


def test_all_that_init_gives_out_is_what_a_star_imports_and_help_shows() -> None:
    given = [
        alias.asname or alias.name
        for node in tree("__init__").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name not in NOUNS
    ]
    assert sorted(libevent_py.__all__) == sorted(given)
    assert len(set(given)) == len(given)
    names: dict[str, Any] = {}
    exec("from libevent_py import *", names)
    assert names.keys() - {"__builtins__"} == set(given)
    shown = pydoc.plain(pydoc.render_doc(libevent_py))
    for name in given:
        thing = getattr(libevent_py, name)
        if isinstance(thing, type):
            assert re.search(rf"^    class {name}\(", shown, re.MULTILINE), name
        elif isinstance(thing, FunctionType):
            assert re.search(rf"^    {name}\(", shown, re.MULTILINE), name


def test_public_objects_show_the_listed_names_and_nothing_else() -> None:
    assert NAMES.read_text() == text(), "see the top of docs/names.md"


# Docstrings.

DOCUMENTED = (type, FunctionType)


def public(holder: type) -> Iterator[tuple[str, Any]]:
    """Yield a class's public methods and properties."""
    for name, thing in vars(holder).items():
        written = getattr(thing, "__func__", thing)  # below staticmethod or classmethod
        if name.startswith(("_", "evpy_")) or not isinstance(written, (*DOCUMENTED, property)):
            continue
        yield name, getattr(holder, name)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_docstring(module: str) -> None:
    assert ast.get_docstring(tree(module))


PUBLIC = ["aio", "debug", "dns", "http", "log", "serve", "tag", "util", "vulnerabilities"]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_function_has_a_docstring_that_begins_with_a_sentence(module: str) -> None:
    functions = [
        name
        for name, thing in vars(importlib.import_module(f"libevent_py.{module}")).items()
        if isinstance(thing, FunctionType) and thing.__module__.startswith(f"libevent_py.{module}")
    ]
    assert functions
    for name in functions:
        thing = getattr(importlib.import_module(f"libevent_py.{module}"), name)
        assert name.startswith(("_", "evpy_")) or is_sentence(inspect.getdoc(thing)), (
            f"{module}.{name}"
        )


def test_every_public_class_and_method_has_a_docstring_that_begins_with_a_sentence() -> None:
    told = 0
    for kind in given_out():
        assert is_sentence(inspect.getdoc(kind)), kind
        for member, method in public(kind):
            assert is_sentence(inspect.getdoc(method)), f"{kind}.{member}"
            told += 1
    assert told > 350


def given_out() -> Iterator[type]:
    """Yield the public classes, and those of the package that they inherit from."""
    modules = [libevent_py, libevent_py.util, libevent_py.rpc, libevent_py.tag, aio]
    seen: set[type] = set()
    for module in modules:
        for name, thing in vars(module).items():
            if isinstance(thing, type) and not name.startswith("_"):
                seen.update(k for k in thing.__mro__ if k.__module__.startswith("libevent_py."))
    yield from sorted(seen, key=lambda kind: kind.__qualname__)


def test_every_public_attribute_has_a_docstring_which_help_shows() -> None:
    """Slots and the fields of named tuples have one of their own; others are in the class's."""
    told = 0
    for kind in given_out():
        own = vars(kind)
        public = {*own.get("__slots__", ()), *own.get("__annotations__", ())} - {"__weakref__"}
        for name in public:
            elsewhere = any(name in vars(base) for base in kind.__mro__[1:])
            if name.startswith("_") or elsewhere or not hasattr(kind, name):
                continue  # what has neither a slot nor a value here is declared for its heirs
            told += 1
            if name in own.get("__slots__", ()) or issubclass(kind, tuple):
                doc = inspect.getdoc(getattr(kind, name))
                assert is_sentence(doc) and "Alias for" not in (doc or ""), f"{kind}.{name}"
                shown = pydoc.plain(pydoc.render_doc(kind))
                assert (doc or "").split("\n")[0] in shown, f"{kind}.{name}"
            else:
                assert f"``{name}``" in (kind.__doc__ or ""), f"{kind}.{name}"
    assert told > 50


def test_a_docstring_that_says_what_it_wraps_or_stands_for_ends_with_it() -> None:
    names = r"\s+(``\w+``,\s+)*``\w+``\."
    end = rf"\b(Wraps{names}|(Wraps{names}\s+)?Stands\s+for{names})$"
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                docstring = ast.get_docstring(node) or ""
                if re.search(r"\b(Wraps\b|Stands\s+for\s+``\w+``)", docstring):
                    assert re.search(end, docstring), node.name


# What only one module may do.


@pytest.mark.parametrize("name", NEVER)
def test_nothing_is_kept_alive_by_cffi(name: str) -> None:
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and (name, module) != ONLY_THERE:
                assert ast.unparse(node) != f"ffi.{name}", f"{module}.py:{node.lineno}"


def test_finalizers_are_in_owner_or_free_a_handle_of_no_base() -> None:
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef) and module not in ("_core.owner", "_core.child"):
                methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                bases = [ast.unparse(base) for base in node.bases]
                assert "__del__" not in methods or bases == ["Handle"], node.name


def trampolines() -> Iterator[tuple[str, ast.FunctionDef, ast.Call]]:
    """Yield the functions that C calls, each with its module and its decorator."""
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if ast.unparse(decorator).startswith(("ffi.def_extern(", "from_c(")):
                        assert isinstance(decorator, ast.Call)
                        yield module, node, decorator


def test_every_trampoline_that_c_knows_is_there_once() -> None:
    declared = []
    for header in PACKAGE.glob("_c/*.h"):
        declared += re.findall(r'^extern "Python" [^(]*?(\w+)\(', header.read_text(), re.MULTILINE)
    assert sorted(node.name for _, node, _ in trampolines()) == sorted(declared)


def test_what_a_trampoline_can_not_catch_is_kept() -> None:
    for _, node, call in trampolines():
        if ast.unparse(call.func) == "from_c":  # which does
            continue
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        kept = keywords.get("onerror") == "errors.kept"
        assert kept is (node.name not in LAST_WORDS), node.name


@cache
def comments_in(source: str) -> dict[int, tuple[str, bool]]:
    """Return the comments of *source* by their lines, and whether nothing else is on the line."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            found[token.start[0]] = token.string.lstrip("#: "), alone
    return found


def comment_above(source: str, line: int) -> str:
    """Return the comment that stands right above *line*, or ""."""
    comments = comments_in(source)
    text = ""
    while comments.get(line - 1, ("", False))[1]:
        line -= 1
        text = f"{comments[line][0]} {text}".rstrip()
    return text


@cache
def hot_in(source: str) -> set[int]:
    """Return the lines of *source* that are marked: by a comment of their own that says "hot:", or
    by one that stands alone above or inside the function that they are in.
    """
    comments = comments_in(source)
    hot = {line for line, (text, _) in comments.items() if re.search(r"(^|\()hot: ", text)}
    begun = {line for line, (text, alone) in comments.items() if alone and text.startswith("hot:")}
    for _, lines in functions(ast.parse(source)):
        if begun.intersection(lines) or comment_above(source, lines[0]).startswith("hot:"):
            hot.update(lines)
    return hot


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("_core")])
def test_what_the_core_keeps_is_looked_at_elsewhere_only_where_it_is_hot(module: str) -> None:
    hot = hot_in(file_of(module).read_text())
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and (
            node.attr in KEPT_BY_CORE or ast.unparse(node.value) == "live"
        ):
            assert node.lineno in hot, f"{module}.py:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "_core.handle"])
def test_a_pointer_that_is_only_asked_for_is_asked_for_by_name_or_hot(module: str) -> None:
    """Others call `Handle._check_usable`."""
    hot = hot_in(file_of(module).read_text())
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Attribute):
            assert node.lineno in hot, f"{module}.py:{node.lineno}: {ast.unparse(node)}"


def test_a_trampoline_that_is_written_out_says_why() -> None:
    for module, node, call in trampolines():
        if ast.unparse(call.func) == "ffi.def_extern":
            why = comment_above(file_of(module).read_text(), call.lineno)
            assert why.startswith(("hot: ", "Not `from_c`: ")), f"{module}.py: {node.name}"


@pytest.mark.parametrize(
    ("source", "hot"),
    [
        ("x = 1  # hot: why\ny = 2\n", {1}),
        ("x.y  # noqa: B018  (hot: why)\n", {1}),
        ("# hot: why\nx = 1\n", {1}),
        ("# hot: why\n# indeed\n@a\ndef f():\n    x = 1\n\n\ny = 2\n", {1, 3, 4, 5}),
        ("def f():\n    # hot: why\n    x = 1\n\n\ny = 2\n", {1, 2, 3}),
        ("def f():\n    x = 1  # hot: why\n    y = 2\n", {2}),
        ("# not hot: why\ndef f():\n    x = 1\n", set()),
        ("# hot: why\n\n\ndef f():\n    x = 1\n", {1}),
        ("x = 'hot: why'\n", set()),
    ],
)
def test_every_way_to_say_that_a_line_is_hot_is_seen(source: str, hot: set[int]) -> None:
    assert hot_in(source) == hot


def test_only_one_module_turns_a_function_into_the_name_that_an_error_gives() -> None:
    """It names libevent's own, for which those of ours in C stand."""
    for module in MODULES:
        if module not in ("_core.names", "_core.dispatch"):  # the latter defines what C calls
            for node in ast.walk(tree(module)):
                if isinstance(node, ast.Attribute) and node.attr == "__name__":
                    holder = ast.unparse(node.value)
                    where = f"{module}.py:{node.lineno}"
                    assert re.search(r"\b(type|kind|cls)\b", holder), where
