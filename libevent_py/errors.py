"""The exceptions, and the functions through which all Python code enters C.

A callback runs with C below it on the stack, and an exception can't unwind C. So what a callback
raises is kept for its thread, and the loop that called it is made to stop. The exception then comes
out of the Python call that entered C: `call` below for everything that may call back,
`EventBase.loop` for the loop itself. Only the innermost of these entries raises it, so each entry
notes that it is the innermost one.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from libevent_py._core.called import explained as explained
from libevent_py._core.names import name_of as name_of
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Result, Unpack

if sys.version_info < (3, 11):
    BaseExceptionGroup = None

if TYPE_CHECKING:
    from ssl import SSLError
else:
    try:  # to import ssl would take as long as a tenth of the rest
        from _ssl import SSLError
    except ImportError:
        try:
            from ssl import SSLError
        except ImportError:  # a Python without it
            SSLError = OSError


class LibeventError(Exception):
    """Say which C function failed, if there is no errno to say why."""


class ClosedError(LibeventError, ValueError):
    """Refuse to use an object that is closed, or whose base or owner is."""


class ThreadError(LibeventError, RuntimeError):
    """Refuse a call from a thread that doesn't own the event base."""


class ForkError(LibeventError, RuntimeError):
    """Refuse to use in a forked child, before ``reinit()``, what still belongs to the parent."""


class DnsError(LibeventError, socket.gaierror):
    """Say why a name could not be resolved: ``errno`` is one of the ``EVUTIL_EAI_`` codes."""


class HttpError(LibeventError):
    """Say why an HTTP request could not be sent, or why it failed.

    ``code`` is an `HttpRequestError`, or None if libevent gives no reason, for instance when it
    can't connect.
    """

    code: int | None = None


class TagError(LibeventError, ValueError):
    """Say why a buffer doesn't begin with the tagged item that was asked for."""


class TlsError(LibeventError, SSLError):
    """Say in OpenSSL's own words why TLS failed.

    As in `ssl.SSLError`, ``library`` and ``reason`` are words such as SSL and
    CERTIFICATE_VERIFY_FAILED, and ``strerror`` is the text. ``code`` is OpenSSL's number for the
    error, or 0. If the peer's certificate was refused, ``verify_code`` is OpenSSL's ``X509_V_ERR_``
    code for the reason, and ``verify_message`` its text, such as "hostname mismatch"; otherwise
    they are 0 and "".
    """

    code: int = 0
    library: str = ""
    reason: str = ""
    verify_code: int = 0
    verify_message: str = ""


class Entry:
    """Where a thread last entered C, and what callbacks have raised there since."""

    __slots__ = ("loop", "raised", "settled")

    def __init__(self) -> None:
        #: The event_base whose loop is the innermost entry, else None.
        self.loop: CData | None = None
        self.raised: list[BaseException] = []
        #: The `id` of what was last raised for callbacks, which may be on its way out.
        self.settled: int = 0


class Entered(threading.local):
    """Each thread's `Entry`: one object, because looking up a thread's attribute is slow."""

    def __init__(self) -> None:
        self.here: Entry = Entry()


entered: Final = Entered()


def keep(error: BaseException) -> None:
    """Keep what a callback raised, until the Python call that entered C raises it."""
    here = entered.here
    here.raised.append(error)
    if here.loop is not None:
        lib.event_base_loopbreak(here.loop)


def kept(_type: object, error: BaseException, _traceback: object) -> None:
    """Keep an exception that a trampoline itself could not catch: cffi's ``onerror``."""
    keep(error)


def waiting() -> int:
    """Return how many exceptions this thread keeps for outer entries into C."""
    return len(entered.here.raised)


def settle(before: int) -> None:
    """Raise what callbacks raised in this thread after the first *before* exceptions, if anything.

    Several exceptions come out as a group; but one that is no `Exception`, such as
    KeyboardInterrupt, comes out as itself, with the others as its context.
    """
    here = entered.here
    raised = here.raised[before:]
    if not raised:
        return
    try:
        one = _as_one(raised)
        context, here.settled = one.__context__, id(one)
    except BaseException as interrupt:
        _joins(here, before, interrupt)
        raise
    del here.raised[before:]  # no call from here on: nobody interrupts, and nothing is lost
    try:
        raise one
    finally:
        handled = one.__context__
        if handled is not context:  # Python has put there what is being handled here
            one.__context__ = context
            if handled is not None:
                _chain(one, handled)
        del one, raised, context, handled  # they would refer to this frame


def _as_one(raised: list[BaseException]) -> BaseException:
    """Return the exception that stands for all of *raised*."""
    if len(raised) == 1:
        return raised[0]
    urgent = next((error for error in raised if not isinstance(error, Exception)), None)
    if urgent is None and BaseExceptionGroup is not None:
        return BaseExceptionGroup("several callbacks raised", raised)
    raised.sort(key=lambda error: error is urgent)
    for earlier, later in itertools.pairwise(raised):
        _chain(later, earlier)
    return raised[-1]


def _chain(error: BaseException, context: BaseException) -> None:
    """Make *context* the context of *error*'s oldest context, unless it is there already.

    If *context* itself was raised amid *error*, it forgets that: it would be lost otherwise.
    """
    chain = _contexts(error)
    oldest = next(reversed(chain.values()))
    if id(context) in chain or oldest.__context__ is not None:
        return
    for link in _contexts(context).values():
        if id(link.__context__) in chain:
            link.__context__ = None
            break  # what follows is the chain itself
    oldest.__context__ = context


