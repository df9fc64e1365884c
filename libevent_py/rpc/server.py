"""``struct evrpc_base``: procedures that can be called over HTTP.

A call is an HTTP request, POST to ``/.rpc.NAME``, with a message as its body; the reply is one,
too. Whatever is wrong with a call (a message that is incomplete, a hook that terminates it, a
handler that raises) is answered by 503.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import in_the_middle
from libevent_py._core.handle import Handle, Making
from libevent_py._core.owner import Child, Rank
from libevent_py._core.pointers import ALONE, copied
from libevent_py._ffi import lib
from libevent_py.enums import RpcHook, RpcHookResult
from libevent_py.http.server import HttpServer
from libevent_py.http.server_connection import HttpServerConnection
from libevent_py.http.server_request import write_at_last
from libevent_py.rpc.hooks import (
    CONTINUE,
    PAUSE,
    TERMINATE,
    Context,
    End,
    HookedRequest,
    call_name,
    message_class,
    number,
    octets_of,
)
from libevent_py.rpc.message import Message

evrpc_free = lib.evrpc_free

#: A handler of calls: ``handler(rpc)`` fills in ``rpc.reply`` and calls ``rpc.done()``.
Handler = Callable[[Any], object]


class Served:
    """What C has of a server: its RPCs' names, and its calls that are not answered yet."""

    __slots__ = ("calls", "freed", "held", "http", "names", "pointer", "server", "silence")

    def __init__(self, server: RpcServer, below: Any) -> None:
        #: A copy: that of the server tells who is on the way to C. None until C has made it.
        self.pointer: Any = None
        self.freed = False
        self.server = weakref.ref(server)
        self.http: Any = copied(below)
        self.held = server.http._requests
        self.silence = server.http.base._silencer()
        #: The keys of the RPCs, by name.
        self.names: dict[bytes, int] = {}
        #: By the number of its pointer; each goes when C has been told to answer it.
        self.calls: dict[int, tuple[Any, weakref.ref[Rpc]]] = {}

    def requests(self) -> list[Any]:
        """Return C's HTTP requests that the calls are which are not answered yet."""
        return [lib.evpy_rpc_http_request(pointer) for pointer, _ in list(self.calls.values())]

    def refuse(self, pointer: Any) -> None:
        """Answer by 503 what nobody will answer any more, whether a hook holds it up or not."""
        _, ref = self.calls.pop(number(pointer), (None, None))
        if ref is None:
            return
        rpc = ref()
        if rpc is not None:
            rpc._lose()
        if lib.evpy_rpc_resume_request(self.pointer, pointer, TERMINATE):
            lib.evpy_rpc_refuse(pointer)

    def unregister(self, name: bytes) -> None:
        """Have *name* answered by nobody; C frees what its calls need, too."""
        if name not in self.names:  # the server has been closed meanwhile
            return
        for pointer, ref in list(self.calls.values()):
            rpc = ref()
            if rpc is None or rpc.name is None or rpc.name.encode() == name:
                self.refuse(pointer)
        if lib.evpy_rpc_unregister(self.pointer, self.http, name):
            raise errors.failed(lib.evrpc_unregister_rpc)
        self.silence(self.names.pop(name))

    def end(self, evcon: Any) -> None:
        """Answer the calls of the connection *evcon*, which is about to be freed with them."""
        server = self.server()
        if server is not None and (server._depth or in_the_middle(server.base, sys._getframe(1))):
            return  # C is at work on one, or a method: there will be another time
        for pointer, _ in list(self.calls.values()):
            http = lib.evpy_rpc_http_request(pointer)
            if lib.evhttp_request_get_connection(http) == evcon:
                self.refuse(pointer)

    def free(self, pointer: Any = None) -> None:
        """Free the server in C; a second time does nothing."""
        if self.freed:
            return
        if self.pointer is None:  # an interrupt came right after it had been made
            self.pointer = pointer
        server = self.server()
        if server is not None:
            server._lose()
        if self in self.held.guests:
            self.held.guests.remove(self)
        for name in list(self.names):
            self.unregister(name)
        if not self.freed:  # or other code has freed it in between
            self.freed = True  # no call from here to the next line: nobody interrupts
            evrpc_free(self.pointer)


