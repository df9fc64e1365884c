"""libevent's log: where its messages go, in which order, and libevent's last word (A3, A5)."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    DebugLogging,
    Event,
    EventBase,
    LogSeverity,
    LoopFlag,
    errors,
    ffi,
    lib,
    log,
)
from tests.kit.flags import READ
from tests.kit.interposing import Interposer, interrupt
from tests.kit.support import PATIENCE, only, run_python

Messages = list[tuple[LogSeverity, str]]


class Oops(Exception):
    """What the callbacks here raise."""


@pytest.fixture
def logged() -> Iterator[Messages]:
    """The messages that libevent logs meanwhile."""
    messages: Messages = []
    log.set_log_callback(lambda severity, text: messages.append((severity, text)))
    yield messages
    log.enable_debug_logging(DebugLogging.NONE)
    log.flush()
    log.set_log_callback(None)


@pytest.fixture
def base() -> Iterator[EventBase]:
    """A base that warns of what it can't wait for."""
    with only("epoll") as base:
        yield base


@pytest.fixture
def warn(base: EventBase, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A function that has libevent log a warning, by the raw layer: nobody hands it on."""
    with open(tmp_path / "file", "w") as file:
        event = lib.event_new(base.pointer, file.fileno(), lib.EV_READ, ffi.NULL, ffi.NULL)

        def warn() -> None:
            assert lib.event_add(event, ffi.NULL) == -1

        yield warn
        lib.event_free(event)


@pytest.fixture
def refused(base: EventBase, tmp_path: Path) -> Iterator[Event]:
    """An event that can't be added: the warning of it is handed on before the error is raised."""
    with open(tmp_path / "refused", "w") as file:
        yield Event(base, file.fileno(), READ, print)


# Where messages go.


def test_messages_go_to_the_logger_libevent(
    base: EventBase, refused: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PermissionError):
        refused.add()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("libevent", logging.WARNING)
    assert "Epoll ADD" in record.getMessage()


def test_each_severity_has_a_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="libevent")
    for severity in LogSeverity:
        log.to_logging(severity, "100% %s")
    assert [record.levelno for record in caplog.records] == [
        logging.DEBUG,
        logging.INFO,
        logging.WARNING,
        logging.ERROR,
    ]
    assert {record.getMessage() for record in caplog.records} == {"100% %s"}


def test_nothing_is_printed_where_nobody_has_asked_for_it(tmp_path: Path) -> None:
    printed = run_python(
        """
        import sys
        from libevent_py import Event, EventBase, EventConfig, EventFlag

        with EventConfig(avoid=["poll", "select"]) as config:
            base = EventBase(config)
        with open(sys.argv[1], "w") as file:
            event = Event(base, file, EventFlag.READ, print)
            try:
                event.add()
            except PermissionError:
                event.close()
        base.close()
        """,
        str(tmp_path / "file"),
    )
    assert printed == ""


def test_a_callback_gets_severity_and_text(refused: Event, logged: Messages) -> None:
    with pytest.raises(PermissionError):
        refused.add()
    ((severity, text),) = logged
    assert severity is LogSeverity.WARN
    assert "Epoll ADD" in text


def test_what_was_logged_before_goes_to_the_callback_of_its_time(
    warn: Callable[[], None], logged: Messages
) -> None:
    later: Messages = []
    warn()
    log.set_log_callback(lambda severity, text: later.append((severity, text)))
    warn()
    log.flush()
    assert (len(logged), len(later)) == (1, 1)


@pytest.mark.parametrize(
    "function", [log.set_log_callback, log.set_fatal_callback], ids=["log", "fatal"]
)
def test_only_what_can_be_called_is_a_callback(function: Callable[[Any], None]) -> None:
    with pytest.raises(TypeError, match="callback must be callable, not 3"):
        function(3)


# When they are handed on.


