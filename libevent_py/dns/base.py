"""``struct evdns_base``: name lookups in the loop.

*Closing.* libevent lines up the answers of lookups, and some of them use what they came from (L3).
So a `DnsBase` that is closed cancels its lookups at once, has those fail that others began with it,
and is freed when nothing is lined up any longer.

*Name servers.* evdns asks one that has failed, from time to time, whether it is back. The answer to
this probe is lined up, too, and finds the server freed if it has been cleared meanwhile. So that
waits for a quiet moment like the end, and what is to come after it waits as well. And where a probe
is taken back, the next question that waits for its turn is sent, be it to a server that has just
been freed: so none may wait.
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
from typing import Any

from libevent_py import errors, util
from libevent_py._core import convert
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Making
from libevent_py._core.owner import Child, Rank
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

RESOLV_CONF = "/etc/resolv.conf"

#: A name as DNS spells it: C finds no place for more, nor for more in a part of it.
LONGEST_NAME = 255
LONGEST_LABEL = 63
LABELS = re.compile(rb"(?:[^.]{1,%d}\.)*[^.]{1,%d}\.?" % (LONGEST_LABEL, LONGEST_LABEL))
NAME = re.compile(rb"[^.]{1,63}(?:\.[^.]{1,63})*\.?")

# Looked up once: an attribute of lib or of an enumeration costs as much as a short call.
NO_FLAG, NO_SEARCH = DnsQueryFlag(0), DnsQueryFlag.NO_SEARCH
resolve = lib.evpy_dns_resolve


def err_to_string(err: int) -> str:
    """Return what *err*, one of `DnsResult`, means. Wraps ``evdns_err_to_string``."""
    return convert.text(lib.evdns_err_to_string(convert.integer(err, "err", -(2**31), 2**31 - 1)))


class DnsBase(Child):
    """A resolver with its name servers; usable in ``with``, which closes it.

    Its name servers' sockets keep the loop from ending, unless it is made with
    DISABLE_WHEN_INACTIVE. Dropped while it looks nothing up, it is closed in the loop. A forked
    child shares the sockets, and with them the answers: it had better make its own.
    """

    __slots__ = ("_free", "_late", "_lookups", "_max_inflight")

    _rank = Rank.DNS

    def __init__(self, base: EventBase, flags: int = DnsBaseFlag.INITIALIZE_NAMESERVERS) -> None:
        """Make a resolver; with INITIALIZE_NAMESERVERS it reads ``/etc/resolv.conf`` and the hosts.

        With ``DnsBaseFlag(0)`` it has no name servers yet, and knows no hosts.
        DISABLE_WHEN_INACTIVE lets the loop end while nothing is looked up. Raises `OSError` when
        the file can't be read, and `LibeventError` when it names no server.
        Wraps ``evdns_base_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        flags = convert.flags(DnsBaseFlag, flags, "flags")
        base._check_thread()
        base._check_selectable(-1)
        #: Those that have not been told yet, by key.
        self._lookups: dict[int, Lookup] = {}
        self._free = functools.partial(_free, base, self._lookups, True)
        #: What is to be done with the name servers when there is a quiet moment.
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
        """Look up the IPv4 addresses of *name*; `hosts` files and numeric addresses don't count.

        The loop calls ``callback(lookup, result, ttl, addresses)`` once, with a `DnsResult`, the
        seconds for which the answer holds, and a list of text such as ``["127.0.0.1"]``, of at most
        32; it is empty unless *result* is NONE. As in C, a server that answers SERVFAIL counts as
        one that doesn't answer: it is asked again at once, as often as the option attempts says,
        and then the result is TIMEOUT, never SERVERFAILED. With NO_SEARCH in *flags* the search
        list isn't tried. *name* outside ASCII is encoded by IDNA. Raises `ValueError` for what is
        no name.
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

        The callback's list has that name. Wraps ``evdns_base_resolve_reverse``.
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
        packed = util.inet_pton(family, address)
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
        """Look up *host* and *service*, a port or its name, in the hosts and by the name servers.

        ``callback(lookup, error, addresses)`` is called once, with a `DnsError` or None, and a list
        as of `util.getaddrinfo`: before this returns, if no name server needs to be asked (as for a
        numeric address), or else in the loop. *flags* are of `AddrInfoFlag`. What the callback
        raises before this returns comes out of it, unless ``base.on_error`` takes it. The error is
        NONAME for a name that doesn't exist, and FAIL for all else: a server that can't be reached,
        refuses, or answers SERVFAIL. With AF_UNSPEC for *family* a second answer is waited for no
        longer than the option getaddrinfo-allow-skew says. Wraps ``evdns_getaddrinfo``.
        """
        lookup = AddrInfoLookup(self, host, service, callback)
        question = util.addrinfo_question(host, service, "service", family, type, proto, flags)
        self.base._check_thread()
        lookup._begin(host, lib.evpy_dns_getaddrinfo, *question)
        return lookup

    # Name servers.

    def nameserver_add(self, address: str | bytes) -> None:
        """Ask the name server at *address*, an IPv4 address such as ``"127.0.0.1"``, at port 53.

        Raises as `nameserver_sockaddr_add` does. Wraps ``evdns_base_nameserver_add``.
        """
        number = int.from_bytes(util.inet_pton(socket.AF_INET, address), sys.byteorder)
        self._add(lib.evdns_base_nameserver_add, number, about=address)

    def nameserver_ip_add(self, address: str | bytes) -> None:
        """Ask the name server at *address* too, such as ``"127.0.0.1"``, ``"[::1]:5353"``.

        Without a port it is 53. Raises as `nameserver_sockaddr_add` does. Wraps
        ``evdns_base_nameserver_ip_add``.
        """
        util.parse_sockaddr_port(address)  # which says what is wrong with it
        text = convert.string(address, "address")
        self._add(lib.evdns_base_nameserver_ip_add, text, about=address)

    def nameserver_sockaddr_add(self, address: convert.Address) -> None:
        """Ask the name server at *address*, ``(host, port)``, too; servers take turns.

        Raises `FileExistsError` for one that there is already, and `OSError` when there can be no
        socket for it. Wraps ``evdns_base_nameserver_sockaddr_add``.
        """
        if isinstance(address, (str, bytes, os.PathLike)):  # no file is asked for names
            raise ValueError(f"address must be (host, port), not {address!r}")
        target = convert.sockaddr(address)
        add = lib.evdns_base_nameserver_sockaddr_add
        self._add(add, target.pointer, target.length, 0, about=address, kept=target)

    def _add(
        self, function: Callable[..., int], *arguments: Any, about: object, kept: object = None
    ) -> None:
        def add(_kept: object = kept) -> None:  # the memory that C is to read, be it later
            self.base._check_selectable(-1)
            code = errors.guarded(function, self.pointer, *arguments)
            if code == ALREADY_THERE:
                raise FileExistsError(errno.EEXIST, f"{about!r}: it is a name server already")
            if code:
                raise errors.failed(function, repr(about))

        self._in_turn(add)

    def _in_turn(self, function: Callable[[], object]) -> None:
        """Run *function* now, or after what waits for a quiet moment."""
        self.base._check_thread()
        self._check_usable()  # a closed one does nothing later
        if self._late:
            self._late.append(function)
        else:
            function()

    def _catch_up(self) -> None:
        """Do what has waited for a quiet moment."""
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
        storage = ffi.new("struct sockaddr_storage *")
        address, size = ffi.cast("struct sockaddr *", storage), ffi.sizeof(storage[0])
        found = []
        for index in range(lib.evdns_base_count_nameservers(self.pointer)):
            length = lib.evdns_base_get_nameserver_addr(self.pointer, index, address, size)
            found.append(convert.unpack_address(address, length))
        return found

    def clear_nameservers_and_suspend(self) -> None:
        """Forget the name servers; lookups wait for others, and for `resume`.

        In a callback while others are due it happens when these have been called, and what is done
        with the name servers later happens later still; what fails then is the callback's error.
        Wraps ``evdns_base_clear_nameservers_and_suspend``.
        """
        self.base._check_thread()
        waiting = bool(self._late)
        self._check_usable()  # a closed one has nobody to ask
        self._late.append(self._clear)
        if not waiting:
            with self.base._telling():
                self.base._when_quiet(self._catch_up)

    def _clear(self) -> None:
        pointer = self.pointer
        option = lib.evdns_base_set_option
        if (
            lib.evdns_base_count_nameservers(pointer) > 1
        ):  # send what waits, so that clearing itself sends nothing
            errors.guarded(option, pointer, b"max-inflight", b"65000")
            errors.guarded(lib.evdns_base_resume, pointer)
        lib.evpy_dns_clear(self.base.pointer, pointer)
        errors.guarded(option, pointer, b"max-inflight", self._max_inflight)

    def _note_max_inflight(self, path: str | bytes) -> None:
        """Note how many questions C asks at once when it has read *path*."""
        try:
            with open(path, "rb") as file:
                found = re.findall(rb"^\s*options\b.*\bmax-inflight:(\d{1,9})", file.read(), re.M)
        except OSError:  # which C will say
            return
        if found:
            self._max_inflight = found[-1]

    def resume(self) -> None:
        """Ask the name servers that there are now what waits for an answer.

        Wraps ``evdns_base_resume``.
        """
        self._in_turn(lambda: errors.guarded(lib.evdns_base_resume, self.pointer))

    # Configuration.

    def search_clear(self) -> None:
        """Forget the domains to search names in. Wraps ``evdns_base_search_clear``."""
        self.base._check_thread()
        errors.guarded(lib.evdns_base_search_clear, self.pointer)

    def search_add(self, domain: str | bytes) -> None:
        """Search names in *domain*, before the domains that there are.

        Wraps ``evdns_base_search_add``.
        """
        self.base._check_thread()
        errors.guarded(lib.evdns_base_search_add, self.pointer, convert.host_name(domain))

    def search_ndots_set(self, ndots: int) -> None:
        """Try a name with at least *ndots* dots as it is, before the domains to search; first 1.

        Wraps ``evdns_base_search_ndots_set``.
        """
        self.base._check_thread()
        ndots = convert.integer(ndots, "ndots", 0, LONGEST_NAME)
        errors.call(lib.evdns_base_search_ndots_set, self.pointer, ndots)

    def set_option(self, option: str, val: object) -> None:
        """Set *option* to *val*, a number or the text that resolv.conf has for it.

        ============================ ========================================================
        ndots                        as `search_ndots_set`; first 1
        timeout                      seconds to wait for an answer, from 0.001; first 5
        attempts                     how often to ask, to 255; first 3
        max-timeouts                 how many in a row, to 255, make a server count as down; 3
        max-inflight                 how many questions to ask at once, to 65000; first 64
        randomize-case               1: ask for nAmEs like this, which are harder to forge, but
                                     some servers fail (L7); 0: as they are; first 1
        initial-probe-timeout        seconds, to 3600, until a server that is down is tried; 10
        getaddrinfo-allow-skew       seconds to wait for the second answer of two; first 3
        bind-to                      the address that servers added from now on are asked from
        so-rcvbuf, so-sndbuf         bytes of their sockets' buffers; 0 leaves that to the system
        ============================ ========================================================

        A colon after its name, as in C's own ``"timeout:"``, may be there or not. Raises
        `ValueError` for another option, which C would ignore, and for what is no value of it.
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
        """Take from *filename*, a resolv.conf, what *flags* of `DnsOption` say.

        With None, or when it can't be read, what is the default is taken: 127.0.0.1 as the name
        server (not with NAMESERVERS_NO_DEFAULT), and the host's own domain. With HOSTSFILE,
        ``/etc/hosts`` is read. Raises `OSError` when *filename* can't be read, and `LibeventError`
        when it names no server and the default is taken. Wraps ``evdns_base_resolv_conf_parse``.
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
        """Have `getaddrinfo` find what *hosts_fname*, a file as ``/etc/hosts``, says too.

        With None, or when it can't be read, localhost. Raises `OSError` then.
        Wraps ``evdns_base_load_hosts``.
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
        """Forget what hosts have been loaded. Wraps ``evdns_base_clear_host_addresses``."""
        self.base._check_thread()
        errors.call(lib.evdns_base_clear_host_addresses, self.pointer)

    # The end.

    def close(self) -> None:
        """Look up nothing more; a second time does nothing. Raises `ThreadError` in a wrong thread.

        The callbacks of its lookups are told in the loop, as in C: of SHUTDOWN, or FAIL by
        `getaddrinfo`; or they get the answer, if that is on its way already. A bufferevent whose
        name it still looks up fails; an `HttpConnection` made with it is closed, and so is an
        `RpcPool` that has one. Any callback may call this. The sockets are closed at once or, where
        C may still need them, in the loop.
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
        with base._telling():
            pointer = None
            try:
                pointer = self._take()  # nothing may begin with it in the callbacks that come now
                if pointer is not None:  # else other code has closed it in between
                    self._tell_users()
            finally:
                if pointer is not None:
                    base._bury(self._key, free, pointer)

    def _tell_users(self) -> None:
        """Have those who look names up by it do without."""
        base = self.base
        for child in base._children():
            try:
                if not base._forked:  # or a callback has
                    child._do_without(self)
            except BaseException as error:  # a callback's: there may be others to tell
                errors.keep(error)


def _free(base: Any, lookups: dict[int, Lookup], dropped: bool, pointer: Any) -> None:
    """Cancel the lookups, and free the evdns_base when it has called all that it has lined up.

    One that was *dropped* may have been finalized before what connects by it, in the same cycle:
    so it waits.
    """
    try:
        for lookup in list(lookups.values()):
            lookup._withdraw(pointer)
            lookup._drop()
        lib.evpy_lookup_cancel_all(pointer)
    finally:  # though an interrupt has come
        base._when_quiet(_freed, lookups, pointer, now=not dropped)


def _freed(lookups: dict[int, Lookup], pointer: Any) -> None:
    lib.evpy_dns_free(pointer)
    for lookup in list(lookups.values()):
        lookup._lose()


def _name(name: str | bytes) -> bytes:
    """Return *name* as C takes it, or raise an error that says why it can't be looked up."""
    encoded = convert.host_name(name)
    if not NAME.fullmatch(encoded):
        raise ValueError(f"name must have parts of 1 to {LONGEST_LABEL} bytes, not be {name!r}")
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f"name must have at most {LONGEST_NAME} bytes, not {len(encoded)}")
    return encoded


