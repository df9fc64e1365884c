"""The lookups of a `DnsBase`, and how their callbacks are called.

C frees its handle of a lookup when it calls back, which it does exactly once (L4). So a lookup is
live from just before it begins until its callback has been called, and keeps its `DnsBase` alive
that long. If libevent loses an answer for lack of memory, closing the `DnsBase` calls the callback.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from libevent_py import errors, util
from libevent_py._core import addrinfo, convert
from libevent_py._core.described import described, if_made
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import tells
from libevent_py._ffi import ffi, lib
from libevent_py.enums import AddrInfoError, DnsResult, DnsType
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Result
    from libevent_py.dns.base import DnsBase

#: What a lookup calls, as ``callback(lookup, result, ttl, found)``:
#: ``evdns_callback_type``.
ResolveCallback: TypeAlias = Callable[["DnsLookup", DnsResult, int, list[str]], object]

#: What `DnsBase.getaddrinfo` calls, as ``callback(lookup, error, found)``:
#: ``evdns_getaddrinfo_cb``.
AddrInfoCallback: TypeAlias = Callable[
    ["AddrInfoLookup", errors.DnsError | None, list[addrinfo.AddrInfo]], object
]

RESULTS = {int(result): result for result in DnsResult}

# Looked up once: a member of an enumeration costs as much as a short call.
NONE, CANCEL, SHUTDOWN = int(DnsResult.NONE), int(DnsResult.CANCEL), int(DnsResult.SHUTDOWN)
A, AAAA, PTR = DnsType.A, DnsType.AAAA, DnsType.PTR
AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)
NULL = ffi.NULL
new_handle_place: Final = functools.partial(ffi.new, ffi.typeof("void **"))


@described(
    callback="The function that is called with the answer.",
)
class Lookup:
    """A lookup that can be cancelled: the base class of all kinds."""

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_closing",
        "_dns_base",
        "_handle",
        "_key",
        "_told",
        "callback",
    )

    #: Calls C's function that cancels such a lookup.
    _cancel_in_c: Callable[[CData, CData], object]

    def __init__(self, dns_base: DnsBase, callback: Callable[..., object]) -> None:
        self._dns_base: DnsBase = dns_base
        self.callback: Callable[..., object] = callback
        self._key = next_key()
        self._handle = new_handle_place()
        self._told = self._cancelled = self._closing = False

    def _begin(self, what: object, function: Callable[..., object], *arguments: object) -> None:
        """Look *what* up by C's *function*, which may call back at once (M1)."""
        dns, key = self._dns_base, self._key
        base, pointer = dns.base, dns.pointer
        dns._lookups[key] = self
        base._may_call(key, self)
        try:
            if self._call(function, pointer, *arguments, key, self._handle):
                raise errors.failed(self._named(function), repr(what))
            if dns.closed:  # other code has closed it, before there was a handle to cancel
                self._withdraw(pointer)
        except BaseException:
            if self._handle[0] == ffi.NULL and not self._told:
                self._forget()
            raise

    @property
    def dns_base(self) -> DnsBase:
        """The `DnsBase` that does the lookup."""
        return self._dns_base

    @property
    def base(self) -> EventBase:
        """The event base whose loop does the lookup."""
        base: EventBase = self._dns_base.base
        return base

    def _named(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return the function that errors name for *function*."""
        return function

    def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Enter C, which may call back."""
        return self._dns_base.base._call(function, *arguments)

    def _forget(self) -> None:
        dns, key = self._dns_base, self._key
        self._told = True
        self._handle[0] = NULL
        dns._lookups.pop(key, None)
        dns.base._may_not_call(key)

    @property
    def pending(self) -> bool:
        """Whether the callback has not been called yet."""
        return not self._told

    def _told_state(self) -> str:
        """Return the lookup's state for its repr, with the address of C's handle if it has one."""
        if not self.pending:
            return "ended"
        handle = self._handle[0]
        return f"pending at {int(ffi.cast('uintptr_t', handle)):#x}" if handle else "pending"

    def cancel(self) -> None:
        """Cancel the lookup; the callback still runs, in the loop, and learns of it.

        It gets the answer instead if that has already arrived. Does nothing when the callback has
        been called, or the `DnsBase` is closed.
        """
        dns = self._dns_base
        if self._told or self._closing:
            return
        dns.base._check_thread()
        self._cancelled = True
        self._withdraw(dns.pointer)

    def _withdraw(self, pointer: CData) -> None:
        """Cancel the lookup in C's evdns_base *pointer*, even if that was done before."""
        if self._handle[0] != ffi.NULL:
            self._cancel_in_c(pointer, self._handle[0])

    def close(self) -> None:
        """Cancel the lookup, as `cancel` does."""
        self.cancel()

    def _close_with_base(self) -> None:
        """Note that a cancelled callback must get SHUTDOWN or FAIL: the `DnsBase` is closed."""
        self._closing = True

    def _drop(self) -> None:
        """Don't call the callback, unless `_close_with_base` was called."""
        if not self._closing:
            self._forget()

    def _lose(self) -> None:
        """Call the callback, whose answer libevent has lost."""
        raise NotImplementedError

    @tells
    def _tell(self, *answer: object) -> None:
        """Call the callback, unless it has been called: C tries once more after an interrupt."""
        base = self._dns_base.base
        # If the garbage collector has found the base, the callback may use finalized objects.
        if not self._told and not base._collected:
            try:
                self._told = True  # no call from here to the callback's own
                self.callback(self, *answer)
            except BaseException as error:
                base._report(error, self)
        self._told = True
        base._may_not_call(self._key)

    def _ends(self) -> None:
        """Note in the `DnsBase` that the lookup has ended."""
        self._dns_base._lookups.pop(self._key, None)


@described(
    name="The name or address that is looked up.",
    type="The type of the records: `DnsType.A`, AAAA or PTR.",
)
class DnsLookup(Lookup):
    """A lookup of a name's addresses, or of an address's name."""

    __slots__ = ("name", "type")

    def __init__(
        self, dns_base: DnsBase, name: str | bytes, type: DnsType, callback: ResolveCallback
    ) -> None:
        super().__init__(dns_base, convert.callback(callback))
        self.name: str | bytes = name
        self.type: DnsType = type

    def _named(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return the function that errors name; ours in C handle both kinds of addresses."""
        if self.type is AAAA:
            return lib.evdns_base_resolve_ipv6
        if self.type is PTR and ":" in str(self.name):
            return lib.evdns_base_resolve_reverse_ipv6
        return function

    def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call C's *function*, which never calls back at once (L5)."""
        return function(*arguments)

    def cancel(self) -> None:
        """Cancel the lookup; the callback still runs, in the loop, with CANCEL.

        It gets the answer instead if that has already arrived. Does nothing when the callback has
        been called, or the `DnsBase` is closed. Wraps ``evdns_cancel_request``.
        """
        super().cancel()

    @staticmethod
    def _cancel_in_c(pointer: CData, handle: CData) -> None:
        errors.guarded_end(lib.evdns_cancel_request, pointer, handle)

    def _lose(self) -> None:
        """Call the callback, whose answer libevent has lost."""
        self._answer(SHUTDOWN, 0, 0, ffi.NULL)

    def _answer(self, result: int, count: int, ttl: int, addresses: CData) -> None:
        """Call the callback with C's answer."""
        self._handle[0] = NULL  # C frees the handle now, even after an interrupt
        self._ends()
        if result == CANCEL and self._closing and not self._cancelled:
            result = SHUTDOWN
        found = self._read(count, addresses) if result == NONE else []
        self._tell(RESULTS.get(result, result), max(ttl, 0), found)

    def _read(self, count: int, addresses: CData) -> list[str]:
        kind = self.type
        if kind is PTR:
            names = ffi.cast("char **", addresses)
            return [convert.text(names[number]) for number in range(count)]
        family, size = (AF_INET, 4) if kind is A else (AF_INET6, 16)
        packed = ffi.buffer(addresses, count * size)[:]
        if count == 1:
            return [socket.inet_ntop(family, packed)]
        starts = range(0, len(packed), size)
        return [socket.inet_ntop(family, packed[start : start + size]) for start in starts]

    @if_made
    def __repr__(self) -> str:
        return f"<DnsLookup of {self.name!r}, {self.type.name}, {self._told_state()}>"


@described(
    host="The name or address that is looked up, or None.",
    service="The port or the name of the service, or None.",
)
class AddrInfoLookup(Lookup):
    """A lookup of a host and a service by `DnsBase.getaddrinfo`."""

    __slots__ = ("host", "service")

    def __init__(
        self,
        dns_base: DnsBase,
        host: str | bytes | None,
        service: int | str | bytes | None,
        callback: AddrInfoCallback,
    ) -> None:
        super().__init__(dns_base, convert.callback(callback))
        self.host: str | bytes | None = host
        self.service: int | str | bytes | None = service

    def cancel(self) -> None:
        """Cancel the lookup; the callback still runs, in the loop, with the error CANCEL.

        Does nothing when the callback has been called, or the `DnsBase` is closed.
        Wraps ``evdns_getaddrinfo_cancel``.
        """
        super().cancel()

    @staticmethod
    def _cancel_in_c(pointer: CData, handle: CData) -> None:
        errors.guarded_end(lib.evdns_getaddrinfo_cancel, handle)

    def _lose(self) -> None:
        """Call the callback, whose answer libevent has lost."""
        self._answer(AddrInfoError.FAIL, ffi.NULL)

    def _answer(self, code: int, found: CData) -> None:
        """Call the callback with C's answer *found*, which still belongs to C."""
        self._handle[0] = NULL  # C frees the handle now, even after an interrupt
        self._ends()
        if code == AddrInfoError.CANCEL and self._closing and not self._cancelled:
            code = AddrInfoError.FAIL
        failure = None
        if code:
            failure = errors.DnsError(int(code), f"{self.host!r}: {util.gai_strerror(code)}")
        self._tell(failure, addrinfo.unpacked(found))

    @if_made
    def __repr__(self) -> str:
        return f"<AddrInfoLookup of {self.host!r}, {self.service!r}, {self._told_state()}>"


@from_c(late=1, raised=0)
def evpy_dns_resolved(
    lookup: DnsLookup, result: int, count: int, ttl: int, addresses: CData
) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    lookup._answer(result, count, ttl, addresses)
    return 1


@from_c(late=1, raised=0)
def evpy_dns_addrinfo(lookup: AddrInfoLookup, result: int, found: CData) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    lookup._answer(result, found)
    return 1
