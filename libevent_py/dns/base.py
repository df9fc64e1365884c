"""``struct evdns_base``: name lookups in the loop.

*Closing.* libevent queues the callbacks for the answers of lookups, and some of these callbacks use
the evdns_base (L3). So a `DnsBase` that is closed cancels its own lookups at once, makes lookups by
bufferevents fail, and is freed when no callback is queued any more.

*Name servers.* evdns probes a failed name server from time to time. The callback for the answer is
queued too, and would find the server freed if it had been cleared meanwhile. So clearing waits for
a quiet moment, as closing does, and so does any change of the name servers after it. When a probe
is cancelled, evdns sends the next waiting question, perhaps to a server that has just been freed;
so no question may wait while servers are cleared.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias

from libevent_py import errors, util
from libevent_py._core import addrinfo, convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import HostAndPort, Seconds
from libevent_py._core.dispatch import next_key
from libevent_py._core.frames import came_at_entry
from libevent_py._core.handle import Making
from libevent_py._ffi import ffi, lib
from libevent_py.dns.lookup import (
    AddrInfoCallback,
    AddrInfoLookup,
    DnsLookup,
    Lookup,
    ResolveCallback,
)
from libevent_py.enums import AddrInfoFlag, DnsBaseFlag, DnsOption, DnsQueryFlag, DnsType
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData

RESOLV_CONF = "/etc/resolv.conf"

#: The most bytes in a name, and in each of its parts, that fit into a DNS message.
LONGEST_NAME = 255
LONGEST_LABEL = 63
LABELS = re.compile(rb"(?:[^.]{1,%d}\.)*[^.]{1,%d}\.?" % (LONGEST_LABEL, LONGEST_LABEL))
NAME = re.compile(rb"[^.]{1,63}(?:\.[^.]{1,63})*\.?")

# Looked up once: an attribute of lib or of an enumeration costs as much as a short call.
NO_FLAG, NO_SEARCH = DnsQueryFlag(0), DnsQueryFlag.NO_SEARCH
resolve: Final = lib.evpy_dns_resolve


def err_to_string(err: int) -> str:
    """Return the text for *err*, a `DnsResult`. Wraps ``evdns_err_to_string``."""
    return convert.text(lib.evdns_err_to_string(convert.c_int(err, "err")))


class DnsBase(Child):
    """A resolver with its name servers; usable in ``with``, which closes it.

    Its name servers' sockets keep the loop from ending, unless it is made with
    DISABLE_WHEN_INACTIVE. If you drop it while no lookup is pending, the loop closes it. A forked
    child shares the sockets, and with them the answers: make a new `DnsBase` there.
    """

    __slots__ = ("_free", "_late", "_lookups", "_max_inflight")

    _free: Callable[[CData], object]

    _rank = Rank.DNS

    def __init__(self, base: EventBase, flags: int = DnsBaseFlag.INITIALIZE_NAMESERVERS) -> None:
        """Make a resolver; INITIALIZE_NAMESERVERS reads ``/etc/resolv.conf`` and ``/etc/hosts``.

        With ``DnsBaseFlag(0)`` it has no name servers yet, and knows no hosts.
        DISABLE_WHEN_INACTIVE lets the loop end while no lookup is pending. Raises `OSError` when
        ``/etc/resolv.conf`` can't be read, and `LibeventError` when it names no server.
        Wraps ``evdns_base_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        flags = convert.flags(DnsBaseFlag, flags, "flags")
        base._check_thread()
        base._check_selectable(-1)
        #: The lookups whose callbacks have not been called yet, by key.
        self._lookups: dict[int, Lookup] = {}
        self._free = functools.partial(_free, base, self._lookups, True)
        #: Changes of the name servers that wait for a quiet moment.
        self._late: deque[Callable[[], object]] = deque()
        self._max_inflight = b"64"
        if flags & DnsBaseFlag.INITIALIZE_NAMESERVERS:
            self._note_max_inflight(RESOLV_CONF)
        make, failure = lib.evpy_dns_base_new, functools.partial(_uninitialized, flags)
        making = Making(make, base.pointer, flags, failure=failure)
        super().__init__(base, next_key(), making)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield f"{lib.evdns_base_count_nameservers(self.pointer)} name servers"
        if self._lookups:
            yield f"{len(self._lookups)} lookups pending"

    # Lookups.

    def resolve_ipv4(
        self, name: str | bytes, callback: ResolveCallback, *, flags: int = NO_FLAG
    ) -> DnsLookup:
        """Look up the IPv4 addresses of *name* in DNS, ignoring ``hosts`` files.

        A numeric address is looked up like a name. The loop calls ``callback(lookup, result, ttl,
        addresses)`` once, with a `DnsResult`, the seconds for which the answer is valid, and a list
        of at most 32 addresses as text, such as ``["127.0.0.1"]``; it is empty unless *result* is
        NONE. As in C, a server that answers SERVFAIL counts as one that doesn't answer: it is asked
        again at once, as often as the option attempts says, and then the result is TIMEOUT, never
        SERVERFAILED. With NO_SEARCH in *flags* the search list isn't tried. A *name* outside ASCII
        is encoded by IDNA. Raises `ValueError` if *name* can't be a name.
        Wraps ``evdns_base_resolve_ipv4``.
        """
        return self._resolve(name, DnsType.A, flags, callback)

    def resolve_ipv6(
        self, name: str | bytes, callback: ResolveCallback, *, flags: int = NO_FLAG
    ) -> DnsLookup:
        """Look up the IPv6 addresses of *name*, as `resolve_ipv4` does.

        Wraps ``evdns_base_resolve_ipv6``.
        """
        return self._resolve(name, DnsType.AAAA, flags, callback)

    def _resolve(
        self, name: str | bytes, type: DnsType, flags: int, callback: ResolveCallback
    ) -> DnsLookup:
        lookup = DnsLookup(self, name, type, callback)
        if flags is not NO_SEARCH and flags is not NO_FLAG:
            flags = convert.flags(DnsQueryFlag, flags, "flags")
        self.base._check_thread()
        encoded = known_name(name) if isinstance(name, str) else _name(name)
        lookup._begin(name, resolve, type, encoded, flags)
        return lookup

    def resolve_reverse(
        self, address: str | bytes, callback: ResolveCallback, *, flags: int = NO_FLAG
    ) -> DnsLookup:
        """Look up the name of an IPv4 *address* such as ``"127.0.0.1"``, as `resolve_ipv4` does.

        The callback's list contains the name. Wraps ``evdns_base_resolve_reverse``.
        """
        return self._resolve_reverse(socket.AF_INET, address, flags, callback)

    def resolve_reverse_ipv6(
        self, address: str | bytes, callback: ResolveCallback, *, flags: int = NO_FLAG
    ) -> DnsLookup:
        """Look up the name of an IPv6 *address* such as ``"::1"``, as `resolve_reverse` does.

        Wraps ``evdns_base_resolve_reverse_ipv6``.
        """
        return self._resolve_reverse(socket.AF_INET6, address, flags, callback)

    def _resolve_reverse(
        self, family: int, address: str | bytes, flags: int, callback: ResolveCallback
    ) -> DnsLookup:
        lookup = DnsLookup(self, address, DnsType.PTR, callback)
        flags = convert.flags(DnsQueryFlag, flags, "flags")
        packed = util._parsed(lib.evutil_inet_pton, family, address, "address")
        self.base._check_thread()
        reverse = lib.evpy_dns_resolve_reverse
        lookup._begin(address, reverse, len(packed), packed, flags)
        return lookup

    def getaddrinfo(
        self,
        host: str | bytes | None,
        service: int | str | bytes | None,
        callback: AddrInfoCallback,
        *,
        family: int = socket.AF_UNSPEC,
        type: int = 0,
        proto: int = 0,
        flags: int = AddrInfoFlag(0),
    ) -> AddrInfoLookup:
        """Look up *host* and *service*, a port or its name, in ``hosts`` files and in DNS.

        ``callback(lookup, error, addresses)`` is called once, with a `DnsError` or None, and a list
        like that of `util.getaddrinfo`. It is called before this method returns if no name server
        needs to be asked (as for a numeric address), otherwise in the loop. *flags* is a set of
        `AddrInfoFlag`. What the callback raises before this method returns comes out of it, unless
        ``base.on_error`` handles it. The error is NONAME for a name that doesn't exist; NODATA for
        one that has no address of the *family*, unlike in C even if a ``hosts`` file says so; and
        FAIL for everything else: a server that can't be reached, refuses, or answers SERVFAIL. With
        AF_UNSPEC for *family*, the option getaddrinfo-allow-skew limits the wait for the second
        answer. Wraps ``evdns_getaddrinfo``.
        """
        lookup = AddrInfoLookup(self, host, service, callback)
        asked = addrinfo.question(host, service, "service", family, type, proto, flags)
        self.base._check_thread()
        lookup._begin(host, lib.evpy_dns_getaddrinfo, *asked)
        return lookup

    # Name servers.

    def nameserver_add(self, address: str | bytes) -> None:
        """Add the name server at *address*, an IPv4 address such as ``"127.0.0.1"``, and port 53.

        Raises the errors of `nameserver_sockaddr_add`. Wraps ``evdns_base_nameserver_add``.
        """
        packed = util._parsed(lib.evutil_inet_pton, socket.AF_INET, address, "address")
        number = int.from_bytes(packed, sys.byteorder)
        self._add(lib.evdns_base_nameserver_add, number, about=address)

    def nameserver_ip_add(self, address: str | bytes) -> None:
        """Add the name server at *address*, such as ``"127.0.0.1"`` or ``"[::1]:5353"``.

        The default port is 53. Raises the errors of `nameserver_sockaddr_add`. Wraps
        ``evdns_base_nameserver_ip_add``.
        """
        self.base._check_thread()
        util._address(address, "address")  # raises an error that says what is wrong
        text = convert.string(address, "address")
        self._add(lib.evdns_base_nameserver_ip_add, text, about=address)

    def nameserver_sockaddr_add(self, address: HostAndPort) -> None:
        """Add the name server at *address*, ``(host, port)``; servers take turns.

        Raises `FileExistsError` for a server that was added before, and `OSError` when no socket
        can be made for it. Wraps ``evdns_base_nameserver_sockaddr_add``.
        """
        if isinstance(address, (str, bytes, os.PathLike)):  # a UNIX socket can't be a name server
            raise ValueError(f"address must be (host, port), not {address!r}")
        target = convert.sockaddr(address)
        add = lib.evdns_base_nameserver_sockaddr_add
        self._add(add, target.pointer, target.length, 0, about=address, kept=target)

    def _add(
        self, function: Callable[..., int], *arguments: object, about: object, kept: object = None
    ) -> None:
        def add(_kept: object = kept) -> None:  # keeps the memory that C reads, perhaps later
            self.base._check_selectable(-1)
            code = errors.guarded(function, self.pointer, *arguments)
            if code == ALREADY_THERE:
                raise FileExistsError(errno.EEXIST, f"{about!r}: it is a name server already")
            if code:
                raise errors.failed(function, repr(about))

        self._in_turn(add)

    def _in_turn(self, function: Callable[[], object]) -> None:
        """Run *function* now or, if other changes wait for a quiet moment, after them."""
        self.base._check_thread()
        self._check_usable()  # a closed DnsBase will do nothing later
        if self._late:
            self._late.append(function)
        else:
            function()

    def _catch_up(self) -> None:
        """Make the changes that have waited for a quiet moment."""
        while self._late:
            function = self._late[0]
            try:
                if not self.closed:
                    function()
            except BaseException as error:
                self.base._report(error, self)
            self._late.popleft()

    @property
    def nameservers(self) -> list[convert.Address]:
        """The addresses of the name servers.

        Wraps ``evdns_base_count_nameservers``, ``evdns_base_get_nameserver_addr``.
        """
        self.base._check_thread()
        storage = ffi.new("struct sockaddr_storage *")
        address, size = ffi.cast("struct sockaddr *", storage), ffi.sizeof(storage[0])
        found = []
        for index in range(lib.evdns_base_count_nameservers(self.pointer)):
            length = lib.evdns_base_get_nameserver_addr(self.pointer, index, address, size)
            found.append(convert.unpack_address(address, length))
        return found

    def clear_nameservers_and_suspend(self) -> None:
        """Remove all name servers; lookups wait for new ones, and for `resume`.

        Called in a callback while other callbacks are due, it takes effect after them, and so do
        later changes of the name servers; an error in one of these is reported like a callback's.
        Wraps ``evdns_base_clear_nameservers_and_suspend``.
        """
        self.base._check_thread()
        waiting = bool(self._late)
        self._check_usable()  # a closed DnsBase has no name servers
        self._late.append(self._clear)
        if not waiting:
            with self.base._telling():
                self.base._when_quiet(self._catch_up)

    def _clear(self) -> None:
        pointer = self.pointer
        option = lib.evdns_base_set_option
        if (
            lib.evdns_base_count_nameservers(pointer) > 1
        ):  # send waiting questions now, so that clearing itself sends nothing
            errors.guarded(option, pointer, b"max-inflight", b"65000")
            errors.guarded(lib.evdns_base_resume, pointer)
        errors.call(lib.evpy_dns_clear, self.base.pointer, pointer)
        errors.guarded(option, pointer, b"max-inflight", self._max_inflight)

    def _note_max_inflight(self, path: str | bytes) -> None:
        """Note the option max-inflight in the file *path*, which C is about to read."""
        try:
            with open(path, "rb") as file:
                found = re.findall(rb"^\s*options\b.*\bmax-inflight:(\d{1,9})", file.read(), re.M)
        except OSError:  # C will report it
            return
        if found:
            self._max_inflight = found[-1]

    def resume(self) -> None:
        """Send waiting lookups to the present name servers.

        Wraps ``evdns_base_resume``.
        """
        self._in_turn(lambda: errors.guarded(lib.evdns_base_resume, self.pointer))

    # Configuration.

    def search_clear(self) -> None:
        """Remove all search domains. Wraps ``evdns_base_search_clear``."""
        self.base._check_thread()
        errors.guarded(lib.evdns_base_search_clear, self.pointer)

    def search_add(self, domain: str | bytes) -> None:
        """Add the search domain *domain*, to be tried before the others.

        Unlike in C, raises `ValueError` for a domain in which no name can be asked for: one with
        an empty or a too long part. Wraps ``evdns_base_search_add``.
        """
        self.base._check_thread()
        encoded = convert.host_name(domain)
        bare = encoded.lstrip(b".")  # as libevent does
        if bare and not NAME.fullmatch(bare):
            raise ValueError(
                f"domain must have parts of 1 to {LONGEST_LABEL} bytes, not {domain!r}"
            )
        errors.guarded(lib.evdns_base_search_add, self.pointer, encoded)

    def search_ndots_set(self, ndots: int) -> None:
        """Try a name with at least *ndots* dots as it is, before the search domains. Default: 1.

        Wraps ``evdns_base_search_ndots_set``.
        """
        self.base._check_thread()
        ndots = convert.integer(ndots, "ndots", 0, LONGEST_NAME)
        errors.call(lib.evdns_base_search_ndots_set, self.pointer, ndots)

    def set_option(self, option: str, val: object) -> None:
        """Set *option* to *val*, a number or the text that resolv.conf uses for it.

        ============================ ========================================================
        ndots                        as `search_ndots_set`; default 1
        timeout                      seconds to wait for an answer, from 0.001; default 5
        attempts                     how often to ask, up to 255; default 3
        max-timeouts                 timeouts in a row, up to 255, after which a server counts
                                     as down; default 3
        max-inflight                 questions to ask at once, up to 65000; default 64
        randomize-case               1: ask for nAmEs like this, which are harder to forge, but
                                     some servers fail; 0: as they are; default 1
        initial-probe-timeout        seconds, up to 3600, before a server that is down is tried
                                     again; default 10
        getaddrinfo-allow-skew       seconds to wait for the second answer of two; default 3
        bind-to                      the local address for servers that are added from now on
        so-rcvbuf, so-sndbuf         bytes of their sockets' buffers; 0: the system's default
        ============================ ========================================================

        A colon after the name, as in C's own ``"timeout:"``, is optional. Raises `ValueError` for
        an unknown option, which C would ignore, and for a wrong value; unlike in C, also for 0 or
        a large one where that means to ask nobody, or to wait for ever.
        Wraps ``evdns_base_set_option``.
        """
        self.base._check_thread()
        name = option.removesuffix(":") if isinstance(option, str) else option
        check = OPTIONS.get(name)
        if check is None:
            raise ValueError(f"option must be one of {', '.join(OPTIONS)}, not {option!r}")
        value = check(val, f"val of {name}")
        errors.guarded(lib.evdns_base_set_option, self.pointer, name.encode(), value)
        if name == "max-inflight":
            self._max_inflight = value

    def resolv_conf_parse(
        self,
        filename: str | bytes | os.PathLike[str] | None,
        *,
        flags: int = DnsOption.ALL,
    ) -> None:
        """Read settings from *filename*, a resolv.conf: those in *flags*, a set of `DnsOption`.

        With None, or when the file can't be read, the defaults are used: 127.0.0.1 as the name
        server (not with NAMESERVERS_NO_DEFAULT), and the host's own domain. With HOSTSFILE,
        ``/etc/hosts`` is read too. Raises `OSError` when *filename* can't be read, and
        `LibeventError` when it names no server, so that the default is used.
        Wraps ``evdns_base_resolv_conf_parse``.
        """
        flags = convert.flags(DnsOption, flags, "flags")
        self.base._check_thread()
        self.base._check_selectable(-1)
        path = None if filename is None else _path(filename, "filename")
        parse = lib.evdns_base_resolv_conf_parse

        def read() -> None:
            if path is not None and flags & DnsOption.MISC:
                self._note_max_inflight(path)
            code = errors.guarded(parse, self.pointer, flags, ffi.NULL if path is None else path)
            if code and filename is not None:
                raise _unparsed(parse, code, os.fsdecode(filename))

        self._in_turn(read)

    def load_hosts(self, hosts_fname: str | bytes | os.PathLike[str] | None) -> None:
        """Add the hosts in *hosts_fname*, a file like ``/etc/hosts``, for `getaddrinfo`.

        With None, or when the file can't be read, localhost is added. Raises `OSError` in the
        latter case. Wraps ``evdns_base_load_hosts``.
        """
        self.base._check_thread()
        path = ffi.NULL if hosts_fname is None else _path(hosts_fname, "hosts_fname")
        load = lib.evdns_base_load_hosts
        pointer = self.pointer
        try:
            errors.guarded(load, pointer, path)
        except (errors.LibeventError, OSError):
            raise _unparsed(load, 1, os.fsdecode(hosts_fname or "")) from None

    def clear_host_addresses(self) -> None:
        """Remove all loaded hosts. Wraps ``evdns_base_clear_host_addresses``."""
        self.base._check_thread()
        errors.call(lib.evdns_base_clear_host_addresses, self.pointer)

    # The end.

    def close(self) -> None:
        """Cancel all lookups and close the name servers' sockets; a second time does nothing.

        Unlike in C, where it can be left out, the loop always calls the callbacks of its lookups:
        with SHUTDOWN or, for `getaddrinfo`, FAIL; or with the answer, if that has already arrived.
        A bufferevent whose host name is
        being looked up fails. An `HttpConnection` made with it is closed, and so is an `RpcPool`
        that has such a connection. Any callback may call this. The sockets are closed at once or,
        if C may still need them, in the loop. Raises `ThreadError` in the wrong thread.
        Wraps ``evdns_base_free``.
        """
        base = self.base
        if self.closed:
            return
        base._check_thread()
        for lookup in list(self._lookups.values()):
            lookup._close_with_base()
        if base._forked:
            super().close()
            return
        free = functools.partial(_free, base, self._lookups, False)
        taken: list[CData] = []
        with base._telling():
            try:
                self._take_into(taken)  # so that no callback below begins a lookup
                if taken:  # else other code has closed it in between
                    self._tell_users()
            finally:
                if taken:
                    try:
                        base._bury(self._key, free, taken[0])
                    except BaseException as error:
                        if came_at_entry(error):
                            base._bury(self._key, free, taken[0])
                        raise

    def _tell_users(self) -> None:
        """Make all objects on the base that use this `DnsBase` do without it."""
        base = self.base
        for child in base._children():
            try:
                if not base._forked:  # a callback may have forked
                    child._do_without(self)
            except BaseException as error:  # a callback has raised; go on with the other objects
                errors.keep(error)