def test_a_running_loop_hands_on_what_another_thread_caused(
    warn: Callable[[], None], logged: Messages
) -> None:
    """A5: at once, although the loop has nothing else to do, and in its own thread."""
    threads: list[int] = []
    with EventBase() as other:

        def callback(severity: LogSeverity, text: str) -> None:
            threads.append(threading.get_ident())
            other.loopexit()

        log.set_log_callback(callback)
        timer = threading.Timer(0.05, warn)
        timer.start()
        assert other.loop(LoopFlag.NO_EXIT_ON_EMPTY) is True
        timer.join()
        assert threads == [threading.get_ident()]


def test_a_loop_hands_on_what_was_logged_before_it_began_and_at_its_end(
    base: EventBase, warn: Callable[[], None], logged: Messages
) -> None:
    seen: list[int] = []
    warn()
    base.once(lambda fd, what: (seen.append(len(logged)), warn()))
    base.dispatch()
    assert seen == [1]
    assert len(logged) == 2


def test_a_message_from_before_the_first_loop_keeps_no_later_one_back() -> None:
    """A5: there was no pipe yet to wake anybody by."""
    run_python(
        """
        import threading
        from libevent_py import EventBase, LoopFlag, ffi, lib, log

        messages = []

        def callback(severity, text):
            messages.append(text)
            if len(messages) == 2:
                base.loopexit()

        log.set_log_callback(callback)
        base = EventBase()
        assert base.method == "epoll"
        event = lib.event_new(base.pointer, 10**6, lib.EV_READ, ffi.NULL, ffi.NULL)
        assert lib.event_add(event, ffi.NULL) == -1
        timer = threading.Timer(0.1, lib.event_add, (event, ffi.NULL))
        timer.start()
        assert base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        timer.join()
        lib.event_free(event)
        base.close()
        """
    )


def test_what_is_left_is_handed_on_when_the_process_ends() -> None:
    printed = run_python(
        """
        from libevent_py import EventBase, ffi, lib, log

        log.set_log_callback(lambda severity, text: print(severity.name))
        base = EventBase()
        event = lib.event_new(base.pointer, 10**6, lib.EV_READ, ffi.NULL, ffi.NULL)
        assert lib.event_add(event, ffi.NULL) == -1
        lib.event_free(event)
        """
    )
    assert printed == "WARN\n"


def test_a_forked_child_leaves_its_parent_s_messages_to_it(
    warn: Callable[[], None], logged: Messages
) -> None:
    """A8: they would be in the log twice."""
    warn()
    child = os.fork()
    if child == 0:
        try:
            log.flush()
            os._exit(len(logged))
        finally:
            os._exit(99)
    assert os.waitpid(child, 0)[1] == 0
    log.flush()
    assert len(logged) == 1


# Callbacks that misbehave.


def test_what_a_callback_raises_comes_out_and_no_message_is_lost(
    warn: Callable[[], None], logged: Messages
) -> None:
    def callback(severity: LogSeverity, text: str) -> None:
        logged.append((severity, text))
        if len(logged) in (1, 3):
            raise Oops

    log.set_log_callback(callback)
    for _ in range(5):
        warn()
    for expected in (1, 3):
        with pytest.raises(Oops):
            log.flush()
        assert len(logged) == expected
    log.flush()
    assert len(logged) == 5


def test_it_comes_out_of_a_running_loop(
    base: EventBase, warn: Callable[[], None], logged: Messages
) -> None:
    """A5: no C is below that could mind."""

    def callback(severity: LogSeverity, text: str) -> None:
        raise Oops

    log.set_log_callback(callback)
    base.once(lambda fd, what: warn())
    event = Event.timer(base, print).add(1000)
    with pytest.raises(Oops):
        base.dispatch()
    assert base.got_break
    log.set_log_callback(None)
    event.close()


def test_it_comes_out_of_a_call_that_fails_with_what_failed(
    refused: Event, logged: Messages
) -> None:
    def callback(severity: LogSeverity, text: str) -> None:
        raise Oops

    log.set_log_callback(callback)
    with pytest.raises(Oops) as caught:
        refused.add()
    assert isinstance(caught.value.__context__, PermissionError)
    assert not refused.pending
    assert errors.waiting() == 0


