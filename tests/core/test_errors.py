"""What callbacks raise, what C fails with, and where both come out."""

from __future__ import annotations

import errno
import re
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    DnsError,
    Event,
    EventBase,
    EventFlag,
    ForkError,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    LibeventError,
    LoopFlag,
    ThreadError,
    errors,
    ffi,
    lib,
)
from libevent_py._core.names import STANDS_FOR, name_of
from tests.kit.support import ROOT, run_python

GROUPS = sys.version_info >= (3, 11)


class Oops(Exception):
    """What the callbacks here raise."""


def oops(*_: object) -> NoReturn:
    raise Oops


def raising(error: BaseException) -> Any:
    """Return a function that raises *error*, whatever it is called with."""

    def function(*_: object) -> NoReturn:
        raise error

    return function


def finalized(base: EventBase, function: Any) -> None:
    """Have *function* called when *base* is closed, as the finalizer of an event."""
    Event.user(base, print).close(finalize=function)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was raised where nobody can catch it."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    assert seen == []


# Out of the loop.


def test_what_a_callback_raises_comes_out_of_dispatch_with_its_traceback(base: EventBase) -> None:
    base.once(oops)
    with pytest.raises(Oops) as caught:
        base.dispatch()
    assert oops.__code__ in [frame.f_code for frame, _ in traceback.walk_tb(caught.tb)]


def test_a_raising_callback_stops_the_loop_at_once_and_the_next_loop_goes_on(
    base: EventBase,
) -> None:
    called: list[int] = []
    base.once(lambda fd, what: called.append(1))
    base.once(oops)
    base.once(lambda fd, what: called.append(2))
    with pytest.raises(Oops):
        base.dispatch()
    assert called == [1]
    assert base.got_break
    assert base.dispatch() is False
    assert called == [1, 2]


def test_the_errors_are_what_python_knows_them_as() -> None:
    assert issubclass(ClosedError, LibeventError) and issubclass(ClosedError, ValueError)
    assert issubclass(ThreadError, LibeventError) and issubclass(ThreadError, RuntimeError)
    assert issubclass(ForkError, LibeventError) and issubclass(ForkError, RuntimeError)
    assert issubclass(DnsError, LibeventError) and issubclass(DnsError, socket.gaierror)


def test_nested_loops_each_raise_what_their_own_callbacks_raised(base: EventBase) -> None:
    with EventBase() as inner:
        inner.once(oops)

        def outer_callback(fd: int, what: int) -> None:
            with pytest.raises(Oops):
                inner.dispatch()

        base.once(outer_callback)
        assert base.dispatch() is False
        assert inner.got_break
        assert not base.got_break


def test_what_an_inner_loop_raises_comes_out_of_the_outer_one_too(base: EventBase) -> None:
    with EventBase() as inner:
        inner.once(oops)
        base.once(lambda fd, what: inner.dispatch())
        with pytest.raises(Oops):
            base.dispatch()
        assert base.got_break


def test_an_exception_in_the_outer_loop_waits_until_the_inner_loop_is_over(
    base: EventBase,
) -> None:
    with EventBase() as inner:
        order: list[str] = []

        def outer_callback(fd: int, what: int) -> None:
            inner.once(lambda fd, what: order.append("inner"))
            try:
                raise Oops
            finally:
                inner.dispatch()

        base.once(outer_callback)
        with pytest.raises(Oops):
            base.dispatch()
        assert order == ["inner"]


def test_exceptions_come_out_in_the_thread_whose_loop_raised_them() -> None:
    caught: dict[str, BaseException] = {}
    both_are_in = threading.Barrier(2)

    def run(name: str) -> None:
        def callback(fd: int, what: int) -> None:
            both_are_in.wait(60)
            raise Oops(name)

        with EventBase() as base:
            base.once(callback)
            try:
                base.dispatch()
            except Oops as error:
                caught[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: str(error) for name, error in caught.items()} == {"one": "one", "two": "two"}


# Several at once.


def assert_both(raised: BaseException, first: BaseException, second: BaseException) -> None:
    """Check that *raised* is both, as a group or, where Python has none, as a chain."""
    if GROUPS:
        assert isinstance(raised, ExceptionGroup)  # type: ignore[name-defined]  # noqa: F821
        assert raised.exceptions == (first, second)
    else:
        assert raised is second
        assert second.__context__ is first


