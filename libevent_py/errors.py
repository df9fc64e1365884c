"""What can go wrong, and the one door through which Python enters C.

A callback runs with C below it on the stack, and an exception cannot unwind C. So what a callback
raises is kept for its thread; the loop that called it is told to stop; and the exception leaves
from the Python call that entered C: `call` below for everything that may call back,
`EventBase.loop` for the loop itself. Only the innermost of these entries raises, which is why each
one notes who it is.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from libevent_py._ffi import ffi, lib

if sys.version_info < (3, 11):
    BaseExceptionGroup: Any = None

try:
    from ssl import SSLError
except ImportError:  # a Python without it
    SSLError = OSError  # type: ignore[assignment,misc]


class LibeventError(Exception):
    """Say which C function failed, where errno has nothing to add."""


class ClosedError(LibeventError, ValueError):
    """Refuse to use an object that is closed, or whose base or owner is."""


class ThreadError(LibeventError, RuntimeError):
    """Refuse a call from another thread than the one that runs the loop."""


class ForkError(LibeventError, RuntimeError):
    """Refuse to touch in a forked child what still belongs to the parent, before `reinit`."""


class DnsError(LibeventError, socket.gaierror):
    """Say why a name could not be resolved: ``errno`` is one of the ``EVUTIL_EAI_`` codes."""


class TlsError(LibeventError, SSLError):
    """Say in OpenSSL's own words why TLS failed.

    As in `ssl.SSLError`, ``library`` and ``reason`` are words such as SSL and
    CERTIFICATE_VERIFY_FAILED, and ``strerror`` is the text.
    """

    #: OpenSSL's number for the error, or 0.
    code: int = 0
    library: str = ""
    reason: str = ""
    #: Why the peer's certificate was refused: OpenSSL's ``X509_V_ERR_`` code, or 0.
    verify_code: int = 0
    #: The same as text, such as "hostname mismatch", or "".
    verify_message: str = ""


class Entered(threading.local):
    """Where this thread last entered C, and what callbacks have raised there since."""

    def __init__(self) -> None:
        self.loop: Any = None  # the event_base whose loop is the innermost entry, else None
        self.raised: list[BaseException] = []


entered = Entered()


def keep(error: BaseException) -> None:
    """Keep what a callback raised, until the Python call that entered C raises it."""
    entered.raised.append(error)
    if entered.loop is not None:
        lib.event_base_loopbreak(entered.loop)


def kept(_type: Any, error: BaseException, _traceback: Any) -> None:
    """Keep what a trampoline itself could not catch: cffi's ``onerror``."""
    keep(error)


def waiting() -> int:
    """Return how many exceptions wait in this thread for those who entered C further out."""
    return len(entered.raised)


def settle(before: int) -> None:
    """Raise what callbacks have raised in this thread since *before* were `waiting`, if anything.

    What is no `Exception`, as KeyboardInterrupt, comes out as itself, with the rest as its context.
    """
    raised = entered.raised[before:]
    if not raised:
        return
    del entered.raised[before:]
    if len(raised) == 1:
        raise raised.pop()
    urgent = next((error for error in raised if not isinstance(error, Exception)), None)
    if urgent is None and BaseExceptionGroup is not None:
        raise BaseExceptionGroup("several callbacks raised", raised)
    raised.sort(key=lambda error: error is urgent)
    for earlier, later in itertools.pairwise(raised):
        _chain(later, earlier)
    raise raised.pop()


def _chain(error: BaseException, context: BaseException) -> None:
    """Hang *context* under *error*'s oldest context, unless the two hang together already."""
    seen: set[int] = set()
    link: BaseException | None = context
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link = link.__context__
    while id(error) not in seen:
        seen.add(id(error))
        if error.__context__ is None:
            error.__context__ = context
            return
        error = error.__context__


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Enter C by *function*: return its result, or raise what a callback raised or what failed.

    A result of -1 is a failure: an `OSError` where C says why by errno, else a `LibeventError`.
    """
    before = waiting()
    result = enter(None, function, *arguments)
    settle(before)
    if result == -1:
        raise failed(function)
    return result


def new(function: Callable[..., Any], *arguments: Any) -> Any:
    """Enter C by *function* for a new object: return its pointer, or raise why it is NULL."""
    before = waiting()
    result = enter(None, function, *arguments)
    settle(before)
    if result == ffi.NULL:
        raise failed(function)
    return result


def enter(loop: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Enter C by *function*: as the loop of the event_base *loop*, or with None as any call.

    What callbacks raise meanwhile waits for `settle`.
    """
    outer, before = entered.loop, waiting()
    entered.loop = loop
    try:
        ffi.errno = 0
        return function(*arguments)
    except BaseException as error:  # a signal handler's: it goes its own way, and nothing stays
        for earlier in entered.raised[before:]:
            _chain(error, earlier)
        del entered.raised[before:]
        raise
    finally:
        entered.loop = outer


#: Run before a failure is raised: `log` hands on here what libevent has logged about it.
before_failing: list[Callable[[], None]] = []


def failed(function: Callable[..., Any], argument: str = "") -> Exception:
    """Return the exception that tells of *function*'s failure, by errno where there is one."""
    code = ffi.errno
    name = function.__name__
    where = f"{name}: {argument}" if argument else name
    failure: Exception = LibeventError(f"{where} failed")
    if code == errno.ENOMEM:
        failure = MemoryError(f"{where}: {os.strerror(code)}")
    elif code:
        failure = OSError(code, f"{where}: {os.strerror(code)}")
    try:
        for prepare in before_failing:
            prepare()
    except BaseException as error:
        _chain(error, failure)
        raise
    return failure
