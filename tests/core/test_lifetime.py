"""Who frees what, in whichever order: closing, dropping, collecting, and running out of memory."""

from __future__ import annotations

import gc
import itertools
import os
import shlex
import socket
import subprocess
import sys
import sysconfig
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    ClosedError,
    Event,
    EventBase,
    EventBaseCount,
    Listener,
    LoopFlag,
)
from libevent_py._core.dispatch import roots
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.once import once
from tests.kit.peers import Pair
from tests.kit.support import run_python


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Callback:
    """A callback that can be watched going."""

    def __call__(self, *_: object) -> None:
        raise AssertionError("it was called")


# Closing.


ORDERS = list(itertools.permutations(["event", "bev", "listener", "base"]))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_things_may_be_closed_in_any_order(pair: Pair, order: tuple[str, ...]) -> None:
    """B2: a base closes what is left on it, and nobody frees anything twice."""
    before = descriptors()
    base = EventBase()
    things: dict[str, Any] = {
        "base": base,
        "event": Event(base, pair[0], READ | PERSIST, print).add(1000),
        "bev": BufferEvent(base, pair[1].dup(), on_read=print),
        "listener": Listener(base, ("127.0.0.1", 0), print),
    }
    things["bev"].enable(READ)
    output = things["bev"].output
    for name in order:
        things[name].close()
        assert things[name].closed
        things[name].close()
    for function in (things["event"].add, things["bev"].read, things["listener"].disable):
        with pytest.raises(ClosedError):
            function()
    with pytest.raises(ClosedError):
        len(output)
    assert descriptors() == before


@VALGRIND_TAKES_LONG
def test_no_order_of_closing_and_dropping_touches_freed_memory(valgrind: bool) -> None:
    """B2, C2: freed after its base, an event would be read after it was freed."""
    run_python(
        """
        import gc
        import itertools
        import socket
        from libevent_py import *

        for order in itertools.permutations(["event", "timer", "bev", "listener", "base"]):
            for drop in (False, True):
                near, far = socket.socketpair()
                base = EventBase()
                things = {
                    "base": base,
                    "event": Event(base, far, EventFlag.READ, print).add(),
                    "timer": Event.timer(base, print),
                    "bev": BufferEvent(base, near, BufferEventOption.CLOSE_ON_FREE
                                       | BufferEventOption.DEFER_CALLBACKS, on_read=print),
                    "listener": Listener(base, ("127.0.0.1", 0), print),
                }
                things["bev"].write(b"x" * 100)
                things["timer"].active()
                base.once(print)
                base.once(print, fd=far, what=EventFlag.READ)
                base.defer(print)
                base.loopexit(1000)
                Event.timer(base, print).close(finalize=lambda event: None)
                del base
                for name in order:
                    if drop:
                        del things[name]
                    else:
                        things[name].close()
                del things
                if not drop or order[0] == "event":
                    gc.collect()
                far.close()
        """,
        valgrind=valgrind,
    )


def test_closing_calls_finalizers_and_nothing_else(pair: Pair) -> None:
    """B2: what was active and has not run is dropped; C6: each finalizer runs once."""
    base = EventBase()
    finalized: list[str] = []
    active = Event.user(base, Callback())
    active.active()
    due = Event.timer(base, Callback()).add(0)
    pair[1].send(b".")
    ready = Event(base, pair[0], READ, Callback()).add()
    base.once(Callback())
    base.defer(Callback())
    for name in ("one", "two"):
        event = Event.timer(base, Callback()).add(0)
        event.close(finalize=lambda event, name=name: finalized.append(name))  # type: ignore[misc]
    base.close()
    assert sorted(finalized) == ["one", "two"]
    assert active.closed
    assert due.closed
    assert ready.closed


def test_a_finalizer_that_runs_at_the_end_finds_its_base_closed() -> None:
    """B2: it can't make anything on it any more, and may close it again."""
    base = EventBase()
    refused: list[BaseException] = []

    def finalizer(event: Event) -> None:
        base.close()
        for function in (lambda: Event.timer(base, print), lambda: base.once(print), event.add):
            with pytest.raises(ClosedError) as caught:
                function()
            refused.append(caught.value)

    Event.timer(base, print).close(finalize=finalizer)
    base.close()
    assert len(refused) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_finalizers_that_raise_keep_no_base_from_being_freed(count: int) -> None:
    """B2: the exceptions come out when everything is done."""
    before = descriptors()
    base = EventBase()
    timer = Event.timer(base, print)
    for _ in range(count):
        Event.timer(base, print).close(finalize=lambda event: 1 / 0)
    with pytest.raises(Exception) as caught:
        base.close()
    assert "ZeroDivisionError" in repr(caught.value)
    assert timer.closed
    assert descriptors() == before