#: The same for text, which is looked up again.
known_name = functools.lru_cache(maxsize=1024)(_name)


def _path(path: str | bytes | os.PathLike[str], name: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"{name} must not contain a NUL: {path!r}")
    return encoded


#: What C's functions return.
ALREADY_THERE = 3
NO_NAMESERVERS = 6


def _uninitialized(flags: int) -> Exception:
    """Return the exception that says why there is no evdns_base ."""
    if flags & DnsBaseFlag.INITIALIZE_NAMESERVERS:
        return _unparsed(lib.evdns_base_new, 0, RESOLV_CONF)
    return errors.failed(lib.evdns_base_new)


def _unparsed(function: Callable[..., Any], code: int, path: str) -> Exception:
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


# What `DnsBase.set_option` takes.


def _whole(low: int, high: int) -> Callable[[Any, str], bytes]:
    def check(value: Any, name: str) -> bytes:
        if isinstance(value, (str, bytes)):
            text = convert.string(value, name)
            if not re.fullmatch(rb"[0-9]{1,10}", text):
                raise ValueError(f"{name} must be a number, not {value!r}")
            value = int(text)
        return b"%d" % convert.integer(value, name, low, high)

    return check


def _seconds(low: float, high: float) -> Callable[[Any, str], bytes]:
    def check(value: Any, name: str) -> bytes:
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


def _own_address(value: Any, name: str) -> bytes:
    text = convert.string(value, name)
    try:
        util.parse_sockaddr_port(text)
    except ValueError:
        raise ValueError(f"{name} must be an address, not {value!r}") from None
    return text


_anything = _seconds(0.001, convert.MAX_SECONDS)

OPTIONS: dict[str, Callable[[Any, str], bytes]] = {
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
