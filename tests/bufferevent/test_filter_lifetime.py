"""Whose what a filter stands on is, and how both end: closed, dropped, or with their base."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    FilterResult,
    FlushMode,
    LoopFlag,
    ThreadError,
    errors,
)
from libevent_py.bufferevent.connect import owns
from libevent_py.bufferevent.end import close_all
from tests.kit.filters import OPTIONS, Halves, shift
from tests.kit.flags import CLOSE, DEFER, EAGER, NO_OPTION, READ, THREADSAFE, UNLOCK, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import is_open, nobody_listens, run_until, settle
from tests.kit.support import PATIENCE, run_python

OK, FLUSH = FilterResult.OK, FlushMode.FLUSH

# Whose the underlying one is.


def test_a_filter_has_the_descriptor_of_what_it_stands_on(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        fd = one.fileno()
        underlying = BufferEvent(base, one)
        bev = BufferEvent.filter(BufferEvent.filter(underlying, None, None), None, None)
        assert bev.fd == fd
        assert bev.underlying is not None
        assert bev.underlying.underlying is underlying
        assert underlying.underlying is None
        assert not owns(bev, fd)
        third, fourth = socket.socketpair()
        with fourth:
            bev.fd = third
            assert (underlying.fd, third.fileno()) == (bev.fd, -1)
            assert not is_open(fd)
            fd = bev.detach()
            assert (bev.fd, underlying.fd) == (-1, -1)
            socket.socket(fileno=fd).close()
        with pytest.raises(ValueError, match="nor a filter"):
            bev.connect(("127.0.0.1", 1))


def test_what_a_filter_stands_on_may_connect(base: EventBase) -> None:
    story: list[BufferEventFlag] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        underlying = BufferEvent(base)
        bev = BufferEvent.filter(underlying, shift(-1), shift(1))
        bev.on_event = lambda bev, what: story.append(what)
        bev.enable(READ)
        bev.write(b"HAL")
        underlying.connect(listener.getsockname())
        run_until(base, lambda: story)
        assert story == [BufferEventFlag.CONNECTED]
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            run_until(base, lambda: not underlying.output)
            assert sock.recv(100) == b"IBM"
        run_until(base, lambda: len(story) == 2)
        assert story[1] & BufferEventFlag.EOF


def test_an_error_is_told_from_below(base: EventBase) -> None:
    story: list[tuple[BufferEventFlag, OSError | None]] = []
    underlying = BufferEvent(base)
    bev = BufferEvent.filter(underlying, None, None)
    bev.on_event = lambda bev, what: story.append((what, bev.error))
    underlying.connect(nobody_listens())
    run_until(base, lambda: story)
    [(what, error)] = story
    assert what == BufferEventFlag.ERROR
    assert isinstance(error, ConnectionRefusedError)


MANAGED: list[Callable[[BufferEvent], object]] = [
    lambda bev: bev.close(),
    lambda bev: bev.setcb(None, None, None),
    lambda bev: setattr(bev, "on_read", None),
    lambda bev: setattr(bev, "on_write", None),
    lambda bev: setattr(bev, "on_event", None),
    lambda bev: setattr(bev, "fd", -1),
    lambda bev: bev.detach(),
    lambda bev: BufferEvent.filter(bev, None, None),
]


def test_what_a_filter_stands_on_is_managed_by_it(base: EventBase, below: Halves) -> None:
    underlying, other = below
    underlying.on_event = lambda bev, what: pytest.fail("it is the filter's")
    before = underlying.on_event
    bev = BufferEvent.filter(underlying, shift(-1), shift(1))
    for use in MANAGED:
        with pytest.raises(ValueError, match=r"^this BufferEvent is the underlying one of <Buffer"):
            use(underlying)
    assert underlying.on_event is before
    underlying.setwatermark(WRITE, 0, 100)  # what changes neither callbacks nor descriptor may be
    underlying.set_timeouts(None, None)
    underlying.write(b"as it is, ")
    bev.enable(READ)
    other.enable(READ)
    bev.write(b"HAL")
    run_until(base, lambda: len(other.input) == 13)
    assert other.read() == b"as it is, IBM"
    bev.close()


def test_closing_a_filter_closes_what_it_stands_on(base: EventBase, below: Halves) -> None:
    middle = BufferEvent.filter(below[0], None, None)
    bev = BufferEvent.filter(middle, None, None)
    bev.close()
    assert middle.closed
    assert below[0].closed
    with pytest.raises(ClosedError):
        bev.underlying  # noqa: B018
    with pytest.raises(ClosedError):
        BufferEvent.filter(below[0], None, None)


def test_closing_all_begins_at_the_top(base: EventBase, below: Halves) -> None:
    middle = BufferEvent.filter(below[0], None, None, NO_OPTION)
    bev = BufferEvent.filter(middle, None, None, NO_OPTION)
    close_all(below[0])
    assert bev.closed
    assert middle.closed
    assert below[0].closed
    close_all(below[1])


@pytest.mark.parametrize("options", [NO_OPTION, DEFER, EAGER, THREADSAFE])
def test_without_close_on_free_what_it_stood_on_gets_its_callbacks_back(
    base: EventBase, below: Halves, options: BufferEventOption
) -> None:
    underlying, other = below
    received: list[bytes] = []
    underlying.on_read = lambda bev: received.append(bev.read())
    bev = BufferEvent.filter(underlying, shift(-1), None, options)
    bev.on_read = lambda bev: received.append(bev.read())
    bev.enable(READ)
    other.write(b"IBM")
    run_until(base, lambda: received)
    bev.close()
    underlying.enable(READ)
    other.write(b"IBM")
    run_until(base, lambda: len(received) == 2)
    assert received == [b"HAL", b"IBM"]
    bev = BufferEvent.filter(underlying, shift(1), None, options)
    bev.on_read = lambda bev: received.append(bev.read())
    bev.enable(READ)
    other.write(b"IBM")
    run_until(base, lambda: len(received) == 3)
    assert received[2] == b"JCN"


def test_a_closed_filter_does_not_change_what_it_stood_on(base: EventBase) -> None:
    one, other = socket.socketpair()
    third, fourth = socket.socketpair()
    with one, other, third, fourth:
        underlying = BufferEvent(base, one, NO_OPTION)
        bev = BufferEvent.filter(underlying, None, None, NO_OPTION)
        bev.close()
        with pytest.raises(ClosedError):
            bev.fd = third
        assert underlying.fd == one.fileno()
        underlying.close()


@pytest.mark.parametrize("options", [NO_OPTION, DEFER, THREADSAFE | DEFER | UNLOCK])
@pytest.mark.parametrize("where", ["filter", "on_read"])
def test_another_filter_may_take_its_place_at_once(
    base: EventBase, below: Halves, options: BufferEventOption, where: str
) -> None:
    underlying, other = below
    received: list[bytes] = []

    def replace() -> None:
        first.close()
        second = BufferEvent.filter(underlying, shift(1), shift(1), options)
        second.on_read = lambda bev: received.append(bev.read())
        second.enable(READ)
        second.write(b"HAL")

    def once(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        received.append(source.remove())
        if where == "filter":
            replace()
        else:
            target.add(b"anything")
        return OK

    first = BufferEvent.filter(underlying, once, None, options, on_read=lambda bev: replace())
    first.enable(READ)
    other.enable(READ)
    other.write(b"start")
    run_until(base, lambda: other.input)
    settle(base)  # the first one is gone for good
    other.write(b"HAL")
    run_until(base, lambda: len(received) == 2)
    assert (received, other.read()) == ([b"start", b"IBM"], b"IBM")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_filter_may_take_over_in_a_read_callback(
    base: EventBase, options: BufferEventOption
) -> None:
    one, peer = socket.socketpair()
    received: list[bytes] = []

    def on_read(bev: BufferEvent) -> None:
        received.append(bev.read(6))
        bev.write(b"ready\n")
        upper = BufferEvent.filter(bev, shift(-1), shift(1), options)
        upper.on_read = lambda bev: received.append(bev.read())
        upper.enable(READ)
        upper.write(b"HAL")
        bev.trigger(READ)  # what has come already is for the filter

    with peer:
        peer.settimeout(PATIENCE)
        BufferEvent(base, one, options, on_read=on_read).enable(READ)
        peer.send(b"begin\nIBM")
        run_until(base, lambda: len(received) == 2)
        settle(base)
        assert received == [b"begin\n", b"HAL"]
        assert peer.recv(100) == b"ready\nIBM"
        peer.send(b"IBM")
        run_until(base, lambda: len(received) == 3)
        assert received[2] == b"HAL"


def test_what_came_while_reading_was_disabled_passes_when_it_is_enabled(
    base: EventBase, below: Halves
) -> None:
    below[0].enable(READ)
    below[1].write(b"IBM")
    run_until(base, lambda: below[0].input)
    bev = BufferEvent.filter(below[0], shift(-1), None)
    settle(base)
    assert bev.read() == b""
    bev.enable(READ)  # unlike in C
    settle(base)
    assert bev.read() == b"HAL"


# The end.


def test_a_base_closes_filters_before_what_they_stand_on(below: Halves, base: EventBase) -> None:
    middle = BufferEvent.filter(below[0], None, None)
    bev = BufferEvent.filter(middle, None, None, NO_OPTION)
    bev.enable(READ)
    base.close()
    assert bev.closed
    assert middle.closed
    assert below[0].closed


@pytest.mark.parametrize("where", ["input filter", "output filter", "on_read", "on_write"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_may_be_closed_where_it_is_called(
    base: EventBase, below: Halves, where: str, options: BufferEventOption
) -> None:
    closed = []

    def close(*_: object) -> FilterResult:
        closed.append(where)
        bev.close()
        return OK

    bev = BufferEvent.filter(
        below[0],
        close if where == "input filter" else None,
        close if where == "output filter" else None,
        options,
        on_read=close if where == "on_read" else None,
        on_write=close if where == "on_write" else None,
    )
    bev.enable(READ)
    below[1].write(b"hello")
    bev.write(b"hello")
    run_until(base, lambda: closed)
    settle(base)
    assert closed == [where]
    assert bev.closed
    assert below[0].closed


@pytest.mark.parametrize("inside", [False, True])
def test_a_filter_can_not_close_the_base_nor_run_its_loop(
    base: EventBase, below: Halves, inside: bool
) -> None:
    refused: list[Callable[..., object]] = []

    def misuse(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        bev.close()
        for use in (base.close, base.loop, base.dispatch):
            with pytest.raises(RuntimeError):
                use()
            refused.append(use)
        return OK

    bev = BufferEvent.filter(below[0], None, misuse)
    if inside:
        base.defer(bev.write, b"hello")
        settle(base)
    else:
        bev.output.add(b"hello")
    assert refused == [base.close, base.loop, base.dispatch]


def test_a_filter_that_nobody_keeps_lives_until_it_is_closed(
    base: EventBase, below: Halves
) -> None:
    received = []
    bev = weakref.ref(
        BufferEvent.filter(
            below[0], shift(-1), None, on_read=lambda bev: received.append(bev.read())
        )
    )
    gc.collect()
    kept = bev()
    assert kept is not None
    kept.enable(READ)
    del kept
    below[1].write(b"IBM")
    run_until(base, lambda: received)
    assert received == [b"HAL"]


def test_a_closed_filter_and_its_functions_go_with_their_last_reference(
    base: EventBase, below: Halves
) -> None:
    function = shift(1)
    bev = BufferEvent.filter(below[0], None, function)
    bev.write(b"hello")
    refs: list[weakref.ref[Any]] = [weakref.ref(bev), weakref.ref(function)]
    bev.close()
    del bev, function
    assert [ref() for ref in refs] == [None, None]


def test_a_base_that_is_dropped_goes_with_its_filters() -> None:
    base = EventBase()
    one, other = BufferEvent.pair(base)
    for options in (CLOSE, NO_OPTION, CLOSE):
        one = BufferEvent.filter(one, shift(1), shift(1), options)
    one.enable(READ)
    one.write(b"hello")
    ref = weakref.ref(base)
    del base, one, other
    gc.collect()
    assert ref() is None


def test_another_thread_may_not_make_one_while_the_loop_runs(
    base: EventBase, below: Halves
) -> None:
    bev = BufferEvent.filter(below[0], None, shift(0))
    errors: list[Exception] = []
    uses: list[Callable[[], object]] = [
        lambda: bev.write(b"x"),
        bev.close,
        lambda: BufferEvent.filter(bev, None, None),
        lambda: bev.flush(WRITE, FLUSH),
    ]

    def misuse() -> None:
        for use in uses:
            try:
                use()
            except ThreadError as error:
                errors.append(error)

    def start_thread() -> None:
        thread = threading.Thread(target=misuse)
        thread.start()
        thread.join(PATIENCE)

    base.defer(start_thread)
    settle(base)
    assert len(errors) == len(uses)
    assert not bev.closed


@VALGRIND_TAKES_LONG
def test_no_order_of_closing_touches_freed_memory(valgrind: bool) -> None:
    run_python(
        """
        import gc, itertools, os, socket
        from libevent_py import *
        READ, WRITE = EventFlag.READ, EventFlag.WRITE
        OK, NEED_MORE, ERROR = FilterResult
        CLOSE, THREADSAFE = BufferEventOption.CLOSE_ON_FREE, BufferEventOption.THREADSAFE
        DEFER = BufferEventOption.DEFER_CALLBACKS

        def end_in_filter(how):
            def filter(source, target, limit, mode):
                data = source.remove(limit)
                target.add(data)
                if how == "close":
                    top.close()
                elif how == "loop":
                    top.close()
                    attempt(base.loop, LoopFlag.NONBLOCK)
                elif how == "raise":
                    raise ZeroDivisionError
                elif how == "lie":
                    return 1000
                elif how == "recur" and len(calls) < 5:
                    calls.append(mode)
                    top.write(b"more")
                    top.flush(READ | WRITE, mode)
                return OK
            return filter

        def end_in_callback(bev, *what):
            if how.startswith("on"):
                bev.close()
                if how == "on loop":
                    attempt(base.loop, LoopFlag.NONBLOCK)

        def attempt(function, *arguments):
            try:
                function(*arguments)
            except (ZeroDivisionError, TypeError, LibeventError):
                pass
            except Exception as error:
                assert "several callbacks raised" in str(error) or "the loop" in str(error)

        def do_all():
            attempt(top.write, b"hello" * 100)
            attempt(lambda: top.output.add(b"hello"))
            attempt(lambda: top.underlying.trigger(READ | WRITE))
            attempt(lambda: top.trigger_event(BufferEventFlag.EOF))
            for mode in FlushMode:
                attempt(lambda: top.flush(READ | WRITE, mode))
            attempt(lambda: top.input.drain(100))

        hows = ["close", "loop", "raise", "lie", "recur", "on close", "on loop", "base", "drop"]
        kinds = ["pair", "sockets"]
        options = [CLOSE, 0, CLOSE | THREADSAFE | DEFER]
        for how, kind, option, inside in itertools.product(hows, kinds, options, (False, True)):
            calls = []
            base = EventBase()
            if kind == "pair":
                one, other = BufferEvent.pair(base)
            else:
                one, other = (BufferEvent(base, sock) for sock in socket.socketpair())
            middle = BufferEvent.filter(one, None, end_in_filter("nothing"), option)
            top = BufferEvent.filter(middle, end_in_filter(how), end_in_filter(how), option)
            top.setcb(end_in_callback, end_in_callback, end_in_callback)
            for bev in (middle, top, other):
                bev.enable(READ)
            other.write(b"hello")
            if inside:
                base.defer(do_all)
            else:
                do_all()
            if how == "base":
                base.close()
            elif how == "drop":
                del base, one, other, middle, top, bev
                gc.collect()
                continue
            for _ in range(5):
                attempt(base.loop, LoopFlag.NONBLOCK)
                calls.clear()
            if option == 0 and top.closed and not base.closed:
                middle.close()
                one.write(b"on its own again")
                attempt(base.loop, LoopFlag.NONBLOCK)
            base.close()

        base = EventBase()
        one, other = BufferEvent.pair(base)
        how, inside = "nothing", True
        top = BufferEvent.filter(one, None, end_in_filter(how), 0)
        if not os.fork():
            try:
                top.write(b"?")
            except ForkError:
                top.close()
                base.reinit()
                one.close()
                base.close()
            os._exit(0)
        os.wait()
        top.close()
        one.close()
        """,
        valgrind=valgrind,
    )


@pytest.mark.parametrize("option", [NO_OPTION, CLOSE], ids=str)
@pytest.mark.parametrize("how", ["by itself", "by its base", "in the loop"])
def test_what_is_below_a_filter_may_call_back_as_that_ends(
    base: EventBase, option: BufferEventOption, how: str
) -> None:
    one, other = BufferEvent.pair(base)
    changes: list[int] = []

    def changed(_buffer: Buffer, info: Any) -> None:
        changes.append(info.n_added)
        if len(changes) > 2:
            raise ZeroDivisionError

    one.input.add_cb(changed)
    top = BufferEvent.filter(one, None, None, option)
    top.enable(READ)
    top.setwatermark(READ, 0, 4)  # so the filter stops reading, and its end starts it again
    for _ in range(2):
        other.write(b"12345678")
        base.loop(LoopFlag.NONBLOCK)
    if how == "in the loop":
        base.defer(top.close)
    ends: dict[str, Callable[[], object]] = {"by itself": top.close, "by its base": base.close}
    with pytest.raises(ZeroDivisionError):
        ends.get(how, base.loop)()
    assert changes == [8, 0, 8]
    assert errors.waiting() == 0
    assert one.closed is (option == CLOSE or base.closed)
