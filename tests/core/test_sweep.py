"""Close things at some steps of every operation of every class, and know all operations.

`tests/kit/sweep.py` tries them; here it takes a sample, which is the same each time.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import libevent_py
from libevent_py import tag
from tests.kit.operations import OPERATIONS
from tests.kit.scenes import SCENES
from tests.kit.support import swept

#: Of the acts of those that have very many scenes and operations, one of so many is tried here.
SHARES = {
    "Buffer": 6,
    "BufferEvent": 32,
    "HttpConnection": 6,
    "HttpRequest": 4,
    "HttpServer": 4,
    "HttpServerRequest": 8,
}

#: And by `make more`.
MORE = {"BufferEvent": 4}


#: The same for other operations of a class amid each, of which there are many more.
OTHERS = {
    "Buffer": 18,
    "BufferEvent": 400,
    "Event": 6,
    "HttpConnection": 16,
    "HttpRequest": 8,
    "HttpServer": 6,
    "HttpServerConnection": 6,
    "HttpServerRequest": 24,
}

#: What the sweep has found, each tried here at all of its lines: class, scene, operation and act.
FOUND = [
    # An object that was closed while its finalizer ran.
    ("DnsServerRequest", "", "__del__", "close server"),
    ("Rpc", "", "__del__", "close server"),
    # A port that was freed right before C was called to answer by it.
    ("DnsServerRequest", "", "respond", "close server"),
    # A connection freed once more by the close that another one had come in the middle of.
    ("HttpServerConnection", "in a handler", "close", "close all"),
    ("HttpServerConnection", "in a handler", "close", "close http"),
    # A request that was on its way to C, and stayed among what C may call.
    ("HttpConnection", "idle", "make_request", "close dns"),
    ("HttpRequest", "under way", "close", "close connection"),
    # What was gone through while other code took something out of it.
    ("HttpServer", "", "close", "close request"),
    ("HttpServer", "", "close", "drop"),
    ("RpcServer", "", "close", "drop"),
    # A group that was freed before its new member, whose connection was closed, had left it.
    ("HttpConnection", "idle", "rate_limit_group=", "close all"),
    # A request whose client has gone, which answering frees, and one whose answer is all written.
    ("HttpServerRequest", "in on_end", "evhttp_uri", "close request"),
    ("HttpServerRequest", "of a client that has gone", "a header", "close reply"),
    ("HttpServerRequest", "whose reply has all been written", "a header", "close reply"),
    # A connection that C freed while an interrupt kept its object from knowing.
    ("HttpServerRequest", "whose reply has all been written", "send_reply_end", "interrupt"),
    # What is closed once it has been flushed, which other code closed before that could begin.
    ("BufferEvent", "TLS through another", "close/and flush", "close below"),
    # A bufferevent that was closed just before it was given to the connection.
    ("HttpConnection", "idle", "__init__/with a bufferevent", "close bev"),
    # A request that was closed when its connection had just been.
    ("HttpServerRequest", "in on_headers", "__exit__", "close http"),
    # A request that C had refused to answer, put back when the server had been closed meanwhile.
    ("HttpServerRequest", "in its handler", "send_reply/wrong length", "close http"),
    # One that was ended just before C was called to answer it, told as a KeyError.
    ("HttpServerRequest", "waiting", "send_reply", "close connection"),
    # A lock that was counted as held where it had never been taken.
    ("BufferEvent", "THREADSAFE", "lock", "interrupt"),
]


#: And within a line.
FOUND_WITHIN = [
    # A server that was freed although a method of a socket of its was under way.
    ("BoundSocket", "", "__enter__", "close http"),
    ("BoundSocket", "", "port", "close http"),
    # What a finalizer left to nobody, as the interrupt came where it begins.
    ("Event", "of a descriptor", "__del__", "interrupt"),
    ("DnsServerRequest", "", "__del__", "interrupt"),
    ("HttpConnection", "idle", "__del__", "interrupt"),
    ("RpcPool", "idle", "__del__", "interrupt"),
    # A base that was never freed, as the finalizer of the last thing on it had been interrupted.
    ("EventBase", "", "__del__", "interrupt"),
    # A buffer between two owners, and a copy that Python had to free.
    ("Buffer", "", "defer_callbacks", "interrupt"),
    ("Headers", "", "get", "interrupt"),
    # A connection that a closed server had forgotten, but not freed yet, and that C frees itself.
    ("HttpServerRequest", "waiting", "connection", "close http"),
    ("HttpServerRequest", "whose reply has all been written", "connection", "close reply"),
    # A bufferevent that was lent by a connection while that was closed, and given a limit.
    ("HttpConnection", "idle", "rate_limit=", "close dns"),
    # A request that nobody had to free any more, as its server was closed while it ended.
    ("HttpServerRequest", "of a client that has gone", "close", "close http"),
]


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        *(pytest.param(kind, SHARES.get(kind, 1), marks=pytest.mark.slow) for kind in OPERATIONS),
        *(pytest.param(kind, MORE.get(kind, 1), marks=pytest.mark.more) for kind in SHARES),
    ],
)
def test_nothing_crashes_or_is_left_when_something_is_closed_at_a_step(
    kind: str, share: int, tmp_path: Path
) -> None:
    swept(tmp_path, kind, "--most", "1", "--share", str(share))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scene", "operation", "act"), FOUND)
def test_what_has_crashed_or_been_left_is_not_at_any_line(
    kind: str, scene: str, operation: str, act: str, tmp_path: Path
) -> None:
    swept(tmp_path, kind, "--scene", scene, "--only", operation, "--act", act)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scene", "operation", "act"), FOUND_WITHIN)
def test_what_has_crashed_or_been_left_is_not_at_any_instruction(
    kind: str, scene: str, operation: str, act: str, tmp_path: Path
) -> None:
    swept(tmp_path, kind, "--scene", scene, "--only", operation, "--act", act, lines=False)


#: And with another operation amid it, where a signal handler may come.
FOUND_AMID = [
    # A call that was answered before its handler had got it.
    ("Rpc", "paused", "resume", "do done"),
    # A descriptor that another method had replaced, and that the caller was to close once more.
    ("BufferEvent", "THREADSAFE", "detach", "do fd="),
    ("BufferEvent", "THREADSAFE", "detach", "do detach"),
    # An entry of C's for a buffer's callbacks that was made twice.
    ("BufferEvent", "TLS after its handshake", "add_cb of its input", "do add_cb of its input"),
    # A body that a refused reply had closed, told as if it were to be replaced.
    ("HttpServerRequest", "in its handler", "output_buffer=", "do send_reply/no header"),
]


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        *(pytest.param(kind, OTHERS.get(kind, 3), marks=pytest.mark.slow) for kind in OPERATIONS),
        *(
            pytest.param(kind, 3 if kind == "BufferEvent" else 1, marks=pytest.mark.more)
            for kind in OPERATIONS
        ),
    ],
)
def test_nothing_crashes_or_is_left_when_another_operation_comes_at_a_step(
    kind: str, share: int, tmp_path: Path
) -> None:
    swept(tmp_path, kind, "--others", "--most", "1", "--share", str(share), lines=False)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scene", "operation", "act"), FOUND_AMID)
def test_what_has_failed_with_another_operation_amid_it_does_not_at_any_step(
    kind: str, scene: str, operation: str, act: str, tmp_path: Path
) -> None:
    where = "--scene", scene, "--only", operation, "--act", act
    swept(tmp_path, kind, "--others", *where, lines=False)


# Whether there is an operation for everything.

#: The classes that are left out, and why.
CLASSES_LEFT_OUT = {
    "RateLimit": "a value: it has nothing in C",
    "Array": "a field of messages' classes, made with them: Message tries what it does",
    "Bytes": "as Array",
    "Field": "as Array",
    "Int": "as Array",
    "Int64": "as Array",
    "String": "as Array",
    "Struct": "as Array",
    "FailingMemory": "the sweep itself would fail for want of memory",
}

#: What nobody needs to try, by the class that has it, and why.
MEMBERS_LEFT_OUT = {
    "DnsServerRequest.__init__": "it raises TypeError at once, always",
    "HttpServerRequest.__init__": "as DnsServerRequest.__init__",
    "Rpc.__init__": "as DnsServerRequest.__init__",
    "Child.__init_subclass__": "it is for a new class, which has nothing in C",
    "Handle.__init_subclass__": "as Child.__init_subclass__",
    "Message.__init_subclass__": "as Child.__init_subclass__",
}


def public_classes() -> dict[str, type]:
    """Return the classes that the package, or a module that it gives out, has for its users."""
    found: dict[str, type] = {}
    given: list[Any] = [getattr(libevent_py, name) for name in libevent_py.__all__]
    for module in [thing for thing in given if isinstance(thing, ModuleType)]:
        for name, thing in vars(module).items():
            if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__:
                given.append(thing)
    for thing in given:
        if isinstance(thing, type) and not issubclass(thing, (enum.Enum, Exception, tuple)):
            found[thing.__name__] = thing
    return found


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield what *kind* can do, as operations are named, and the class that has it."""
    for base in kind.__mro__:
        if not base.__module__.startswith("libevent_py"):
            continue
        for name, thing in vars(base).items():
            special = name.startswith("__") and name.endswith("__")
            if name.startswith("_") and not special:
                continue
            if isinstance(thing, property):
                yield name, base.__qualname__
                if thing.fset is not None:
                    yield f"{name}=", base.__qualname__
            elif isinstance(thing, (FunctionType, classmethod, staticmethod)):
                yield name, base.__qualname__


