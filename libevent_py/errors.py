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
from typing import TYPE_CHECKING

from libevent_py._core.names import name_of as name_of
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Result, Unpack

if sys.version_info < (3, 11):
    BaseExceptionGroup = None

try:
    from ssl import SSLError
except ImportError:  # a Python without it
    SSLError = OSError  # type: ignore[assignment,misc]


class LibeventError(Exception):
    """Say which C function failed, where errno has nothing to add."""


class ClosedError(LibeventError, ValueError):
    """Refuse to use an object that is closed, or whose base or owner is."""


class ThreadError(LibeventError, RuntimeError):
    """Refuse a call from another thread than the one that the event base belongs to."""


class ForkError(LibeventError, RuntimeError):
    """Refuse to touch in a forked child what still belongs to the parent, before `reinit`."""


class DnsError(LibeventError, socket.gaierror):
    """Say why a name could not be resolved: ``errno`` is one of the ``EVUTIL_EAI_`` codes."""


class HttpError(LibeventError):
    """Say why an HTTP request could not be sent, or why it failed.

    ``code`` is an `HttpRequestError`, or None where libevent gives no reason, as when it can't
    connect.
    """

    code: int | None = None


class TagError(LibeventError, ValueError):
    """Say why what a buffer begins with is not the tagged item that was asked for."""


class TlsError(LibeventError, SSLError):
    """Say in OpenSSL's own words why TLS failed.

    As in `ssl.SSLError`, ``library`` and ``reason`` are words such as SSL and
    CERTIFICATE_VERIFY_FAILED, and ``strerror`` is the text. ``code`` is OpenSSL's number for the
    error, or 0; ``verify_code`` is why the peer's certificate was refused, OpenSSL's
    ``X509_V_ERR_`` code, or 0, and ``verify_message`` the same as text, such as "hostname
    mismatch", or "".
    """

    code: int = 0
    library: str = ""
    reason: str = ""
    verify_code: int = 0
    verify_message: str = ""


class Entry:
    """Where a thread last entered C, and what callbacks have raised there since."""

    __slots__ = ("loop", "raised")

    def __init__(self) -> None:
        #: The event_base whose loop is the innermost entry, else None.
        self.loop: CData | None = None
        self.raised: list[BaseException] = []


class Entered(threading.local):
    """Each thread's `Entry`: an object, because asking a thread for an attribute takes long."""

    def __init__(self) -> None:
        self.here = Entry()


entered = Entered()


def keep(error: BaseException) -> None:
    """Keep what a callback raised, until the Python call that entered C raises it."""
    here = entered.here
    here.raised.append(error)
    if here.loop is not None:
        lib.event_base_loopbreak(here.loop)


def kept(_type: object, error: BaseException, _traceback: object) -> None:
    """Keep what a trampoline itself could not catch: cffi's ``onerror``."""
    keep(error)


def waiting() -> int:
    """Return how many exceptions wait in this thread for those who entered C further out."""
    return len(entered.here.raised)


def settle(before: int) -> None:
    """Raise what callbacks have raised in this thread since *before* were `waiting`, if anything.

    What is no `Exception`, as KeyboardInterrupt, comes out as itself, with the rest as its context.
    """
    kept = entered.here.raised
    raised = kept[before:]
    if not raised:
        return
    del kept[before:]
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


def call(function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]) -> Result:
    """Enter C by *function*: return its result, or raise what a callback raised or what failed.

    A result of -1 is a failure: an `OSError` where C says why by errno, else a `LibeventError`.
    """
    # What `enter` and `settle` do, in one frame: most calls come this way.
    here = entered.here
    outer, before = here.loop, len(here.raised)
    here.loop = None
    try:
        ffi.errno = 0
        result = function(*arguments)
    except BaseException as error:
        _take_along(here, before, error)
        raise
    finally:
        here.loop = outer
    if len(here.raised) > before:
        settle(before)
    if result == -1:
        raise failed(function)
    return result


def new(function: Callable[[Unpack[Arguments]], CData], *arguments: Unpack[Arguments]) -> CData:
    """Enter C by *function* for a new object: return its pointer, or raise why it is NULL."""
    result = call(function, *arguments)
    if not result:
        raise failed(function)
    return result


def put(
    store: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> None:
    """Enter C by *function* for a new object, and hand its pointer to *store*; or raise why not.

    *store* must be C's own, such as a bound method of a list. Then no signal handler runs between
    the two, which might raise and lose the object.
    """
    if not call(handed, store, function, arguments):
        raise failed(function)


def handed(
    store: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    arguments: tuple[Unpack[Arguments]],
) -> list[object]:
    """Do what `put` does, and return what is empty where C has returned NULL."""
    return list(map(store, filter(None, itertools.starmap(function, (arguments,)))))


def guarded(
    function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
) -> Result:
    """Enter C by *function*, as `call` does, with memory put aside for where there is none.

    For what libevent itself does by halves when an allocation fails. Raises `MemoryError` where not
    even that was enough.
    """
    before = lib.evpy_guard()
    if before < 0:
        raise failed(function)
    try:
        result = call(function, *arguments)
        lacked = lib.evpy_lacked(before)
    finally:
        lib.evpy_unguard(before)
    if lacked:
        raise failed(function)
    return result


def enter(
    loop: CData | None,
    function: Callable[[Unpack[Arguments]], Result],
    *arguments: Unpack[Arguments],
) -> Result:
    """Enter C by *function*: as the loop of the event_base *loop*, or with None as any call.

    What callbacks raise meanwhile waits for `settle`.
    """
    here = entered.here
    outer, before = here.loop, len(here.raised)
    here.loop = loop
    try:
        ffi.errno = 0
        return function(*arguments)
    except BaseException as error:
        _take_along(here, before, error)
        raise
    finally:
        here.loop = outer


def _take_along(here: Entry, before: int, error: BaseException) -> None:
    """Have *error*, a signal handler's that goes its own way, take along what has been kept."""
    for earlier in here.raised[before:]:
        _chain(error, earlier)
    del here.raised[before:]


def headroom(frames: int = 12) -> None:
    """Raise `RecursionError` here unless there is room for what callbacks need.

    There it could not come out: what handles it needs some room, too.
    """
    if frames:
        headroom(frames - 1)


#: Run before a failure is raised: `log` hands on here what libevent has logged about it.
before_failing: list[Callable[[], None]] = []


def failed(function: Callable[..., object], argument: str = "") -> Exception:
    """Return the exception that tells of *function*'s failure, by errno where there is one."""
    code = ffi.errno
    name = name_of(function)
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
