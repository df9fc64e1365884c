"""``struct evdns_server_port``: a UDP socket that answers DNS queries."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import FileDescriptor, HostAndPort
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.handle import came_to_be
from libevent_py._core.sockets import lent
from libevent_py._ffi import ffi, lib
from libevent_py.dns.server_request import SERVERFAILED, DnsServerRequest, respond
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What gets each query: ``evdns_request_callback_fn_type``.
DnsServerCallback: TypeAlias = Callable[["DnsServerRequest"], object]

#: The length of a query's header in bytes. A shorter datagram crashes libevent.
HEADER = 12
#: From Linux's <asm/socket.h>.
SO_ATTACH_FILTER = 26

new_object: Callable[[type[DnsServerRequest]], DnsServerRequest] = object.__new__


class DnsServer(Child):
    """A UDP socket with a callback for each DNS query; usable in ``with``, which closes it.

    It stays alive until it or its base is closed, even if nothing refers to it. Up to 256 queries
    wait for their callback; more are dropped. A forked child shares the socket.
    """

    __slots__ = ("_c", "_callback", "_fd")

    _c: Any

    _callback: DnsServerCallback

    _rank = Rank.LISTENER

    def __init__(
        self,
        base: EventBase,
        address: HostAndPort | int | socket.socket,
        callback: DnsServerCallback,
    ) -> None:
        """Call ``callback(request)`` for each query to *address*, with a `DnsServerRequest`.

        *address* is (host, port), which is bound, or a bound UDP socket: a descriptor, which
        belongs to the server from now on, or a socket object, which is detached from its
        descriptor. The descriptor becomes non-blocking. When the callback raises, the query is
        answered with SERVERFAILED, unless `EventBase.on_error`, which gets the exception and the
        request, has answered it. A query that libevent can't read is ignored, and so is one with a
        name that no answer could repeat.

        Datagrams without a DNS header would crash libevent, so the kernel is made to drop them.
        Datagrams that the socket received before that are discarded. Only Linux can do this;
        elsewhere `NotImplementedError` is raised. Raises `OSError` when the address can't be bound.
        Wraps ``evdns_add_server_port_with_base``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        self._callback = convert.callback(callback)
        self._c = None
        begun: list[int] = []
        try:
            self._open(base, address, begun)
        except BaseException:
            if begun:  # else an argument's own method has made it meanwhile, or nobody has
                self._unmade()
            raise

    def _open(
        self, base: EventBase, address: HostAndPort | int | socket.socket, begun: list[int]
    ) -> None:
        """Use the socket *address*, or bind one; C closes it, even after an interrupt."""
        if not isinstance(address, tuple):
            given = address if isinstance(address, socket.socket) else None
            try:
                self._start(base, _checked(address), begun)
            finally:
                if given is not None and begun and self._c is not None:  # no call before the next
                    given.detach()
            return
        bound = _bound(address)
        try:
            self._start(base, bound.fileno(), begun)
        finally:
            if not begun or self._c is None:
                bound.close()
            else:
                bound.detach()

    def _start(self, base: EventBase, fd: int, begun: list[int]) -> None:
        self._check_unmade()
        base._check_selectable(fd)
        errors.call(lib.evutil_make_socket_nonblocking, fd)
        # libevent wouldn't close descriptor 0 (N2).
        self._fd = fd or fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1)
        key = next_key()
        begun.append(key)
        try:
            store = functools.partial(setattr, self, "_c")
            errors.put(store, lib.evpy_dns_server_new, base.pointer, self._fd, key)
            super().__init__(base, key, self._c.port)
        except BaseException:
            if not came_to_be(self):
                if self._c is not None:
                    lib.evpy_dns_server_free(self._c, self._c.port)  # closes the socket, too
                elif not fd:
                    os.close(self._fd)
            raise
        base._may_call(key, self)
        if not fd:
            os.close(fd)

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"fd {self._fd}"
        if ask:
            yield convert.told_socket_name(self._fd)

    @property
    def callback(self) -> DnsServerCallback:
        """The function called as ``callback(request)``; may be set."""
        return self._callback

    @callback.setter
    def callback(self, callback: DnsServerCallback) -> None:
        self._callback = convert.callback(callback)

    @property
    def fd(self) -> int:
        """The socket's descriptor: the one given, except that 0 is moved to another number."""
        self._check_usable()  # a closed server has none
        return self._fd

    @property
    def address(self) -> Any:
        """The address that the socket is bound to."""
        self.base._check_thread()
        return convert.name_of(self, self.fd)

    def close(self) -> None:
        """Drop unanswered requests, and close the socket; a second time does nothing.

        Received queries whose callback has not been called yet are dropped, too. The server's own
        callback may call this. Raises `ThreadError` in the wrong thread.
        Wraps ``evdns_close_server_port``.
        """
        if self.closed:
            return
        self.base._check_thread()
        for child in self.base._children():
            if isinstance(child, DnsServerRequest) and child.server is self:
                child.close()
        super().close()

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that closes the port."""
        return functools.partial(lib.evpy_dns_server_free, self._c)

    def _abandon(self, pointer: CData, code: int = SERVERFAILED) -> int:
        """Answer *code* to the request *pointer*, which nobody else will answer.

        Return C's result, which is not 0 if the answer could not be sent.
        """
        result = 0
        #: None once it is closed: to answer its last request would use freed memory.
        port: CData | None = None
        try:
            with contextlib.suppress(errors.ClosedError):
                port = self.pointer  # the reference keeps the port open meanwhile
        finally:  # even after an interrupt
            if port is None:
                lib.evpy_dns_drop(self._c, pointer)
            else:
                result = respond(self._c, pointer, code)
        return result


def _bound(address: HostAndPort) -> socket.socket:
    """Return a new UDP socket that is bound to *address*."""
    target = convert.sockaddr(address)
    made = socket.socket(target.pointer.sa_family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)  # whatever the default timeout is
        _guard(made)
        made.bind(address)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"address {address!r}: {error.strerror}") from None
    except BaseException:
        made.close()
        raise
    return made


def _checked(fd: FileDescriptor) -> int:
    """Return the descriptor that *fd* is or has, of a bound UDP socket, or raise an error."""
    if not isinstance(fd, (int, socket.socket)):
        raise TypeError(f"address must be (host, port), a descriptor or a socket, not {fd!r}")
    number = convert.descriptor(fd, "address")
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise ValueError(f"address must be a socket, not {fd!r}")
    with lent(number) as borrowed:
        if borrowed.type != socket.SOCK_DGRAM:
            raise ValueError(f"address must be a UDP socket, not {fd!r}")
        if borrowed.family != socket.AF_UNIX and borrowed.getsockname()[1] == 0:
            raise ValueError(f"address must be a bound socket, not {fd!r}")
        _guard(borrowed)
    return number


def _guard(sock: socket.SocketType) -> None:
    """Make the kernel drop datagrams without a whole header; discard those already received."""
    if sys.platform != "linux":
        raise NotImplementedError(
            "this system can't filter out the datagrams that crash libevent's DNS server"
        )
    # The kernel counts UDP's own header, too.
    least = HEADER if sock.family == socket.AF_UNIX else HEADER + 8
    # Load the length; compare it; accept the whole datagram, or nothing of it.
    steps = (0x80, 0, 0, 0), (0x35, 0, 1, least), (0x06, 0, 0, 2**32 - 1), (0x06, 0, 0, 0)
    code = ffi.new("char[]", b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), int(ffi.cast("uintptr_t", code)))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    while True:
        try:
            sock.recv(1, socket.MSG_DONTWAIT)
        except ConnectionRefusedError:  # an error about a datagram that it sent before
            continue
        except BlockingIOError:
            return


# hot: called for every query, which it makes a request of that must not be lost.
@ffi.def_extern(onerror=errors.kept)
def evpy_dns_query(
    key: int, pointer: CData, count: int, name: CData, type: int, dns_class: int, taken: CData
) -> None:
    """Handle the query; set *taken*, or C calls once more, and then drops the request."""
    server = live.objects.get(key)
    if server is None or server.base._forked:
        return
    request = new_object(DnsServerRequest)
    taken[0] = True
    try:
        request._begin(server, pointer, count, ffi.string(name), type, dns_class)
    except BaseException as interrupt:
        taken[0] = came_to_be(request)
        if not taken[0]:
            raise
        errors.keep(interrupt)  # the request is whole, as its pointer comes last
    try:
        server._callback(request)
    except BaseException as error:
        try:
            server.base._report(error, request)
            request._fail()
        except BaseException as interrupt:
            errors.keep(interrupt)
            request._fail()
