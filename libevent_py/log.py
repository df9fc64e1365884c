"""libevent's log: into Python's `logging` under the name ``libevent``, or to a callback.

libevent logs while it holds its locks, so its messages are queued in C (``_c/log.c``) until it is
safe to run Python. A running loop delivers them in its next turn, a failing call before it raises,
and `flush` at any time. An error, which libevent logs before it ends the process, also goes to
stderr.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._ffi import ffi, lib
from libevent_py.enums import DebugLogging, LogSeverity

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What gets libevent's messages, as ``callback(severity, message)``: ``event_log_cb``.
LogCallback: TypeAlias = Callable[[LogSeverity, str], object]

#: What is called before libevent ends the process, as ``callback(err)``: ``event_fatal_cb``.
FatalCallback: TypeAlias = Callable[[int], object]

logger: Final = logging.getLogger("libevent")
logger.addHandler(logging.NullHandler())  # no output unless the user adds a handler

LEVELS = {
    LogSeverity.DEBUG: logging.DEBUG,
    LogSeverity.MSG: logging.INFO,
    LogSeverity.WARN: logging.WARNING,
    LogSeverity.ERR: logging.ERROR,
}


def to_logging(severity: LogSeverity, message: str) -> None:
    """Pass a message on to the logger ``libevent``."""
    logger.log(LEVELS.get(severity, logging.ERROR), "%s", message)


_callback: LogCallback = to_logging
_taken: deque[tuple[LogSeverity, str]] = deque()  # taken from C, but not delivered yet
_fatal: FatalCallback | None = None


def set_log_callback(callback: LogCallback | None) -> None:
    """Deliver libevent's messages to ``callback(severity, message)``, or with None to `logging`.

    Unlike in C, the callback runs later, without libevent's locks, and may call anything.
    Wraps ``event_set_log_callback``.
    """
    global _callback
    flush()
    _callback = to_logging if callback is None else convert.callback(callback)


def flush() -> None:
    """Deliver the messages that libevent has logged so far, oldest first.

    If the callback raises, this function does too; the remaining messages stay queued.
    """
    _take()
    while _taken:
        message: list[Any] = []
        try:
            errors.noted(message.append, _taken.popleft)
        except IndexError:  # another thread has taken the last message
            return
        except BaseException:  # an interrupt
            _taken.extendleft(message)
            raise
        _callback(*message[0])


def _take() -> None:
    global _taken
    messages: list[CData] = []
    try:
        errors.handed(messages.append, lib.evpy_log_take, ())
        while messages:
            message = messages[0]
            severity = LogSeverity(lib.evpy_message_severity(message))
            taken = ((severity, convert.text(lib.evpy_message_text(message))),)
            following, free = lib.evpy_message_next(message), lib.evpy_message_free
            messages[:] = (following,) if following else ()
            _taken += taken  # no call from here to the next line: it is taken once
            free(message)
    except BaseException:  # an interrupt
        if messages:
            lib.evpy_log_put_back(messages[0])
        raise


def _after_fork() -> None:
    _take()
    _taken.clear()  # the parent process delivers them


def enable_debug_logging(which: int = DebugLogging.ALL) -> None:
    """Make libevent log what it does, at level DEBUG; with `DebugLogging.NONE`, stop that.

    A running loop delivers these messages in batches, and the rest when it ends.
    Wraps ``event_enable_debug_logging``.
    """
    lib.event_enable_debug_logging(convert.integer(which, "which", 0, DebugLogging.ALL))


def set_fatal_callback(callback: FatalCallback | None) -> None:
    """Call ``callback(code)`` when libevent has a fatal error; with None, call nothing.

    When the callback returns, the process ends by ``exit(code)``; without a callback, a failed
    assertion ends it by ``abort()``. So the callback can only report the error. What it raises is
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