def test_several_exceptions_come_out_as_one() -> None:
    base = EventBase()
    first, second = Oops("first"), KeyError("second")
    finalized(base, raising(first))
    finalized(base, raising(second))
    with pytest.raises(BaseException) as caught:
        base.close()
    assert_both(caught.value, first, second)


def test_what_is_raised_as_a_base_is_freed_comes_with_what_was_before() -> None:
    base = EventBase()
    first, second = Oops("first"), KeyError("second")
    connection = HttpConnection(base, "127.0.0.1", 9)
    connection.make_request(HttpRequest(raising(first)), HttpCommand.GET, "/")
    finalized(base, raising(second))
    with pytest.raises(BaseException) as caught:
        base.close()
    assert_both(caught.value, first, second)


def test_nothing_is_lost_of_exceptions_that_are_chained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "BaseExceptionGroup", None, raising=False)
    raised = [Oops("first"), Oops("second"), Oops("third")]
    raised[1].__context__ = ValueError("of the second")
    errors.entered.here.raised.extend(raised)
    with pytest.raises(Oops, match="third"):
        errors.settle(0)
    assert raised[2].__context__ is raised[1]
    assert raised[1].__context__.__context__ is raised[0]
    assert raised[0].__context__ is None


def test_what_an_exception_was_raised_amid_stays_its_context_though_another_is_handled(
    base: EventBase,
) -> None:
    inner, outer, raised = Oops("inner"), Oops("outer"), Oops("raised")

    def callback() -> None:
        try:
            raise inner
        except Oops:
            raise raised  # noqa: B904

    base.defer(callback)
    try:
        raise outer
    except Oops:
        with pytest.raises(Oops) as caught:
            base.loop()
    assert caught.value is raised
    assert (raised.__context__, inner.__context__, outer.__context__) == (inner, outer, None)


def test_one_exception_raised_again_and_again_is_not_its_own_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "BaseExceptionGroup", None, raising=False)
    one, other = Oops("one"), Oops("other")
    errors.entered.here.raised.extend([one, other, one, one])
    with pytest.raises(Oops, match="one"):
        errors.settle(0)
    assert one.__context__ is other
    assert other.__context__ is None


def test_what_was_raised_amid_an_interrupt_is_not_lost_with_it() -> None:
    interrupt, error = KeyboardInterrupt(), Oops()
    error.__context__ = interrupt
    errors.entered.here.raised.extend([interrupt, error])
    with pytest.raises(KeyboardInterrupt):
        errors.settle(0)
    assert interrupt.__context__ is error
    assert error.__context__ is None


@pytest.mark.parametrize("groups", [True, False] if GROUPS else [False])
@pytest.mark.parametrize("last", [True, False])
def test_keyboard_interrupt_is_not_hidden_among_several(
    monkeypatch: pytest.MonkeyPatch, groups: bool, last: bool
) -> None:
    if not groups:
        monkeypatch.setattr(errors, "BaseExceptionGroup", None, raising=False)
    error, interrupt = Oops(), KeyboardInterrupt()
    base = EventBase()
    for raised in (error, interrupt) if last else (interrupt, error):
        finalized(base, raising(raised))
    with pytest.raises(KeyboardInterrupt):
        base.close()
    assert interrupt.__context__ is error


def test_system_exit_ends_the_process_although_something_else_was_raised_too() -> None:
    run_python(
        """
        import sys
        from libevent_py import Event, EventBase

        base = EventBase()
        Event.user(base, print).close(finalize=lambda event: 1 / 0)
        Event.user(base, print).close(finalize=lambda event: sys.exit(7))
        base.close()
        """,
        status=7,
    )


def test_an_exception_does_not_come_out_of_what_a_later_callback_calls() -> None:
    base = EventBase()
    done: list[str] = []

    def later_callback(event: Event) -> None:
        other.loop(LoopFlag.NONBLOCK)
        done.append("loop")
        other.reinit()
        done.append("reinit")
        EventBase().close()
        done.append("close")

    with EventBase() as other:
        finalized(base, oops)
        finalized(base, later_callback)
        with pytest.raises(Oops):
            base.close()
    assert done == ["loop", "reinit", "close"]


