"""Another thread than the owner's is refused before it reaches C: every operation is tried there.

C frees what the owner closes, so an operation that another thread is in the middle of would use it.
What only Python knows, any thread may read.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from libevent_py import ThreadError, lib
from tests.kit.operations import OPERATIONS
from tests.kit.scenes import SCENES, Scene, accept_all, file, listening
from tests.kit.support import PATIENCE

#: What belongs to no base, and has a lock of its own in C or is used whole.
OF_NO_BASE = {
    "Buffer",
    "BufferCallback",
    "EventConfig",
    "FileSegment",
    "Headers",
    "Message",
    "MonotonicTimer",
    "Query",
    "TlsContext",
    "Uri",
    "tag",
}

#: What any thread may do, and why.
ANY_THREAD = {
    "EventBase": {
        # It makes another base; the collector frees one in whichever thread it runs.
        *("__init__", "__del__"),
        # Here no other thread uses the base: this one becomes the owner.
        *("close", "__enter__", "__exit__", "loop", "dispatch"),
        *("turn", "turn/a while", "turns", "in_thread"),
        # They hold what keeps the base open.
        *("method", "features", "n_priorities", "got_exit", "got_break"),
        # It asks for the event whose callback this thread is in.
        "running_event",
        # They are made for it.
        *("defer", "call", "loopexit", "loopexit/later", "loopbreak", "loopcontinue"),
    },
    "Event": {"active", "active/for more"},  # deferred to the loop
    "HttpConnection": {"make_request/in parts"},  # it fills in a request first, as below
    "HttpRequest": set(OPERATIONS["HttpRequest"]),  # before it is made on a connection
}

#: Of these, a finalizer only leaves what is to be freed to the loop, which it wakes.
WAKES = {"event_pending", "evpy_event_rouse"}

FUNCTIONS = {
    function
    for name in dir(lib)
    if callable(function := getattr(lib, name)) and not name.startswith("evutil_")
}

TRIED = [
    (kind, operation)
    for kind in SCENES
    if kind not in OF_NO_BASE
    for operation in OPERATIONS[kind]
    if operation not in ANY_THREAD.get(kind, ())
]


def elsewhere(kind: str, operation: str) -> tuple[object, list[str]]:
    """Do *operation* in another thread; return what it raised, if anything, and what it called."""
    scene = Scene()
    SCENES[kind][next(iter(SCENES[kind]))](scene)
    called: list[str] = []
    raised: list[object] = [None]

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function in FUNCTIONS:
            called.append(function.__name__)

    def run() -> None:
        sys.setprofile(note)
        try:
            OPERATIONS[kind][operation](scene)
        except BaseException as error:
            raised[0] = error
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    scene.stack.close()
    if scene.base is not None:
        scene.base.close()
    return raised[0], called


@pytest.fixture(scope="module", autouse=True)
def _shared() -> Iterator[None]:
    """Make what scenes share before anything is counted."""
    listening(), file()
    yield
    accept_all()
    listening().close()
    file().close()
    listening.cache_clear()
    file.cache_clear()


@pytest.mark.parametrize(("kind", "operation"), TRIED)
def test_another_thread_does_not_reach_c(kind: str, operation: str) -> None:
    raised, called = elsewhere(kind, operation)
    if operation == "__del__":
        assert set(called) <= WAKES
    else:
        assert not called, raised
    assert raised is None or isinstance(raised, ThreadError | RuntimeError | ValueError)


def test_what_is_refused_says_whose_the_base_is() -> None:
    raised, called = elsewhere("BufferEvent", "fd")
    assert isinstance(raised, ThreadError)
    assert "this event base belongs to another thread" in str(raised)
    assert not called


def test_an_operation_in_its_own_thread_would_be_seen_to_reach_c() -> None:
    raised, called = elsewhere("EventBase", "loop")
    assert raised is None
    assert "evpy_loop" in called