def named(kind: str) -> set[str]:
    """Return what the operations of *kind* are of, without the ways to use it."""
    return {name.partition("/")[0] for name in OPERATIONS[kind]}


def unknown(kind: str, thing: type) -> set[str]:
    """Return what *thing* can do for which there is neither an operation nor a reason why not."""
    missing: dict[str, bool] = {}
    for name, holder in members(thing):
        if name not in named(kind):
            missing[name] = missing.get(name, False) or f"{holder}.{name}" in MEMBERS_LEFT_OUT
    return {name for name, excused in missing.items() if not excused}


def test_every_public_class_has_operations_or_is_left_out_for_a_reason() -> None:
    classes = public_classes()
    assert set(classes) | {"tag"} == set(OPERATIONS) | set(CLASSES_LEFT_OUT)
    assert not set(OPERATIONS) & set(CLASSES_LEFT_OUT)
    assert set(SCENES) == set(OPERATIONS)


#: The classes that there are operations of.
CLASSES = [name for name in OPERATIONS if name != "tag"]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_method_and_property_has_an_operation_or_is_left_out_for_a_reason(kind: str) -> None:
    assert not unknown(kind, public_classes()[kind]), "see tests/kit/operations.py"


def test_a_new_method_property_or_setter_of_a_class_is_found() -> None:
    class Listener(libevent_py.Listener):
        def pause(self) -> None:
            """Do something new."""

        @property
        def backlog(self) -> int:
            """Something new, which can be set."""
            return 0

        @backlog.setter
        def backlog(self, backlog: int) -> None: ...

        @classmethod
        def from_name(cls) -> None:
            """Make one in a new way."""

        def __len__(self) -> int:
            return 0

    Listener.__module__ = "libevent_py.listener"
    new = {"pause", "backlog", "backlog=", "from_name", "__len__"}
    assert unknown("Listener", Listener) == new


def test_what_operations_are_of_and_what_is_left_out_is_there() -> None:
    """Else it has been renamed, and what has the new name may go untried."""
    classes = public_classes()
    there = {f"{holder}.{name}" for kind in classes.values() for name, holder in members(kind)}
    assert MEMBERS_LEFT_OUT.keys() <= there
    for kind in CLASSES:
        words = {name for name in named(kind) if name.removesuffix("=").isidentifier()}
        thing = classes[kind]
        fields = {name for name in words if hasattr(thing, name) or name in thing.__annotations__}
        setters = {name for name in words if name.endswith("=")}
        assert words - fields - setters == set(), kind
        assert {name.removesuffix("=") for name in setters} <= set(dir(thing)), kind


def test_every_function_that_tags_has_an_operation() -> None:
    mine = {name for name, thing in vars(tag).items() if is_own(thing)}
    assert {name for name in mine if not name.startswith("_")} == named("tag")


def is_own(thing: object) -> bool:
    return isinstance(thing, FunctionType) and thing.__module__ == tag.__name__