def _contexts(error: BaseException) -> dict[int, BaseException]:
    """Return *error*, what it was raised amid, and so on, by their `id`: each exception once."""
    found: dict[int, BaseException] = {}
    link: BaseException | None = error
    while link is not None and id(link) not in found:
        found[id(link)] = link
        link = link.__context__
    return found


def call(function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]) -> Result:
    """Enter C by *function*: return its result, or raise what a callback raised or what failed.

    A result of -1 is a failure: an `OSError` if errno says why, else a `LibeventError`.
    """
    # Does what `enter` and `settle` do, in one frame: most calls come this way.
    here = entered.here
    outer, before = here.loop, len(here.raised)
    here.loop = None
    try:
        ffi.errno = 0
        result = function(*arguments)
        if here.raised[before:]:  # here, so that an interrupt in between takes them along
            settle(before)
    except BaseException as error:
        if not _joins(here, before, error):
            raise
    finally:
        here.loop = outer
    if here.raised[before:]:
        settle(before)
    if result == -1:
        raise failed(function)
    return result


def new(function: Callable[[Unpack[Arguments]], CData], *arguments: Unpack[Arguments]) -> CData:
    """Make a new object in C by *function*: return its pointer, or raise why it is NULL."""
    result = call(function, *arguments)
    if not result:
        raise failed(function)
    return result


def put(
    store: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> None:
    """Make a new object in C by *function*, and pass its pointer to *store*; or raise why not.

    *store* must be implemented in C, such as a bound method of a list. Then no signal handler,
    which could raise and so lose the object, runs between the two.
    """
    if not call(handed, store, function, arguments):
        raise failed(function)


def handed(
    store: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    arguments: tuple[Unpack[Arguments]],
) -> list[object]:
    """Do what `put` does; return something empty if C has returned NULL."""
    return list(map(store, filter(None, itertools.starmap(function, (arguments,)))))


def surely(function: Callable[[Unpack[Arguments]], object], *arguments: Unpack[Arguments]) -> None:
    """Enter C by *function*, as `call` does, even if an interrupt comes before that is done.

    For what frees something that nobody else knows. One that comes where this begins is the
    caller's to survive: see `came_at_entry`.
    """
    done: list[object] = []
    try:
        call(noted, done.append, function, *arguments)
    except BaseException:
        if not done:
            call(noted, done.append, function, *arguments)
        raise


def noted(
    store: Callable[[Result], object],
    function: Callable[[Unpack[Arguments]], Result],
    *arguments: Unpack[Arguments],
) -> object:
    """Call *function*, and *store* with its result: no signal handler runs between the two.

    Both must be implemented in C.
    """
    return list(map(store, itertools.starmap(function, (arguments,))))


def guarded(
    function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
) -> Result:
    """Enter C by *function*, as `call` does, and if memory runs out, use what was put aside.

    For calls that libevent leaves half done when an allocation fails. Raises `MemoryError` if even
    that memory was not enough.
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


def guarded_end(
    function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
) -> Result:
    """Enter C by *function* to end something, as `guarded` does, if need be with less memory."""
    before = lib.evpy_guard_closing()
    if before < 0:
        raise failed(function)
    try:
        return call(function, *arguments)
    finally:
        lib.evpy_unguard(before)


def enter(
    loop: CData | None,
    function: Callable[[Unpack[Arguments]], Result],
    *arguments: Unpack[Arguments],
) -> Result:
    """Enter C by *function*: as the loop of the event_base *loop*, or with None as any call.

    What callbacks raise meanwhile is kept for `settle`.
    """
    here = entered.here
    outer, before = here.loop, len(here.raised)
    here.loop = loop
    try:
        ffi.errno = 0
        return function(*arguments)
    except BaseException as error:
        if not _joins(here, before, error):
            raise
    finally:
        here.loop = outer
    settle(before)
    raise AssertionError("settle() has raised nothing")


def run(function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]) -> Result:
    """Call *function*, which enters C as `enter` does; return its result, whatever that is.

    Raise what callbacks raised, as `settle` does, even if an interrupt comes in between.
    """
    here = entered.here
    before = len(here.raised)
    try:
        result = enter(None, function, *arguments)
        settle(before)
        return result
    except BaseException as error:
        if not _joins(here, before, error):
            raise
    settle(before)
    raise AssertionError("settle() has raised nothing")


def _joins(here: Entry, before: int, error: BaseException) -> bool:
    """Keep *error* with the kept exceptions if callbacks have raised it, too.

    Otherwise make those the context of *error*, which a signal handler has raised, or the package.
    """
    if len(here.raised) > before and here.settled == id(error):
        here.raised.append(error)
        return True
    for earlier in here.raised[before:]:
        _chain(error, earlier)
    del here.raised[before:]
    return False


def take_along(before: int, error: BaseException) -> None:
    """Raise with *error*, which is being raised, what callbacks raised after the first *before*."""
    if _joins(entered.here, before, error):
        settle(before)


def headroom(frames: int = 12) -> None:
    """Raise `RecursionError` here unless there are enough frames left for callbacks.

    In a callback it could not come out, because the code that handles it needs frames, too.
    """
    if frames:
        headroom(frames - 1)


#: Called before a failure is raised: `log` delivers what libevent has logged about it.
before_failing: list[Callable[[], None]] = []


def failed(function: Callable[..., object], argument: str = "") -> Exception:
    """Return the exception for *function*'s failure: by errno, if it is set."""
    code = ffi.errno
    lib.evpy_loop_unwatched()  # it is told by this
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