def test_a_message_is_delivered_once_though_an_interrupt_comes(
    warn: Callable[[], None], logged: Messages
) -> None:
    number = 0
    while True:
        warn()
        warn()
        interposer = Interposer(interrupt, number, signals=True)
        with contextlib.suppress(KeyboardInterrupt):
            interposer.run(log.flush)
        log.flush()
        assert len(logged) == 2, interposer.where
        logged.clear()
        if interposer.where is None:
            break
        number += 1
    assert number > 10


def test_a_callback_may_call_libevent(base: EventBase, refused: Event, logged: Messages) -> None:
    """A5: no lock of libevent's is held, so other threads can use the base meanwhile too."""
    called: list[str] = []

    def callback(severity: LogSeverity, text: str) -> None:
        thread = threading.Thread(target=base.loopexit, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        with EventBase() as other:
            other.once(lambda fd, what: called.append("other"))
            other.dispatch()
        base.defer(called.append, "deferred")
        base.dump_events()

    def failing(fd: int, what: int) -> None:
        with pytest.raises(PermissionError):
            refused.add()

    log.set_log_callback(callback)
    base.once(failing)
    base.dispatch()
    base.dispatch()
    assert called == ["other", "deferred"]


def test_a_callback_that_causes_messages_gets_them_in_order(
    warn: Callable[[], None], refused: Event, logged: Messages
) -> None:
    """A5: those that wait already come first."""
    fds: list[str] = []

    def callback(severity: LogSeverity, text: str) -> None:
        fds.append(text.split(" on fd ")[1].split()[0])
        if len(fds) == 1:
            with pytest.raises(PermissionError):
                refused.add()

    log.set_log_callback(callback)
    warn()
    warn()
    log.flush()
    assert fds == [fds[0], fds[0], str(refused.fd)]


def test_a_logging_handler_that_fails_stops_nothing(
    refused: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with any logger, it is for `logging.raiseExceptions` to say so."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                raise Oops
            except Oops:
                self.handleError(record)

    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = Failing()
    log.logger.addHandler(handler)
    try:
        with pytest.raises(PermissionError):
            refused.add()
    finally:
        log.logger.removeHandler(handler)


# Debug messages.


def test_debug_messages_tell_in_order_what_libevent_does(base: EventBase, logged: Messages) -> None:
    event = Event.timer(base, lambda *_: None)
    log.enable_debug_logging()
    event.add(0)
    base.dispatch()
    log.enable_debug_logging(DebugLogging.NONE)
    event.add(0)
    base.dispatch()
    assert {severity for severity, _ in logged} == {LogSeverity.DEBUG}
    address = f"{int(ffi.cast('uintptr_t', event.pointer)):#x}"
    mine = [text.partition(":")[0] for _, text in logged if address in text]
    told = [word for word in mine if word in ("event_add", "event_active", "event_process_active")]
    assert list(dict.fromkeys(told)) == ["event_add", "event_active", "event_process_active"]


def test_debug_messages_keep_no_loop_busy(base: EventBase, logged: Messages) -> None:
    """A5: each turn of the loop makes new ones, which must not wake it again."""
    base.loop(LoopFlag.NONBLOCK)
    log.enable_debug_logging()
    base.once(lambda fd, what: None, timeout=0.3)
    start = time.process_time()
    base.dispatch()
    assert time.process_time() - start < 0.15
    assert len(logged) < 500


def test_many_debug_messages_are_handed_on_while_the_loop_runs(
    base: EventBase, logged: Messages
) -> None:
    """A5: they don't pile up until it ends."""
    seen: list[int] = []
    log.enable_debug_logging()

    def callback(event: Event, fd: int, what: int) -> None:
        seen.append(len(logged))
        if len(seen) < 200:
            event.add(0)

    Event.timer(base, callback).add(0)
    base.dispatch()
    assert len(seen) == 200
    assert seen[-1] > 200
    texts = [text for _, text in logged]
    assert sum(text.startswith("event_process_active") for text in texts) >= 200


def test_debug_messages_from_many_threads_are_all_there(logged: Messages) -> None:
    """A5: a message is never taken while the log is being written to."""

    def run() -> None:
        with EventBase() as base:
            for _ in range(200):
                base.once(lambda fd, what: None)
                base.dispatch()

    log.enable_debug_logging()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    log.flush()
    ran = sum(text.startswith("event_process_active") for _, text in logged)
    assert ran >= 800


@pytest.mark.parametrize("which", [-1, 2**32])
def test_unknown_debug_messages_are_refused(which: int) -> None:
    with pytest.raises(ValueError, match="which"):
        log.enable_debug_logging(which)
    with pytest.raises(TypeError, match="which"):
        log.enable_debug_logging("all")  # type: ignore[arg-type]


# The end.

#: Shrinks the priorities below an event's, which libevent asserts that nobody does.
ASSERTION = """
    import sys
    from libevent_py import Event, EventBase, lib, log

    log.set_log_callback(lambda severity, text: print("logged", severity.name))
    base = EventBase(priorities=3)
    event = Event(base, -1, 0, print, priority=2)
    lib.event_base_priority_init(base.pointer, 1)
"""


def test_a_failed_assertion_says_so_and_aborts() -> None:
    """A1: libevent's own message is all that is left of the process."""
    run_python(ASSERTION + "    event.active()\n", status=-signal.SIGABRT, stderr=None)


def test_the_fatal_callback_may_report_and_then_the_process_ends() -> None:
    """A3: it must not return into libevent, so exit() follows."""
    printed = run_python(
        ASSERTION
        + """
    def fatal(code):
        print("fatal", code & 0xffffffff == 0xdeaddead)
        sys.stdout.flush()

    log.set_fatal_callback(fatal)
    event.active()
    print("not reached")
""",
        status=0xDEADDEAD & 0xFF,
        stderr=None,
    )
    assert printed == "logged ERR\nfatal True\n"


def test_the_fatal_callback_gets_the_code_that_libevent_exits_with() -> None:
    """A3: here debug mode is switched on too late, by the raw layer."""
    printed = run_python(
        """
        from libevent_py import EventBase, lib, log

        log.set_fatal_callback(lambda code: print("code", code, flush=True))
        base = EventBase()
        lib.event_enable_debug_mode()
        """,
        status=1,
        stderr=None,
    )
    assert printed == "code 1\n"


def test_what_a_fatal_callback_raises_is_printed() -> None:
    """A3: there is nobody left to raise it to."""
    run_python(
        """
        import os
        import sys
        from libevent_py import EventBase, lib, log

        os.dup2(1, 2)

        def fatal(code):
            raise ZeroDivisionError("in the fatal callback")

        log.set_fatal_callback(fatal)
        base = EventBase()
        lib.event_enable_debug_mode()
        """,
        status=1,
        stderr=None,
    )


def test_a_log_callback_that_raises_keeps_no_fatal_callback_from_being_called() -> None:
    """A3: it is the last chance to report."""
    printed = run_python(
        """
        from libevent_py import EventBase, lib, log

        log.set_log_callback(lambda severity, text: 1 / 0)
        log.set_fatal_callback(lambda code: print("code", code, flush=True))
        base = EventBase()
        lib.event_enable_debug_mode()
        """,
        status=1,
        stderr=None,
    )
    assert printed == "code 1\n"


def test_without_a_fatal_callback_there_is_none_again() -> None:
    """A3: None takes it back."""
    printed = run_python(
        """
        from libevent_py import EventBase, lib, log

        log.set_fatal_callback(print)
        log.set_fatal_callback(None)
        base = EventBase()
        lib.event_enable_debug_mode()
        """,
        status=1,
        stderr=None,
    )
    assert printed == ""