def test_a_base_collected_meanwhile_does_not_take_an_exception_with_it(
    unraisable: list[Any],
) -> None:
    base = EventBase()
    dropped = [EventBase()]
    finalized(base, oops)
    finalized(base, lambda event: dropped.clear())
    with pytest.raises(Oops):
        base.close()


def test_what_a_signal_handler_raises_does_not_leave_others_behind(base: EventBase) -> None:
    error = Oops()

    def entered() -> NoReturn:
        errors.keep(error)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        errors.call(entered)
    assert caught.value.__context__ is error
    assert errors.entered.here.raised == []


# on_error.


def test_on_error_takes_exceptions_with_their_source_and_the_loop_goes_on(
    base: EventBase,
) -> None:
    taken: list[tuple[Exception, Any]] = []
    base.on_error = lambda error, source: taken.append((error, source))
    event = Event.timer(base, raising(Oops("event"))).add(0)
    base.once(raising(Oops("once")))
    base.defer(raising(Oops("deferred")))
    finalized(base, raising(Oops("finalizer")))
    assert base.dispatch() is False
    assert {str(error): source for error, source in taken} == {
        "event": event,
        "once": base,
        "deferred": base,
        "finalizer": taken[[str(error) for error, _ in taken].index("finalizer")][1],
    }
    assert all(error.__traceback__ is not None for error, _ in taken)


def test_functions_deferred_beside_one_that_raises_run_all_the_same(base: EventBase) -> None:
    ran: list[int] = []
    base.defer(oops)
    base.defer(ran.append, 1)
    base.defer(oops)
    base.defer(ran.append, 2)
    for expected in ([], [1]):
        with pytest.raises(Oops):
            base.dispatch()
        assert ran == expected
    base.dispatch()
    assert ran == [1, 2]
    base.on_error = lambda error, source: None
    base.defer(oops)
    base.defer(ran.append, 3)
    base.dispatch()
    assert ran == [1, 2, 3]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_by_on_error(
    base: EventBase, kind: type[BaseException]
) -> None:
    base.on_error = oops
    base.once(raising(kind()))
    with pytest.raises(kind):
        base.dispatch()


def test_what_on_error_raises_comes_out_with_what_it_was_called_for(base: EventBase) -> None:
    first = Oops("first")
    worse = Oops("worse")
    base.on_error = raising(worse)
    base.once(raising(first))
    with pytest.raises(Oops, match="worse"):
        base.dispatch()
    assert worse.__context__ is first


@pytest.mark.parametrize("eager", [0, BufferEventOption.EAGER], ids=["plain", "EAGER"])
@pytest.mark.parametrize("what", ["event", "on_read", "on_data", "on_write"])
def test_on_error_is_called_while_the_error_is_handled(
    base: EventBase, what: str, eager: int
) -> None:
    """As by ``except``: `logging.exception` finds it, and it is what another was raised amid."""
    first, worse = Oops("first"), Oops("worse")
    handled: list[object] = []

    def on_error(error: Exception, source: object) -> None:
        handled.append(sys.exc_info()[1])
        raise worse

    base.on_error = on_error
    one, peer = socket.socketpair()
    one.setblocking(False)
    with peer, BufferEvent(base, one, BufferEventOption.CLOSE_ON_FREE | eager) as bev:
        if what == "event":
            Event.timer(base, raising(first)).add(0)
        else:
            setattr(bev, what, raising(first))
            bev.enable(EventFlag.READ)
            peer.send(b"x")
            bev.write(b"x")
        with pytest.raises(Oops, match="worse"):
            base.loop(LoopFlag.ONCE)
            base.loop(LoopFlag.NONBLOCK)
    assert handled == [first] and sys.exc_info()[1] is None
    assert worse.__context__ is first


def test_on_error_may_stop_the_loop_and_may_be_taken_back(base: EventBase) -> None:
    base.on_error = lambda error, source: base.loopbreak()
    base.once(oops)
    base.once(oops)
    assert base.dispatch() is True
    base.on_error = None
    with pytest.raises(Oops):
        base.dispatch()


def test_on_error_must_be_callable(base: EventBase) -> None:
    with pytest.raises(TypeError, match="on_error must be callable, not 3"):
        base.on_error = 3  # type: ignore[assignment]
    assert base.on_error is None


