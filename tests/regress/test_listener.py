"""Group ``listener`` of libevent's regression suite."""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import Listener, ListenerOption, LoopFlag, lib
from tests.kit.flags import NewBase
from tests.kit.peers import ANYWHERE, Pair, connected, rest
from tests.kit.support import PATIENCE

CLOSE, REUSEABLE = ListenerOption.CLOSE_ON_FREE, ListenerOption.REUSEABLE
CLOSE_ON_EXEC, THREADSAFE = ListenerOption.CLOSE_ON_EXEC, ListenerOption.THREADSAFE

with_and_without_lock = pytest.mark.parametrize(
    "lock", [ListenerOption(0), THREADSAFE], ids=["", "ts"]
)


class Counted:
    """A callback that closes what it gets, and ends by *last* after *count* connections."""

    def __init__(self, count: int, last: Callable[[Listener], object] = Listener.disable) -> None:
        self.left = count
        self.last = last

    def __call__(self, listener: Listener, fd: int, address: Any) -> None:
        self.left -= 1
        os.close(fd)
        if self.left == 0:
            self.last(listener)


@with_and_without_lock
def test_randport(new_base: NewBase, lock: ListenerOption) -> None:
    base = new_base()
    options = CLOSE | REUSEABLE | CLOSE_ON_EXEC | lock
    two, one = Counted(2), Counted(1)
    with (
        Listener(base, ANYWHERE, two, options=options) as first,
        Listener(base, ANYWHERE, one, options=options) as second,
    ):
        assert first.fd >= 0
        assert second.fd >= 0
        assert first.address[0] == second.address[0] == "127.0.0.1"
        assert first.address[1] != second.address[1]
        assert first.base is second.base is base
        for listener in first, second:
            assert lib.evconnlistener_get_base(listener.pointer) == base.pointer
        with connected(first.address), connected(first.address), connected(second.address):
            assert base.dispatch() is False
        assert (two.left, one.left) == (0, 0)


@with_and_without_lock
def test_error(new_base: NewBase, pair: Pair, lock: ListenerOption) -> None:
    """A socket that doesn't listen, but has something to read."""
    base = new_base()
    failures: list[OSError] = []

    def on_error(listener: Listener, error: OSError) -> None:
        failures.append(error)
        listener.disable()

    def never(listener: Listener, fd: int, address: Any) -> None:
        pytest.fail("called")

    pair[1].send(b"hello")
    with Listener.from_fd(base, pair[0], never, options=CLOSE | REUSEABLE | lock) as listener:
        listener.on_error = on_error
        assert base.dispatch() is False
    assert len(failures) == 1


def test_error_unlock(new_base: NewBase, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """The lock is free after the failure: another thread can have it."""
    base = new_base()
    options = CLOSE | REUSEABLE | THREADSAFE
    fds: list[int] = []
    pair[1].send(b"hello")
    with Listener.from_fd(base, pair[0], print, options=options) as listener:
        pointer, fd = listener.pointer, listener.fd
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (pair[1].fileno(), limits[1]))
        try:
            with caplog.at_level(logging.WARNING, "libevent"):
                base.loop(LoopFlag.ONCE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert "Too many open files" in caplog.text
        thread = threading.Thread(
            target=lambda: fds.append(lib.evconnlistener_get_fd(pointer)), daemon=True
        )
        thread.start()
        thread.join(PATIENCE)
        assert fds == [fd]


def test_close_accepted_fd(new_base: NewBase) -> None:
    """The listener is closed in its own callback."""
    base = new_base()
    count = Counted(1, Listener.close)
    listener = Listener(base, ANYWHERE, count)
    with connected(listener.address) as sock:
        assert base.dispatch() is False
        assert rest(sock) == b""
    assert listener.closed
    assert count.left == 0


def test_immediate_close(new_base: NewBase) -> None:
    """Who disables the listener in its callback gets no more connections."""
    base = new_base()
    count = Counted(1)
    with Listener(base, ANYWHERE, count) as listener:
        with connected(listener.address), connected(listener.address):
            assert base.dispatch() is False
        assert count.left == 0