@pytest.mark.parametrize("read", [True, False])
def test_what_waits_for_the_loop_is_freed_before_the_base(read: bool) -> None:
    """B3: a deferred callback that is only cancelled would keep its bufferevent's descriptor."""
    before = descriptors()
    near, far = socket.socketpair()
    base = EventBase()
    options = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
    bev = BufferEvent(base, near, options, on_read=lambda bev: None, on_write=lambda bev: None)
    bev.enable(READ)
    far.send(b".")
    if read:
        base.once(lambda fd, what: base.loopbreak(), fd=far, what=WRITE)
        base.loop(LoopFlag.ONCE)
    bev.write(b"x")
    base.close()
    far.close()
    assert descriptors() == before


def test_what_was_closed_just_before_its_base_is_freed_all_the_same(pair: Pair) -> None:
    """B3, F2: libevent frees a bufferevent only in the loop's next turn."""
    before = descriptors()
    base = EventBase()
    for _ in range(5):
        near, far = socket.socketpair()
        bev = BufferEvent(base, near)
        far.close()
        bev.close()
    base.close()
    assert descriptors() == before


def test_a_base_may_be_closed_inside_another_one_s_callback(base: EventBase, pair: Pair) -> None:
    """B2: also by a callback whose own exception comes next."""
    other = EventBase()
    Event(other, pair[0], READ, print).add()

    def callback(fd: int, what: int) -> None:
        other.close()
        raise ZeroDivisionError

    base.once(callback)
    with pytest.raises(ZeroDivisionError):
        base.dispatch()
    assert other.closed


# Dropping.


def test_a_base_that_is_dropped_goes_at_once_with_what_can_t_be_called() -> None:
    """C3: nobody needs the collector where nothing is pending."""
    before = descriptors()
    gc.disable()
    try:
        base = EventBase()
        event = Event.timer(base, print)
        base.loop(LoopFlag.NONBLOCK)
        gone = weakref.ref(base), weakref.ref(event)
        del base
        assert gone[0]() is not None
        del event
        assert [ref() for ref in gone] == [None, None]
        assert descriptors() == before
    finally:
        gc.enable()


def test_a_base_that_is_dropped_with_everything_on_it_is_collected(pair: Pair) -> None:
    """B2: pending events, once callbacks, bufferevents, listeners: nobody has to close them."""
    before = descriptors()
    callback = Callback()
    gone = weakref.ref(callback)
    base = EventBase()
    near, far = socket.socketpair()
    Event(base, pair[0], READ, callback).add()
    Event.timer(base, callback).add(1000)
    Event.user(base, callback).active()
    BufferEvent(base, near, on_read=callback).enable(READ)
    Listener(base, ("127.0.0.1", 0), callback)
    base.once(callback)
    base.once(callback, fd=pair[1], what=READ)
    base.once(callback, timeout=1000)
    base.defer(callback)
    base.loopexit(1000)
    Event.timer(base, callback).close(finalize=lambda event, kept=callback: None)  # type: ignore[misc]
    far.close()
    made = weakref.ref(base)
    del base, callback
    gc.collect()
    assert made() is None
    assert gone() is None
    assert descriptors() == before


def test_an_event_keeps_its_base_open() -> None:
    """C2: it dereferences it when it is freed."""
    event = Event.timer(EventBase(), print)
    gc.collect()
    assert not event.base.closed
    event.add(0)
    event.callback = lambda *_: None
    assert event.base.dispatch() is False