class Registered:
    """A procedure that can be called: what C's key leads to."""

    __slots__ = ("handler", "name", "reply", "request", "server")

    def __init__(
        self, server: Any, name: str, request: type[Message], reply: type[Message], handler: Any
    ) -> None:
        self.server: RpcServer = server
        self.name = name
        self.request = request
        self.reply = reply
        #: None once there is to be no handler any more.
        self.handler: Handler | None = handler

    @property
    def base(self) -> Any:
        """The base of its server."""
        return self.server.base


@described(
    end="The server or pool that it belongs to.",
    name="The name that is called, or None before a handler is given it.",
    request="What the caller sends, or None before a handler is given it.",
    reply="What the handler fills in, or None before a handler is given it.",
)
class Rpc(Context, Child):
    """A call as its server sees it, from its first hook until it is answered.

    One that is dropped unanswered is answered by 503.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_http",
        "_number",
        "_paused",
        "end",
        "name",
        "reply",
        "request",
    )

    _rank = Rank.RPC

    end: RpcServer
    name: str | None
    request: Any
    reply: Any

    def __init__(self, server: RpcServer, pointer: Any) -> None:
        self.end = server
        self.request = self.reply = self.name = None
        self._asked = self._answered = self._paused = False
        self._http: weakref.ref[HookedRequest] | None = None
        self._number = number(pointer)
        super().__init__(server.base, next_key(), pointer)
        server._served.calls[self._number] = copied(pointer), weakref.ref(self)

    def _facts(self, ask: bool) -> Iterator[str]:
        if self.name is not None:
            yield f"{self.name!r}"
        if self._paused:
            yield "held up"
        elif self._answered:
            yield "answered"

    @property
    def server(self) -> RpcServer:
        """The server that it has come to."""
        return self.end

    @property
    def http_request(self) -> HookedRequest:
        """The HTTP request that it is, with its headers, until it is over."""
        self.base._check_thread()
        pointer = self.pointer
        http = None if self._http is None else self._http()
        if http is None:
            http = HookedRequest(self.base, lib.evpy_rpc_http_request(pointer), self)
            self._http = weakref.ref(http)
        return http

    @property
    def connection(self) -> HttpServerConnection | None:
        """The connection that it came by, or None when that is gone: then nobody gets the reply.

        Wraps ``evrpc_hook_get_connection``.
        """
        self.base._check_thread()
        http = self.end.http
        evcon = lib.evhttp_request_get_connection(lib.evpy_rpc_http_request(self.pointer))
        if not evcon:
            return None
        known: HttpServerConnection | None = http._connections.known.get(number(evcon))
        return HttpServerConnection(http, evcon) if known is None else known

    def _lent(self) -> list[Handle]:
        """Return the HTTP request that is still held, and what of it is."""
        http = None if self._http is None else self._http()
        return [] if http is None else [http, *http._lent()]

    def done(self) -> None:
        """Send the reply; then the call is over, unless a hook holds it up.

        Raises `ValueError` when something is missing in the reply, which is not sent then.
        Wraps ``evrpc_request_done``.
        """
        self._check_open()
        data, calls, pointer = bytes(self.reply), self.end._served.calls, self.pointer
        errors.call(lib.evpy_rpc_fill, pointer, data, len(data))

        self.end._answering[self._number] = self

        def answer() -> Any:
            self._answered = True
            if self._number in calls:  # no call from here to C's, after which it is freed
                del calls[self._number]
            return lib.evpy_rpc_answer(pointer)

        try:
            self.end._enter(answer)
        finally:
            self.end._answering.pop(self._number, None)
            if self._answered and not self._paused:
                self._over()

    def fail(self) -> None:
        """Answer by 503 that the call has failed, also where a hook holds it up."""
        if self._paused:
            self.base._check_thread()
        else:
            self._check_open()
        refuse, pointer = self.end._served.refuse, self.pointer
        if sys.getrefcount(pointer) > ALONE + 1 and self._is_in_use():  # in the middle of a method
            self._lose()
            self.base._free_later(refuse, copied(pointer))
        else:
            self.end._enter(refuse, pointer)

    def close(self) -> None:
        """Answer by 503 unless the call is answered already."""
        if self.closed:
            return
        if self.base._forked:
            super().close()
        elif (
            self._number not in self.end._served.calls
        ):  # an interrupt has kept it from being noted
            self._over()
        else:
            self.fail()

    def _check_open(self) -> None:
        self.base._check_thread()
        self._check_usable()  # what is over can't be answered
        if self._answered:
            raise RuntimeError("this RPC is answered already")
        if not self._asked:
            raise RuntimeError("no handler has been given this RPC yet")

    def _go_on(self, pointer: Any, result: RpcHookResult) -> None:
        calls, end = self.end._served.calls, self.end.pointer
        if not self._answered and result is CONTINUE:
            self.end._arriving[self._number] = self

        def resume() -> None:
            if not self._paused:  # other code has resumed it
                return
            self._paused = False
            if (self._answered or result is TERMINATE) and self._number in calls:
                del calls[self._number]  # C frees it
            self.end._let_go_on(end, pointer, result)

        try:
            self.end._enter(resume)
        finally:
            if not self._paused and (self._answered or not self._asked):
                self._over()

    def _over(self) -> None:
        """Note that C has freed it, or is about to."""
        self._lose()
        self.end._served.calls.pop(self._number, None)
        self.end._arriving.pop(self._number, None)

    def _lose(self) -> None:
        for handle in self._lent():
            handle._take()
        self.base._forget(self._key)
        self._take()

    @property
    def _free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What answers a call that is dropped."""
        return self.end._served.refuse


