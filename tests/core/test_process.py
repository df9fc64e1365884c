"""What concerns the whole process (A1, A6, A7, A9, A11, A12)."""

from __future__ import annotations

import gc
import os
import re
import socket
from pathlib import Path

import pytest

from libevent_py import (
    BufferEvent,
    Event,
    EventBase,
    lib,
)
from tests.kit.flags import READ, WRITE
from tests.kit.peers import Pair
from tests.kit.support import run_python


def test_what_libevent_only_asserts_is_checked_before() -> None:
    """A1: each of these would end the process, or corrupt it, where C got to see it."""
    run_python(
        """
        import os
        import socket
        from libevent_py import *

        base = EventBase(priorities=3)
        event = Event.timer(base, print)
        reader, writer = socket.socketpair()
        for kind, function in [
            (ValueError, lambda: EventBase(priorities=0)),
            (ValueError, lambda: EventBase(priorities=257)),
            (ValueError, lambda: setattr(event, "priority", 3)),
            (ValueError, lambda: setattr(event, "priority", -1)),
            (ValueError, lambda: event.add(-1)),
            (ValueError, lambda: event.add(float("nan"))),
            (ValueError, lambda: event.add(1e300)),
            (ValueError, lambda: event.active(0, ncalls=2**15)),
            (ValueError, lambda: Event.signal(base, 65, print)),
            (ValueError, lambda: Event.signal(base, -1, print)),
            (ValueError, lambda: base.active_by_signal(10**6)),
            (ValueError, lambda: base.active_by_fd(-2, EventFlag.READ)),
            (ValueError, lambda: base.once(print, what=EventFlag.SIGNAL, fd=2)),
            (ValueError, lambda: base.loop(1 << 20)),
            (ValueError, lambda: base.num_events(1 << 20)),
            (TypeError, lambda: Event(None, -1, 0, print)),
            (TypeError, lambda: BufferEvent(None)),
            (TypeError, lambda: Listener(None, ("127.0.0.1", 0), print)),
        ]:
            try:
                function()
            except kind:
                pass
            else:
                raise AssertionError(function.__code__.co_firstlineno)
        base.close()
        reader.close()
        writer.close()
        """
    )


def test_a_base_without_free_descriptors_is_an_error_and_not_the_end_of_the_process() -> None:
    """A1: libevent calls exit(1) when it can't have its socket pair."""
    run_python(
        """
        import errno
        import os
        import resource
        from libevent_py import Event, EventBase

        def refused(function):
            try:
                function()
            except OSError as error:
                assert error.errno == errno.EMFILE, error
                return True
            return False

        base = EventBase()
        event = Event.timer(base, lambda *_: fired.append(1)).add(0)
        fired = []
        soft = len(os.listdir("/proc/self/fd")) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        refusals = 0
        while refused(EventBase):
            refusals += 1
            os.close(taken.pop())
        assert refusals >= 3
        while len(taken) < 30:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        assert refused(base.dispatch)  # for the pipes that wake it
        base.reinit()  # which only needs what it gives back
        while taken:
            os.close(taken.pop())
        base.dispatch()
        assert fired == [1]
        base.close()
        """
    )


def test_libevent_s_allocator_may_be_replaced() -> None:
    """A6: what libevent allocated is never freed by libc, nor the other way round."""
    run_python(
        """
        import socket
        from libevent_py import *
        from libevent_py import ffi, lib

        # Blocks that free() would choke on, because they begin inside a larger one.
        sizes = {}

        @ffi.callback("void *(size_t)")
        def my_malloc(size):
            block = ffi.new("char[]", size + 64)
            pointer = ffi.cast("void *", block + 64)
            sizes[int(ffi.cast("uintptr_t", pointer))] = block, size
            return pointer

        @ffi.callback("void *(void *, size_t)")
        def my_realloc(pointer, size):
            new = my_malloc(size)
            if pointer:
                block, old = sizes[int(ffi.cast("uintptr_t", pointer))]
                ffi.memmove(new, pointer, min(old, size))
                my_free(pointer)
            return new

        early = set()

        @ffi.callback("void(void *)")
        def my_free(pointer):
            del sizes[int(ffi.cast("uintptr_t", pointer))]

        lib.event_set_mem_functions(my_malloc, my_realloc, my_free)
        reader, writer = socket.socketpair()
        with EventConfig(avoid=["select"]) as config:
            base = EventBase(config, priorities=3)
        event = Event(base, reader, EventFlag.READ, print).add(1000)
        assert "Timeout" in base.dump_events()
        assert base.events() == [event]
        base.once(lambda fd, what: base.loopbreak())
        base.init_common_timeout(1)
        base.loopexit(5)
        assert base.dispatch()
        bev = BufferEvent(base, writer)
        bev.write(b"x" * 100000)
        event.close()
        base.close()
        reader.close()
        assert not sizes, len(sizes)
        """
    )


def test_libevent_still_works_when_the_process_ends() -> None:
    """A7: nobody calls libevent_global_shutdown(), after which any use is undefined."""
    printed = run_python(
        """
        import atexit

        def last():
            from libevent_py import Event, EventBase
            with EventBase() as base:
                Event.timer(base, lambda *_: print("fired")).add(0)
                base.dispatch()
            kept.dispatch()

        atexit.register(last)  # before libevent_py's own: so it is called after them
        from libevent_py import Event, EventBase

        kept = EventBase()
        kept.once(lambda fd, what: print("kept"))
        """,
        fresh=True,
    )
    assert printed == "fired\nkept\n"


def test_a_base_owns_no_descriptor_of_its_user_s(pair: Pair) -> None:
    """A9: neither closing an event, nor its base, closes what it waits for."""
    base = EventBase()
    first = Event(base, pair[0], READ, print).add()
    second = Event(base, pair[1].fileno(), WRITE, print).add()
    base.once(print, fd=pair[0], what=READ)
    first.close()
    base.close()
    assert second.closed
    pair[0].send(b"still open")
    assert pair[1].recv(20) == b"still open"


def test_what_libevent_owns_is_detached_and_closed_once(pair: Pair) -> None:
    """A9: a socket object and libevent never own the same descriptor."""
    base = EventBase()
    number = pair[0].fileno()
    BufferEvent(base, pair[0])
    assert pair[0].fileno() == -1
    os.fstat(number)
    base.close()
    with pytest.raises(OSError):
        os.fstat(number)
    with open(os.devnull) as reopened:
        assert reopened.fileno() == number
        base.close()
        del base
        gc.collect()
        os.fstat(number)


def test_constants_are_the_library_s_own() -> None:
    """A11: these two have other values where _GNU_SOURCE was not defined."""
    assert lib.EVUTIL_EAI_NODATA == socket.EAI_NODATA
    assert lib.EVUTIL_EAI_ADDRFAMILY == socket.EAI_ADDRFAMILY


def test_one_build_of_libevent_is_loaded() -> None:
    """A12: the monolithic library beside the split ones would be a second core."""
    maps = run_python(
        "import pathlib, libevent_py; print(pathlib.Path('/proc/self/maps').read_text())"
    )
    paths = re.findall(r"/\S*/libevent[^/\s]*$", maps, re.MULTILINE)
    loaded = {Path(path).resolve() for path in paths}
    names = {re.split(r"[-.]", path.name)[0] for path in loaded}
    assert "libevent" not in names
    assert {"libevent_core", "libevent_extra", "libevent_pthreads"} <= names
    assert len(loaded) == len(names)
    assert len({re.sub(r"^\w+", "", path.name) for path in loaded}) == 1