#: Makes objects in an order, which is the order in which the collector finalizes them, and has a
#: finalizer of the user's among them that uses one that may have been finalized before.
CYCLE = """
    import gc
    import itertools
    import os
    import socket
    from libevent_py import *

    class User:
        def callback(self, *_):
            pass

        def __del__(self):
            finalized.append(1)
            try:
                use(self)
            except (AttributeError, ClosedError):
                pass

    def cycle(order):
        left, right = socket.socketpair()
        kinds = {"base": EventBase, "event": Event, "bev": BufferEvent, "listener": Listener,
                 "user": User}
        things = {name: kinds[name].__new__(kinds[name]) for name in order}
        user, base, event = things["user"], things["base"], things["event"]
        base.__init__()
        event.__init__(base, right.fileno(), EventFlag.READ, user.callback)
        event.add()
        things["bev"].__init__(base, left, on_read=user.callback)
        things["listener"].__init__(base, ("127.0.0.1", 0), user.callback)
        user.__dict__.update(things, output=things["bev"].output)
        return right

    EventBase().loop(LoopFlag.NONBLOCK)
    finalized = []
    gc.collect()
    gc.freeze()  # there are thousands of collections
    before = os.listdir("/proc/self/fd")
    orders = list(itertools.permutations(["base", "event", "bev", "listener", "user"]))
    uses = [
        lambda user: None,
        lambda user: user.event.add(1),
        lambda user: user.event.close(),
        lambda user: user.event.active(),
        lambda user: user.base.close(),
        lambda user: user.base.loop(LoopFlag.NONBLOCK),
        lambda user: user.bev.write(b"x"),
        lambda user: user.bev.close(),
        lambda user: user.output.add(b"x" * 10000),
        lambda user: user.listener.close(),
        lambda user: Event.timer(user.base, print).add(1),
    ]
    for number, order in enumerate(orders):
        for use in uses if STEP == 1 else uses[number % len(uses):][:1]:
            with cycle(order):
                gc.collect()
                gc.collect()  # what a finalizer has made anew
    assert len(finalized) == len(orders) * (len(uses) if STEP == 1 else 1)
    assert os.listdir("/proc/self/fd") == before
"""


@pytest.mark.slow
def test_the_collector_may_finalize_in_any_order() -> None:
    """B2, C2: a base first, last or in between, and a user's finalizer that uses them."""
    run_python(CYCLE.replace("STEP", "1"))


@VALGRIND_TAKES_LONG
def test_the_collector_s_order_touches_no_freed_memory(valgrind: bool) -> None:
    """B2, C2: nobody reads what was freed."""
    run_python(CYCLE.replace("STEP", "2"), valgrind=valgrind)


def test_a_finalizer_of_the_user_s_may_bring_an_event_back(base: EventBase) -> None:
    """C2: it is closed, though, and stays so."""
    saved: list[Event] = []

    class Undead(Event):
        def __del__(self) -> None:
            super().__del__()
            saved.append(self)

    Undead.timer(base, print)
    (event,) = saved
    for function in (event.add, event.active, event.delete):
        with pytest.raises((AttributeError, ClosedError)):
            function()
    event.close()


def test_objects_left_at_the_end_of_the_process_are_the_system_s() -> None:
    """B2: nothing is printed, wherever they are kept."""
    run_python(
        """
        import builtins
        import socket
        import sys
        import threading
        from libevent_py import *
        from libevent_py import log

        left, right = socket.socketpair()
        base = EventBase()
        keep = [
            base,
            Event(base, right, EventFlag.READ, lambda *_: base).add(),
            Event.timer(base, print),
            BufferEvent(base, left, on_read=lambda bev: base),
            Listener(base, ("127.0.0.1", 0), lambda *_: base),
            EventConfig(),
        ]
        base.once(lambda fd, what: keep)
        base.defer(lambda: keep)
        base.loopexit(1000)
        log.set_log_callback(lambda severity, text: keep)
        builtins.keep = keep
        sys.keep = keep
        threading.keep = [EventBase(), EventConfig()]
        closed = EventBase()
        closed.close()
        log.closed = closed
        log.closed_config = EventConfig()
        log.closed_config.close()
        right.detach()
        """
    )


def test_many_bases_leave_nothing_behind(pair: Pair) -> None:
    """B2: made, used and closed or dropped, two hundred times."""

    def use_one(close: bool) -> None:
        base = EventBase()
        Event(base, pair[0], READ | PERSIST, print).add(1000)
        base.once(lambda fd, what: None)
        base.loop(LoopFlag.NONBLOCK)
        if close:
            base.close()

    use_one(True)
    gc.collect()
    before, bases = descriptors(), len(roots)
    for number in range(200):
        use_one(number % 2 == 0)
    gc.collect()
    assert descriptors() == before
    assert len(roots) == bases


# Running out of memory.

#: Fails one allocation by libevent or by our own C, and none of anybody else's.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

int allocations_until_failure, failures;