def _free(base: EventBase, lookups: dict[int, Lookup], dropped: bool, pointer: CData) -> None:
    """Cancel the lookups, and free the evdns_base when none of its callbacks is queued any more.

    If it was *dropped*, the garbage collector may finalize it before a bufferevent that connects by
    it, in the same cycle; so freeing it waits.
    """
    try:
        _cancel(lookups, pointer)
    except BaseException:  # an interrupt: evdns must not be freed with lookups
        _cancel(lookups, pointer)
        raise
    finally:
        try:
            base._when_quiet(_freed, lookups, pointer, now=not dropped)
        except BaseException as error:
            if came_at_entry(error):
                base._when_quiet(_freed, lookups, pointer, now=not dropped)
            raise


def _cancel(lookups: dict[int, Lookup], pointer: CData) -> None:
    """Cancel all lookups; of one that is cancelled already, it changes nothing."""
    for lookup in list(lookups.values()):
        lookup._withdraw(pointer)
        lookup._drop()
    lib.evpy_lookup_cancel_all(pointer)


def _freed(lookups: dict[int, Lookup], pointer: CData) -> None:
    lib.evpy_dns_free(pointer)
    for lookup in list(lookups.values()):
        lookup._lose()


def _name(name: str | bytes) -> bytes:
    """Return *name* as bytes for C, or raise an error that says why it can't be looked up."""
    encoded = convert.host_name(name)
    if not NAME.fullmatch(encoded):
        raise ValueError(f"name must have parts of 1 to {LONGEST_LABEL} bytes, not {name!r}")
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f"name must have at most {LONGEST_NAME} bytes, not {len(encoded)}")
    return encoded