def test_system_exit_in_a_callback_ends_the_process_with_its_status() -> None:
    run_python(
        """
        import sys
        from libevent_py import EventBase

        base = EventBase()
        base.on_error = print
        base.once(lambda fd, what: sys.exit(3))
        base.dispatch()
        """,
        status=3,
    )


# What C fails with.


def failing(code: int) -> Any:
    """Return a function that fails as one of C's does, with *code* in errno."""

    def event_add() -> int:
        if code:
            ffi.errno = code
        return -1

    return event_add


def test_a_failure_with_errno_is_the_os_error_that_it_means() -> None:
    with pytest.raises(PermissionError, match="event_add: ") as caught:
        errors.call(failing(errno.EPERM))
    assert caught.value.errno == errno.EPERM


def test_a_failure_without_errno_names_the_function() -> None:
    with pytest.raises(LibeventError, match=r"^event_add failed$"):
        errors.call(failing(0))


def test_an_older_errno_is_not_blamed() -> None:
    ffi.errno = errno.EBADF
    with pytest.raises(LibeventError, match=r"^event_add failed$"):
        errors.call(failing(0))


def test_a_failure_for_want_of_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="event_add"):
        errors.call(failing(errno.ENOMEM))


def test_null_for_a_new_object_is_a_failure() -> None:
    def event_config_new() -> Any:
        ffi.errno = errno.ENOMEM
        return ffi.NULL

    with pytest.raises(MemoryError, match="event_config_new"):
        errors.new(event_config_new)


def test_a_wrong_argument_for_c_is_python_s_type_error() -> None:
    with pytest.raises(TypeError):
        errors.call(lib.event_config_set_flag, "no pointer", 1)  # type: ignore[arg-type]
    assert errors.entered.here.loop is None
    assert errors.entered.here.raised == []


# What functions are called in errors.

C = ROOT / "libevent_py" / "_c"
DECLARED = r"^(?!extern|#)[^\n(]*?\b(evpy_\w+)\("
OURS = sorted(
    name
    for header in C.glob("*.h")
    for name in re.findall(DECLARED, header.read_text(), re.MULTILINE)
)

#: What errors name that libevent's headers don't declare: the system's, and OpenSSL's.
NOT_LIBEVENTS = r"pthread_atfork|mincore|OpenSSL_\w+|SSL_\w+"


def named(name: str) -> Any:
    """Return a function of that name, which fails as C's do."""

    def function() -> int:
        ffi.errno = 0
        return -1

    function.__name__ = name
    return function


def test_the_functions_of_ours_are_all_found() -> None:
    assert len(OURS) == len(set(OURS)) > 100
    assert set(OURS) >= {"evpy_event_add", "evpy_tls_new", "evpy_rpc_add_hook", "evpy_peek"}
    for name in {name for name in dir(lib) if name.startswith("evpy_")} - set(OURS):
        for header in C.glob("*.h"):  # what C calls, or Python's own probes
            assert not re.search(rf"^(?!extern).*\b{name}\(", header.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_no_error_names_a_function_of_ours_but_libevents_that_it_stands_for(name: str) -> None:
    with pytest.raises(LibeventError) as caught:
        errors.call(named(name))
    ffi.errno = errno.EINVAL
    for error in (caught.value, errors.failed(named(name), "fd 3")):
        assert "evpy" not in str(error)
        public = re.search(r"\b([a-z]\w+|OpenSSL_\w+|SSL_\w+)(?=:| failed)", str(error))
        assert public is not None
        found = public[1]
        assert hasattr(lib, found) or re.fullmatch(NOT_LIBEVENTS, found), found


def test_the_table_of_what_ours_stand_for_is_not_out_of_date() -> None:
    assert set(STANDS_FOR) <= set(OURS)
    for name, public in STANDS_FOR.items():
        assert name.removeprefix("evpy_") != public, f"{name} needs no entry"


def test_a_function_without_a_table_entry_is_named_as_it_is() -> None:
    assert name_of(lib.event_add) == "event_add"
    assert name_of(lib.evpy_event_add) == "event_add"
    assert name_of(lib.evpy_onces_new) == "event_base_new_with_config"
