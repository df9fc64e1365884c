"""libevent's log: into Python's `logging` under the name ``libevent``, or to a callback.

libevent logs while it holds its locks, so its messages wait on a list in C (``_c/log.c``) until no
C is below that could mind: a running loop fetches them in its next turn, a call that fails before
it raises, and anybody by `flush`. An error, libevent's last word before it ends the process, also
goes to stderr.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._ffi import ffi, lib
from libevent_py.enums import DebugLogging, LogSeverity

LogCallback = Callable[[LogSeverity, str], object]

logger = logging.getLogger("libevent")
logger.addHandler(logging.NullHandler())  # no handler of the user's: no output

LEVELS = {
    LogSeverity.DEBUG: logging.DEBUG,
    LogSeverity.MSG: logging.INFO,
    LogSeverity.WARN: logging.WARNING,
    LogSeverity.ERR: logging.ERROR,
}


def to_logging(severity: LogSeverity, message: str) -> None:
    """Hand a message to the logger ``libevent``."""
    logger.log(LEVELS.get(severity, logging.ERROR), "%s", message)


_callback: LogCallback = to_logging
_taken: deque[tuple[LogSeverity, str]] = deque()  # from C, but not handed on yet
_fatal: Callable[[int], object] | None = None


def set_log_callback(callback: LogCallback | None) -> None:
    """Have ``callback(severity, message)`` get libevent's messages, or with None `logging` again.

    Unlike in C it runs after the fact, without libevent's locks, and may call whatever it likes.
    Wraps ``event_set_log_callback``.
    """
    global _callback
    flush()
    _callback = to_logging if callback is None else convert.callback(callback)


def flush() -> None:
    """Hand on the messages that libevent has logged so far, oldest first.

    What the callback raises comes out; the messages after it wait for the next time.
    """
    _take()
    while _taken:
        try:
            severity, text = _taken.popleft()
        except IndexError:  # another thread has it
            return
        _callback(severity, text)


def _take() -> None:
    message = lib.evpy_log_take()
    while message != ffi.NULL:
        severity = LogSeverity(lib.evpy_message_severity(message))
        _taken.append((severity, convert.text(lib.evpy_message_text(message))))
        message = lib.evpy_message_next(message)


def _after_fork() -> None:
    _take()
    _taken.clear()  # the parent process hands them on


def enable_debug_logging(which: int = DebugLogging.ALL) -> None:
    """Have libevent log what it does, at level DEBUG, or with `DebugLogging.NONE` stop it again.

    A running loop hands these messages on in batches, and the rest when it ends.
    Wraps ``event_enable_debug_logging``.
    """
    lib.event_enable_debug_logging(convert.integer(which, "which", 0, DebugLogging.ALL))


def set_fatal_callback(callback: Callable[[int], object] | None) -> None:
    """Have ``callback(code)`` called when libevent gives up; with None nobody is.

    The process ends when it returns: by ``exit(code)``, whereas without a callback a failed
    assertion ends it by ``abort()``. So there is only time to report (A3), and what it raises is
    printed.
    Wraps ``event_set_fatal_callback``.
    """
    global _fatal
    _fatal = None if callback is None else convert.callback(callback)
    lib.evpy_fatal_install(callback is not None)


# Not `from_c`: it is about no object, and nobody is left to raise to.
@ffi.def_extern()
def evpy_fatal(code: int) -> None:
    try:
        flush()
    finally:
        if _fatal is not None:
            _fatal(code)


lib.evpy_log_install()
errors.before_failing.append(flush)
atexit.register(flush)
os.register_at_fork(after_in_child=_after_fork)
