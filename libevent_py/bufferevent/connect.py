"""How a bufferevent connects to a host by its name.

libevent looks the name up and connects to the first address that it finds. Without an evdns_base
that is done, or has failed, when the call returns (F5). With one the loop does it, and holds the
bufferevent until the answer comes, though it be closed (F9); so closing it cancels the lookup.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple

from libevent_py import errors, util
from libevent_py._core import convert
from libevent_py._core.owner import Child
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.layers import Layered
from libevent_py.enums import AddrInfoError, BufferEventFlag, TriggerOption

FAMILIES = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)


class Lookup(NamedTuple):
    """What `Connecting.connect_hostname` was last called for."""

    host: str | bytes
    #: Kept alive: the lookup uses it.
    dns_base: Any
    #: Why it has failed, where C doesn't say.
    code: int = 0


class Connecting(Layered):
    """What `BufferEvent` has for names."""

    __slots__ = ("_connected_by_us", "_lookup")

    def _start(self, *arguments: Any, **keywords: Any) -> None:
        self._lookup: Lookup | None = None
        super()._start(*arguments, **keywords)

    def connect_hostname(
        self,
        dns_base: Any,
        host: str | bytes,
        port: int,
        family: int = socket.AF_UNSPEC,
    ) -> None:
        """Look *host* up and begin to connect to it; `on_event` will say CONNECTED or ERROR.

        On ERROR, `dns_error` tells whether it was the lookup that failed, and `error` is the same.
        With None for *dns_base* the lookup is over when this returns, and `on_event` may have been
        called already; the loop waits meanwhile, other threads run. With a ``DnsBase`` the loop
        does it. *host* is a name or a numeric address; outside ASCII it is encoded by IDNA.
        *family* is AF_UNSPEC, AF_INET or AF_INET6. Only the first address found is tried. Raises
        `RuntimeError` while an earlier lookup goes on, which in C would be lost (F9); `ValueError`
        for a pair or a filter.
        Wraps ``bufferevent_socket_connect_hostname``.
        """
        base = self.base
        base.check_thread()
        self._settle()
        resolver = ffi.NULL if dns_base is None else _resolver(dns_base, base)
        name = convert.host_alone(host)
        port = convert.integer(port, "port", 1, 65535)
        if family not in FAMILIES:
            raise ValueError(f"family must be AF_UNSPEC, AF_INET or AF_INET6, not {family!r}")
        pointer = self.pointer
        if self._is_looking_up():
            raise RuntimeError("connect_hostname() was called while an earlier lookup goes on")
        self._prepare(pointer)
        self._lookup = Lookup(host, dns_base)
        base.call(lib.bufferevent_socket_connect_hostname, pointer, resolver, family, name, port)
        if not self.closed:
            if getattr(dns_base, "closed", False):  # by other code, too soon
                self.do_without(dns_base)
            self.look()

    def _prepare(self, pointer: Any) -> None:
        """Raise an error unless there may be a new socket, or the one that there is may connect.

        Linux lets a socket connect for a second time, and does nothing.
        """
        self._check_not_given()
        if self._partner is not None or self._underlying is not None:
            raise ValueError("a pair can't connect, nor a filter: the one that it stands on can")
        self.forget_failure()
        fd = lib.bufferevent_getfd(pointer)
        if fd < 0:
            self.base.check_selectable(-1)
            self._connected_by_us = True
            return
        if lib.evpy_socket_name(fd, True, ffi.NULL, 0) >= 0:
            raise OSError(errno.EISCONN, f"fd {fd}: it is already connected")

    def _is_looking_up(self) -> bool:
        """Tell whether a lookup goes on, of which a connection may come."""
        return bool(lib.evpy_lookup_under_way(self.pointer))

    def _stop_looking_up(self, pointer: Any) -> None:
        """Have nothing come of a lookup that goes on: libevent itself goes on with some."""
        if self._lookup is not None:
            lib.evpy_lookup_cancel(pointer)

    @property
    def dns_error(self) -> errors.DnsError | None:
        """Why the lookup of the last `connect_hostname` failed, or None.

        Its ``errno`` is one of `AddrInfoError`. Wraps ``bufferevent_socket_get_dns_error``.
        """
        code = int(lib.bufferevent_socket_get_dns_error(self.pointer))
        if self._lookup is None:
            return None
        code = self._lookup.code or code
        if code == 0:
            return None
        return errors.DnsError(code, f"{self._lookup.host!r}: {util.gai_strerror(code)}")

    def do_without(self, other: Child) -> None:
        """Fail if *other*, which is about to be closed, still looks up the name."""
        lookup = self._lookup
        if lookup is None or lookup.dns_base is not other or self.closed:
            return
        if not self._is_looking_up():
            return
        self._lookup = lookup._replace(code=AddrInfoError.FAIL)
        self._stop_looking_up(self.pointer)
        defer = TriggerOption.DEFER_CALLBACKS
        errors.call(lib.bufferevent_trigger_event, self.pointer, BufferEventFlag.ERROR, defer)

    def why_failed(self, what: int, code: int) -> OSError | None:
        """Return what the event *what* has failed by; *code* is the errno that came with it."""
        failure = super().why_failed(what, code)
        if not what & BufferEventFlag.ERROR or self._lookup is None:
            return failure
        return self.dns_error or failure


def _resolver(dns_base: Any, base: Any) -> Any:
    """Return the evdns_base of *dns_base*, or raise an error that names the argument."""
    pointer = getattr(dns_base, "pointer", None)
    kind = ffi.typeof(pointer).cname if isinstance(pointer, ffi.CData) else None
    if kind != "struct evdns_base *":
        raise TypeError(f"dns_base must be a DnsBase or None, not {dns_base!r}")
    if dns_base.base is not base:
        raise ValueError("dns_base must be of the bufferevent's own event base")
    return pointer