@described(
    http="The HTTP server.",
)
class RpcServer(End):
    """Procedures that can be called over an HTTP server; usable in ``with``, which closes it.

    It lives until it is closed, or its HTTP server is, or its base: nobody has to keep it.
    """

    __slots__ = ("_answering", "_arriving", "_served", "http")

    http: HttpServer

    def __init__(self, http: HttpServer) -> None:
        """Serve calls that come to *http*, which must not be a virtual host.

        Wraps ``evrpc_init``.
        """
        self._check_unmade()
        if not isinstance(http, HttpServer):
            raise TypeError(f"http must be an HttpServer, not {http!r}")
        base = http.base
        base._check_thread()
        base._check_usable()  # while the base closes, the HTTP server may be open still
        if http._parent is not None:
            raise ValueError("http must not be a virtual host: serve RPCs on its parent")
        self.http = http
        #: Calls that hooks have let pass, on their way to a handler.
        self._arriving: dict[int, Rpc] = {}
        #: Calls that are being answered.
        self._answering: dict[int, Rpc] = {}
        below, key = http.pointer, next_key()
        self.base = base
        self._served = Served(self, below)
        super().__init__(base, key, Making(lib.evrpc_init, below))
        pointer = self.pointer
        self._served.pointer = copied(pointer)
        http._requests.guests.append(self._served)
        base._may_call(key, self)
        for when in RpcHook:
            errors.new(lib.evpy_rpc_add_hook, pointer, when, key)
        if http.closed:  # by other code: it frees this with the rest
            self._lose()
            raise http._unusable()

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{len(self._served.calls)} calls await an answer"

    def register(
        self,
        name: str | bytes,
        request: type[Message],
        reply: type[Message],
        handler: Handler,
    ) -> None:
        """Have calls of *name*, with messages of the class *request*, handled by ``handler(rpc)``.

        It reads ``rpc.request``, fills in ``rpc.reply``, an object of the class *reply*, and calls
        ``rpc.done()``, then or later. When it raises, the call is answered by 503, unless
        `EventBase.on_error`, which gets *rpc* with what was raised, has answered it. Raises
        `ValueError` when the path ``/.rpc.NAME`` is taken, which C does not look at (R2).
        Wraps ``evrpc_register_rpc``, ``evrpc_register_generic``.
        """
        pointer = self.pointer
        self.base._check_thread()
        octets = call_name(name)
        message_class(request, "request")
        message_class(reply, "reply")
        made = Registered(self, octets.decode(), request, reply, convert.callback(handler))
        key = next_key()
        failed = lib.evpy_rpc_register(pointer, self._served.http, octets, key)
        if failed == -1:
            raise ValueError(f"name {name!r} is taken: the HTTP server has /.rpc.{made.name}")
        if failed:
            raise errors.failed(lib.evrpc_register_generic)
        self._served.names[octets] = key
        self.base._may_call(key, made)

    def unregister(self, name: str | bytes) -> None:
        """Have calls of *name* answered by 404; raises `KeyError` when there is no such.

        Those that are under way are answered by 503. Wraps ``evrpc_unregister_rpc``.
        """
        self._check_usable()  # a closed server has none
        self.base._check_thread()
        octets = call_name(name)
        made = self.base._called_by(self._served.names.get(octets))
        if made is None or made.handler is None:
            raise KeyError(name)
        made.handler = None
        self._later(self._served.unregister, octets)

    def close(self) -> None:
        """Have no procedure called any more; a second time does nothing.

        Calls that are under way are answered by 503. Wraps ``evrpc_free``.
        """
        base = self.base
        if self.closed or base._forked:
            super().close()
            return
        base._check_thread()
        self._later(self._served.free, self._lose())

    def _lose(self) -> Any:
        self.base._forget(self._key)
        for _, ref in list(self._served.calls.values()):
            if (rpc := ref()) is not None:
                rpc._lose()
        return self._take()

    @property
    def _free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the server in C."""
        return self._served.free

    def _hook(self, when: RpcHook, pointer: Any, request: Any, data: Any) -> RpcHookResult:
        """Return what the hooks make of the call whose context is *pointer*."""
        if not self._hooks[when]:
            return CONTINUE
        key, calls = number(pointer), self._served.calls
        if when is RpcHook.INPUT:
            rpc = Rpc(self, pointer)
        else:  # C has yet to free it, while the hooks are asked and where they hold it up
            rpc = self._answering[key]
            calls[key] = copied(pointer), weakref.ref(rpc)
        result = TERMINATE
        try:
            result = self._ask(when, rpc, request, data)
        finally:
            if result is TERMINATE:
                rpc._over()
            elif result is PAUSE:
                rpc._paused = True
                self.base.defer(id, rpc)  # C has yet to note it before it can be dropped
            elif when is RpcHook.INPUT:
                self._arriving[key] = rpc
            else:
                calls.pop(key, None)
        return result

    def _handle(self, made: Registered, pointer: Any) -> bool:
        """Have *made*'s handler answer the call whose context is *pointer*, or return False."""
        rpc = self._arriving.pop(number(pointer), None)
        if self.closed or made.handler is None:
            if rpc is not None:
                rpc._over()
            return False
        rpc = rpc or Rpc(self, pointer)
        rpc.name, rpc._asked = made.name, True
        try:
            try:
                rpc.request = made.request.unmarshal(octets_of(lib.evpy_rpc_request(pointer)))
            except ValueError:  # C says no more, either
                rpc.fail()
                return True
            rpc.reply = made.reply()
            made.handler(rpc)
        except BaseException as error:
            self.base._report(error, rpc)
            if not self.base._forked and not rpc.closed and not rpc._answered:
                http = lib.evpy_rpc_http_request(pointer)
                write_at_last(self.base, lib.evhttp_request_get_connection(http))
                rpc.fail()
        return True

    def _handle_late(self, made: Registered, pointer: Any) -> None:
        """Do what C does that calls back for *pointer*, once it has been let go on."""
        if not self._handle(made, pointer) and not self.base._forked:
            lib.evpy_rpc_refuse(pointer)


@from_c(late=False, raised=False)
def evpy_rpc(made: Any, pointer: Any) -> bool:
    server = made.server
    if server._late is not None:
        server._late.append(functools.partial(server._handle_late, made, pointer))
        return True
    server._depth += 1
    try:
        return bool(server._handle(made, pointer))
    finally:
        server._depth -= 1