#: The same, cached, for text: programs look the same names up again and again.
known_name: Final = functools.lru_cache(maxsize=1024)(_name)


def _path(path: str | bytes | os.PathLike[str], name: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"{name} must not contain a NUL: {path!r}")
    return encoded


#: Return values of C's functions.
ALREADY_THERE = 3
NO_NAMESERVERS = 6


def _uninitialized(flags: int) -> Exception:
    """Return the exception that says why C could not make an evdns_base."""
    if flags & DnsBaseFlag.INITIALIZE_NAMESERVERS:
        return _unparsed(lib.evdns_base_new, 0, RESOLV_CONF)
    return errors.failed(lib.evdns_base_new)


def _unparsed(function: Callable[..., object], code: int, path: str) -> Exception:
    """Return the exception that says why C can't use the file *path*."""
    failure = errors.failed(function, path)
    if isinstance(failure, MemoryError):
        return failure
    try:
        open(path, "rb").close()
    except OSError as error:
        return OSError(error.errno, f"{errors.name_of(function)}: {path}: {error.strerror}")
    if code in (0, NO_NAMESERVERS):
        return errors.LibeventError(f"{errors.name_of(function)}: {path} names no name server")
    return failure


# The checks on the values of `DnsBase.set_option`.

#: Returns a value, which each option takes of its own types, as C takes it.
Check: TypeAlias = Callable[[Any, str], bytes]