static int fails(void *caller)
{
	Dl_info info;
	const char *name;

	if (allocations_until_failure == 0 || !dladdr(caller, &info))
		return 0;
	name = strrchr(info.dli_fname, '/');
	name = name == NULL ? info.dli_fname : name + 1;
	if (strncmp(name, "libevent", 8) != 0 && strncmp(name, "_ffi", 4) != 0)
		return 0;
	if (--allocations_until_failure != 0)
		return 0;
	++failures;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(pointer, size);
}
"""

#: Runs a scenario once for each of its allocations, with that one failing.
OUT_OF_MEMORY = """
    import ctypes
    import gc
    import os
    import signal
    import socket
    import sys
    from libevent_py import *
    from libevent_py import errors
    from libevent_py._core.dispatch import roots
    from libevent_py._core.dispatch import live

    shim = ctypes.CDLL(sys.argv[1])
    countdown = ctypes.c_int.in_dll(shim, "allocations_until_failure")
    failures = ctypes.c_int.in_dll(shim, "failures")
    avoid = [name for name in EventBase.supported_methods() if name != sys.argv[2]]

    def new_base():
        with EventConfig(avoid=avoid, max_dispatch_interval=1000) as config:
            return EventBase(config, priorities=3)

    def events(base):
        Event(base, left, EventFlag.READ | EventFlag.PERSIST, ignore).add(1000)
        for _ in range(40):
            Event.timer(base, ignore).add(1000)
        event = Event(base, right, EventFlag.WRITE, ignore).add()
        event.delete()
        event.add()

    def onces(base):
        base.once(ignore)
        base.once(ignore, timeout=1000)
        base.once(ignore, fd=left, what=EventFlag.READ)
        base.defer(ignore)
        base.loopexit(1000)
        base.loopexit()

    def signals(base):
        Event.signal(base, signal.SIGUSR1, ignore).add()
        Event.signal(base, signal.SIGUSR2, ignore).add()

    def timeouts(base):
        for number in range(20):
            Event.timer(base, ignore).add(base.init_common_timeout(100 + number))

    def looking(base):
        Event(base, left, EventFlag.READ, ignore).add()
        base.dump_events()
        base.events()

    def looping(base):
        Event.user(base, ignore).active()
        base.once(ignore)
        base.loop(LoopFlag.NONBLOCK)

    def finalizing(base):
        for _ in range(3):
            Event.timer(base, ignore).add(1000).close(finalize=ignore)

    def ignore(*_):
        pass

    def usable(base):
        called = []
        base.once(lambda *_: called.append("once"))
        base.defer(called.append, "deferred")
        right.send(b".")
        reader = Event(base, left, EventFlag.READ, lambda *_: called.append(left.recv(1))).add()
        for _ in range(5):
            base.loop(LoopFlag.NONBLOCK)
        reader.close()
        assert sorted(map(str, called)) == ["b'.'", "deferred", "once"], called

    left, right = socket.socketpair()
    left.setblocking(False)
    new_base().loop(LoopFlag.NONBLOCK)
    gc.collect()
    gc.freeze()  # there are hundreds of collections
    before = os.listdir("/proc/self/fd")
    for scenario in (ignore, events, onces, signals, timeouts, looking, looping, finalizing):
        for making in (True, False):
            failed = 0
            for number in range(1, 1000):
                failures.value = 0
                base = None if making else new_base()
                countdown.value = number
                try:
                    base = base or new_base()
                    scenario(base)
                except (MemoryError, OSError, LibeventError):
                    failed += 1
                countdown.value = 0
                if base is not None:
                    usable(base)
                    base.close()
                base = None
                gc.collect()
                assert os.listdir("/proc/self/fd") == before, (scenario, number)
                assert live.bases == ()
                assert errors.waiting() == 0
                assert not [root for root in roots if not root.closed], (scenario, number)
                if failures.value == 0:
                    break
            print(scenario.__name__, number - 1, failed)
    left.close()
    right.close()
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled `SHIM`."""
    # It stands in for __libc_malloc and its like, which other C libraries don't have.
    if not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("the shim needs the names that glibc gives its allocator")

    def make(directory: Path) -> None:
        (directory / "shim.c").write_text(SHIM)
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        command = [*compiler, "-shared", "-fPIC", "-O1", "-o", "shim.so", "shim.c", "-ldl"]
        subprocess.run(command, check=True, cwd=directory)

    return once(tmp_path_factory, "shim", make) / "shim.so"


@pytest.mark.slow
def test_running_out_of_memory_is_an_error_and_leaves_nothing_half_done(
    shim: Path, backend: str
) -> None:
    """A1: at each allocation there is; afterwards the base works, and nothing has leaked."""
    printed = run_python(
        OUT_OF_MEMORY,
        str(shim),
        backend,
        env={"LD_PRELOAD": str(shim)},
        stderr=None,
    )
    tried = {line.split()[0]: int(line.split()[1]) for line in printed.splitlines()}
    assert len(tried) == 8
    assert sum(tried.values()) > 40


def test_a_base_closed_in_a_callback_of_its_bufferevents_waits(base: EventBase) -> None:
    """B4: closing is refused as long as C is below."""
    near, far = socket.socketpair()
    refused: list[BaseException] = []

    def on_read(bev: BufferEvent) -> None:
        with pytest.raises(RuntimeError) as caught:
            base.close()
        refused.append(caught.value)
        bev.close()

    BufferEvent(base, near, on_read=on_read).enable(READ)
    far.send(b".")
    base.dispatch()
    assert len(refused) == 1
    far.close()
    assert base.num_events(EventBaseCount.ACTIVE) == 0


@VALGRIND_TAKES_LONG
def test_finalizers_find_the_buffers_and_views_of_their_cycle_alive(valgrind: bool) -> None:
    run_python(
        """
        import gc
        from libevent_py import Buffer, Event, EventBase

        class Node:
            def __del__(self):
                seen.append([bytes(view) for view in self.views])
                seen.append([len(buffer) for buffer in self.buffers])
                if self.kept:
                    kept.append(self.views + self.buffers)

        seen, kept = [], []
        gc.disable()
        for round in range(20):
            node = Node()
            node.itself, node.kept = node, round % 2
            node.base = EventBase()
            node.buffers = [Buffer(b"content") for _ in range(5)]
            node.views = [buffer.peek()[0] for buffer in node.buffers]

            def finalizer(event, node=node):
                for buffer in node.buffers:
                    buffer.add(b"more")

            node.event = Event.timer(node.base, finalizer)
            node.event.add(100)
            node.event.close(finalize=finalizer)
            del node, finalizer
            gc.collect()
            assert seen[-2] == [b"content"] * 5
            assert set(seen[-1]) <= {7, 11}
        for view, *_, buffer in kept:
            assert bytes(view) == b"content"
            assert buffer.remove(7) == b"content"
        kept.clear()
        """,
        valgrind=valgrind,
    )


def metaclass_with_an_argument() -> type:
    class Meta(type):
        def __new__(cls, name: str, bases: Any, members: Any, *, table: str) -> Any:
            return super().__new__(cls, name, bases, members)

        def __init__(cls, name: str, bases: Any, members: Any, *, table: str) -> None:
            super().__init__(name, bases, members)

    return Meta


def metaclass_of_final_classes() -> type:
    class Meta(type):
        def __new__(cls, name: str, bases: Any, members: Any) -> Any:
            if any(isinstance(base, cls) for base in bases):
                raise TypeError("final")
            return super().__new__(cls, name, bases, members)

    return Meta


def metaclass_of_one_class_for_each_name() -> type:
    made: dict[str, Any] = {}

    class Meta(type):
        def __new__(cls, name: str, bases: Any, members: Any) -> Any:
            if name not in made:
                made[name] = super().__new__(cls, name, bases, members)
            return made[name]

    return Meta


def metaclass_that_adds_slots() -> type:
    class Meta(type):
        def __new__(cls, name: str, bases: Any, members: Any) -> Any:
            slots = {"__slots__": (f"of_{len(bases)}",)}
            return super().__new__(cls, name, bases, members | slots)

    return Meta


@pytest.mark.parametrize(
    "make",
    [
        metaclass_with_an_argument,
        metaclass_of_final_classes,
        metaclass_of_one_class_for_each_name,
        metaclass_that_adds_slots,
    ],
)
def test_objects_of_a_class_with_any_metaclass_can_be_closed(make: Callable[[], type]) -> None:
    """They, and their base, could not: what they become when they are closed was not made."""
    meta: Any = make()
    arguments = {"table": "x"} if make is metaclass_with_an_argument else {}
    kinds: list[Any] = [
        meta(f"Of{kind.__name__}", (kind,), {}, **arguments) for kind in (Event, EventBase, Buffer)
    ]
    base = kinds[1]()
    event, dropped = (kinds[0](base, -1, 0, print).add(1000) for _ in range(2))
    event.close()
    dropped.delete()
    del dropped
    assert base.events() == []
    left = kinds[0](base, -1, 0, print).add(1000)
    base.close()
    buffer = kinds[2](b"a")
    with buffer.reserve(1) as view:
        view[:] = b"b"
        buffer.commit(1)
    assert bytes(buffer) == b"ab"
    buffer.close()
    for thing in base, event, left, buffer:
        assert thing.closed
        with pytest.raises(ClosedError):
            thing.pointer  # noqa: B018