def _whole(low: int, high: int) -> Check:
    def check(value: str | bytes | SupportsIndex, name: str) -> bytes:
        if isinstance(value, (str, bytes)):
            text = convert.string(value, name)
            if not re.fullmatch(rb"[0-9]{1,10}", text):
                raise ValueError(f"{name} must be a number, not {value!r}")
            value = int(text)
        return b"%d" % convert.integer(value, name, low, high)

    return check


def _seconds(low: float, high: float) -> Check:
    def check(value: str | bytes | Seconds, name: str) -> bytes:
        if isinstance(value, (str, bytes)):
            text = convert.string(value, name)
            if not re.fullmatch(rb"[0-9]*\.?[0-9]*", text) or not re.search(rb"[0-9]", text):
                raise ValueError(f"{name} must be a number of seconds, not {value!r}")
            value = float(text)
        number = convert.seconds(value, name)
        if not low <= number <= high or not math.isfinite(number):
            raise ValueError(f"{name} must be from {low} to {high} seconds, not {value!r}")
        return f"{number:.6f}".encode()

    return check


def _own_address(value: str | bytes, name: str) -> bytes:
    text = convert.string(value, name)
    try:
        util.parse_sockaddr_port(text)
    except ValueError:
        raise ValueError(f"{name} must be an address, not {value!r}") from None
    return text


_anything = _seconds(0.001, convert.MAX_SECONDS)

OPTIONS: dict[str, Check] = {
    "ndots": _whole(0, LONGEST_NAME),
    "timeout": _anything,
    "attempts": _whole(0, 255),
    "max-timeouts": _whole(1, 255),
    "max-inflight": _whole(1, 65000),
    "randomize-case": _whole(0, 1),
    "initial-probe-timeout": _seconds(0.001, 3600),
    "getaddrinfo-allow-skew": _anything,
    "bind-to": _own_address,
    "so-rcvbuf": _whole(0, 2**31 - 1),
    "so-sndbuf": _whole(0, 2**31 - 1),
}
