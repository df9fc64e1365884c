"""``struct evrpc_base``: procedures that can be called over HTTP.

A call is an HTTP request, POST to ``/.rpc.NAME``, with a message as its body; the reply's body is a
message, too. If anything goes wrong (an incomplete message, a hook that terminates the call, a
handler that raises), the call is answered with 503.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.described import described
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import goes_on, in_the_middle
from libevent_py._core.handle import Handle, Making, without_pointer
from libevent_py._core.pointers import ALONE, copied
from libevent_py._ffi import lib
from libevent_py.enums import RpcHook, RpcHookResult
from libevent_py.http.at_last import write_at_last
from libevent_py.http.receiving import Requests
from libevent_py.http.server import HttpServer
from libevent_py.http.server_connection import HttpServerConnection
from libevent_py.rpc.hooks import (
    CONTINUE,
    PAUSE,
    TERMINATE,
    Context,
    End,
    HookedRequest,
    call_name,
    handling,
    message_class,
    number,
    octets_of,
)
from libevent_py.rpc.message import Message

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase

evrpc_free: Final = lib.evrpc_free
evpy_rpc_end: Final = lib.evpy_rpc_end

#: Where an object for a call is noted to answer it: C's ``int *``, or a list.
Taken: TypeAlias = "CData | list[int]"

#: A handler of calls: ``handler(rpc)`` fills in ``rpc.reply`` and calls ``rpc.done()``.
RpcHandler: TypeAlias = Callable[["Rpc"], object]


class Served:
    """What C uses of a server: the names of its procedures, and its unanswered calls."""

    __slots__ = ("calls", "freed", "held", "http", "names", "pointer", "server", "silence")

    def __init__(self, server: RpcServer, below: CData) -> None:
        #: A copy: references to the server's own show who uses it. None until C has made it.
        self.pointer: CData | None = None
        self.freed: bool = False
        self.server: weakref.ReferenceType[RpcServer] = weakref.ref(server)
        self.http: CData = copied(below)
        self.held: Requests = server.http._requests
        self.silence: Callable[[int], object] = server.http.base._silencer()
        #: The keys of the procedures, by name.
        self.names: dict[bytes, int] = {}
        #: The calls by their addresses in C; each is removed when C is told to answer it.
        self.calls: dict[int, tuple[CData, weakref.ref[Rpc]]] = {}

    def requests(self) -> list[CData]:
        """Return C's HTTP requests of the unanswered calls."""
        return [lib.evpy_rpc_http_request(pointer) for pointer, _ in list(self.calls.values())]

    def refuse(self, pointer: CData) -> None:
        """Answer a call with 503, even if a hook has paused it."""
        try:
            self._refuse(pointer)
        except BaseException:  # an interrupt; later, another call may have that address
            self._refuse(pointer)
            raise

    def _refuse(self, pointer: CData) -> None:
        key = number(pointer)
        _, ref = self.calls.get(key, (None, None))
        if ref is None:
            return
        rpc = ref()
        if rpc is not None:
            rpc._lose()
        if key in self.calls:  # other code may have refused it in between
            del self.calls[key]  # no call from here to the next line: nobody interrupts
            evpy_rpc_end(self.pointer, pointer)

    def unregister(self, name: bytes) -> None:
        """Remove the procedure *name*, and refuse its calls: C frees what they need."""
        if name not in self.names:  # the server has been closed meanwhile
            return
        for pointer, ref in list(self.calls.values()):
            rpc = ref()
            if rpc is None or rpc.name is None or rpc.name.encode() == name:
                self.refuse(pointer)
        # Once more after an interrupt, it does nothing.
        if lib.evpy_rpc_unregister(self.pointer, self.http, name):
            raise errors.failed(lib.evrpc_unregister_rpc)
        self.silence(self.names.pop(name, 0))

    def end(self, evcon: CData) -> None:
        """Answer the calls of the connection *evcon*, which is about to be freed with them."""
        server = self.server()
        if server is not None and (server._depth or in_the_middle(server.base, sys._getframe(1))):
            return  # C or a method is using a call; this is tried again later
        for pointer, _ in list(self.calls.values()):
            http = lib.evpy_rpc_http_request(pointer)
            if lib.evhttp_request_get_connection(http) == evcon:
                self.refuse(pointer)

    @goes_on
    def free(self, pointer: CData | None = None) -> None:
        """Free the server in C; a second time does nothing."""
        if self.pointer is None:  # an interrupt came right after C had made it
            self.pointer = pointer
        server = self.server()
        if server is not None:
            server._lose()
        for name in list(self.names):
            self.unregister(name)
        if not self.freed:  # other code may have freed it in between
            self.freed = True  # no call from here to the next line: nobody interrupts
            evrpc_free(self.pointer)
        # Comes last: the HTTP server below must not be freed before it.
        if self in self.held.guests:
            self.held.guests.remove(self)


class Registered:
    """A registered procedure, which C calls by its key."""

    __slots__ = ("handler", "name", "reply", "request", "server")

    def __init__(
        self,
        server: RpcServer,
        name: str,
        request: type[Message],
        reply: type[Message],
        handler: RpcHandler,
    ) -> None:
        self.server: RpcServer = server
        self.name: str = name
        self.request: type[Message] = request
        self.reply: type[Message] = reply
        #: None once the procedure is unregistered.
        self.handler: RpcHandler | None = handler

    @property
    def base(self) -> EventBase:
        """The base of its server."""
        return self.server.base


@described(
    end="The server that has received the call.",
    name="The name of the called procedure; None before the handler gets the call.",
    request="The caller's message; None before the handler gets the call.",
    reply="The message for the handler to fill in; None before the handler gets the call.",
)
class Rpc(Context, Child):
    """A call at its server, from its first hook until it is answered.

    If you drop a call without answering it, the caller gets 503.
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

    def __init__(self) -> None:
        """Raise `TypeError`: only an `RpcServer` makes these."""
        raise TypeError("an RpcServer makes its calls, and calls a handler with each")

    @classmethod
    def _of(cls, server: RpcServer, pointer: CData) -> Rpc:
        """Return a new object for the call with C's context *pointer*, which *server* received.

        It answers the call, when it is dropped, as soon as it is among the server's calls.
        """
        rpc = cls.__new__(cls)
        rpc._begin(server, pointer)
        return rpc

    def _begin(self, server: RpcServer, pointer: CData) -> None:
        self.end = server
        self.request = self.reply = self.name = None
        self._asked = self._answered = self._paused = False
        self._http: weakref.ref[HookedRequest] | None = None
        self._number = number(pointer)
        super().__init__(server.base, next_key(), pointer)

    def _facts(self, ask: bool) -> Iterator[str]:
        if self.name is not None:
            yield f"{self.name!r}"
        if self._paused:
            yield "held up"
        elif self._answered:
            yield "answered"

    @property
    def server(self) -> RpcServer:
        """The server that has received the call."""
        return self.end

    @property
    def http_request(self) -> HookedRequest:
        """The HTTP request of the call, with its headers, until the call is over."""
        self.base._check_thread()
        lent, pointer = self._http, self.pointer  # last, as it raises if the call is over
        http = None if lent is None else lent()
        if http is None:
            made = HookedRequest(self.base, lib.evpy_rpc_http_request(pointer), self)
            ref = weakref.ref(made)
            if self._http is not lent:  # other code has made one meanwhile
                made._take()
                return self.http_request
            self._http = ref
            self._check_usable()
            return made
        return http

    @property
    def connection(self) -> HttpServerConnection | None:
        """The connection that carried the call; None when it has ended, so nobody gets the reply.

        Wraps ``evrpc_hook_get_connection``.
        """
        self.base._check_thread()
        http, pointer = self.end.http, self.pointer
        evcon = lib.evhttp_request_get_connection(lib.evpy_rpc_http_request(pointer))
        if not evcon:
            return None
        connection = http._connections.at(http, evcon)
        self._check_usable()  # other code may have ended the call since
        return connection

    def _lent(self) -> list[Handle]:
        """Return the HTTP request and its buffers, as far as they still exist."""
        http = None if self._http is None else self._http()
        return [] if http is None else [http, *http._lent()]

    def done(self) -> None:
        """Send the reply; then the call is over, unless a hook pauses it.

        Raises `ValueError`, and sends nothing, when a field is missing in the reply.
        Wraps ``evrpc_request_done``.
        """
        self._check_open()
        reply = self.reply
        if reply is None:  # a signal handler has come while it was being resumed
            raise RuntimeError("this RPC has not been given to its handler yet")
        data = bytes(reply)
        if self._is_used():
            self._check_open()  # the message's own code may have answered it
            self._answered = True
            self._once_unused(self._answer_late, data)
        else:
            self._answer(data)

    def _answer_late(self, data: bytes) -> None:
        if not self.closed:
            self._answered = False
            self._answer(data)

    def _answer(self, data: bytes) -> None:
        self._check_open()
        calls, pointer, bare = self.end._served.calls, self.pointer, without_pointer(type(self))
        errors.call(lib.evpy_rpc_fill, pointer, data, len(data))

        self.end._answering[self._number] = self
        begun = False

        def answer() -> None:
            nonlocal begun
            self._check_open()  # as other code may have answered it
            self.pointer  # noqa: B018  (hot: no call from here to C's, which frees it)
            if self._answered:
                raise RuntimeError("this RPC is answered already")
            self._answered = begun = True
            if self._number in calls:
                del calls[self._number]
            del self.pointer  # what `_take` does; `_hook` puts it back for the hooks
            self.__class__ = bare
            lib.evpy_rpc_answer(pointer)

        try:
            self.end._enter(answer)
        finally:
            self.end._answering.pop(self._number, None)
            if begun and not self._paused:
                self._over()

    def fail(self) -> None:
        """Answer with 503 that the call has failed, even if a hook has paused it.

        Wraps ``evrpc_request_done``.
        """
        if self._paused:
            self.base._check_thread()
        else:
            self._check_open()
        self._fail(self.pointer)

    def _fail(self, pointer: CData) -> None:
        """Answer that it has failed, unless other code has answered it."""
        refuse = self.end._served.refuse
        if sys.getrefcount(pointer) > ALONE + 1 and self._is_in_use():  # a method is using it
            later = self.base._notes_once_clean(refuse, copied(pointer))
            if not self.base._forked:
                self.base._wake()  # first: an interrupt must not keep the loop from what is noted
            try:
                self._lose()
            finally:
                later()
        else:
            self.end._enter(refuse, pointer)

    def _fail_at_last(self) -> None:
        """Answer that it has failed, even if the loop ends before that is written."""
        try:
            pointer = self.pointer
        except errors.ClosedError:  # other code has answered it meanwhile
            return
        http = lib.evpy_rpc_http_request(pointer)
        write_at_last(self.base, lib.evhttp_request_get_connection(http))
        if not self._answered:  # as above
            self._fail(pointer)

    def close(self) -> None:
        """Answer with 503, unless the call has been answered."""
        if self.closed:
            return
        if self.base._forked:
            super().close()
        elif self._number not in self.end._served.calls:  # an interrupt came before it was noted
            self._over()
        else:
            self.fail()

    def _check_open(self) -> None:
        self.base._check_thread()
        self._check_usable()  # a call that is over can't be answered
        if self._answered:
            raise RuntimeError("this RPC is answered already")
        if not self._asked:
            raise RuntimeError("this RPC can't be answered before its handler is called")

    def _go_on(self, pointer: CData, result: RpcHookResult) -> None:
        calls, end = self.end._served.calls, self.end.pointer
        if not self._answered and result is CONTINUE:
            self.end._arriving[self._number] = self

        def resume() -> None:
            if not self._paused:  # other code has resumed it
                return
            ends = calls if self._answered or result is TERMINATE else None  # C frees the call
            known = calls.get(self._number)
            if not self.end._let_go_on(self, end, pointer, result, ends):
                if ends is not None:
                    self._put(pointer)
                self._paused = True
                if known is not None:
                    calls[self._number] = known
                raise errors.failed(lib.evrpc_resume_request)

        try:
            self.end._enter(resume)
        finally:
            if not self._paused and (self._answered or not self._asked):
                self._over()

    def _over(self) -> None:
        """Note that C has freed it, or is about to."""
        self._paused = False
        self._lose()
        self.end._served.calls.pop(self._number, None)
        self.end._arriving.pop(self._number, None)

    def _lose(self) -> None:
        for handle in self._lent():
            handle._take()
        self._take()  # first: the base must know everything that has a pointer
        self.base._forget(self._key)

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that answers a dropped call."""
        return self.end._served.refuse


@described(
    http="The HTTP server.",
)
class RpcServer(End):
    """Procedures that can be called over an HTTP server; usable in ``with``, which closes it.

    It stays alive until it, its HTTP server or its base is closed, even if nothing refers to it.
    """

    __slots__ = ("_answering", "_arriving", "_served", "http")

    http: HttpServer

    def __init__(self, http: HttpServer) -> None:
        """Serve calls to the HTTP server *http*, which must not be a virtual host.

        Wraps ``evrpc_init``.
        """
        self._check_unmade()
        if not isinstance(http, HttpServer):
            raise TypeError(f"http must be an HttpServer, not {http!r}")
        base = http.base
        base._check_thread()
        base._check_usable()  # while the base is closing, its HTTP server may still be open
        if http._parent is not None:
            raise ValueError("http must not be a virtual host: serve RPCs on its parent")
        self.http = http
        #: Calls that have passed their hooks, on their way to a handler.
        self._arriving: dict[int, Rpc] = {}
        #: Calls that are being answered.
        self._answering: dict[int, Rpc] = {}
        below, key = http.pointer, next_key()
        self.base = base
        self._served = Served(self, below)
        super().__init__(base, key, Making(lib.evrpc_init, below))
        try:
            pointer = self.pointer
            self._served.pointer = copied(pointer)
            http._requests.guests.append(self._served)
            base._may_call(key, self)
            for when in RpcHook:
                errors.new(lib.evpy_rpc_add_hook, pointer, when, key)
            if http.closed:  # by other code, which frees this server with it
                self._lose()
                raise http._unusable()
        except BaseException:
            self._unmade()
            raise

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{len(self._served.calls)} calls await an answer"

    def register(
        self,
        name: str | bytes,
        request: type[Message],
        reply: type[Message],
        handler: RpcHandler,
    ) -> None:
        """Call ``handler(rpc)`` for calls of *name* with messages of the class *request*.

        The handler reads ``rpc.request``, fills in ``rpc.reply``, an object of the class *reply*,
        and calls ``rpc.done()``, at once or later. When it raises, the call is answered with 503,
        unless `EventBase.on_error`, which gets the exception and *rpc*, has answered it. Raises
        `ValueError` when the path ``/.rpc.NAME`` is taken, which C does not check. Wraps
        ``evrpc_register_generic``. Stands for ``evrpc_register_rpc``.
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
        """Answer calls of *name* with 404 from now on; raises `KeyError` for an unknown name.

        Calls under way are answered with 503. Wraps ``evrpc_unregister_rpc``.
        """
        self._check_usable()  # a closed server has none
        self.base._check_thread()
        octets = call_name(name)
        made = self.base._called_by(self._served.names.get(octets, 0))  # nobody's key
        if made is None or made.handler is None:
            raise KeyError(name)
        handler, made.handler = made.handler, None
        try:
            self._later(self._served.unregister, octets)
        except MemoryError:
            made.handler = handler
            raise

    def close(self) -> None:
        """Unregister all procedures, and free the server; a second time does nothing.

        Calls under way are answered with 503. Wraps ``evrpc_free``.
        """
        base = self.base
        if self.closed or base._forked:
            super().close()
            return
        base._check_thread()
        served = self._served
        if served.pointer is None:  # an interrupt came right after C had made it
            served.pointer = copied(self.pointer)
        later = base._notes_once_clean(served.free, None)
        try:
            self._lose()
            self._later(served.free, None)
        except BaseException:  # an interrupt; or for lack of memory
            base._forget(self._key)
            later()  # implemented in C, and a second time does nothing
            raise

    def _lose(self) -> None:
        for _, ref in list(self._served.calls.values()):
            if (rpc := ref()) is not None:
                rpc._lose()
        self._take()  # first: the base must know everything that has a pointer
        self.base._forget(self._key)

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the server in C."""
        return self._served.free

    def _hook(
        self, when: RpcHook, pointer: CData, request: CData, data: CData, result: CData
    ) -> None:
        """Store the hooks' result for the call whose context is *pointer*."""
        result[0] = TERMINATE  # what C does if this raises
        if not self._hooks[when]:
            result[0] = CONTINUE
            return
        key, calls = number(pointer), self._served.calls
        try:
            # An answered call is freed by C after the hooks, or later if they pause it.
            if when is RpcHook.INPUT:
                rpc = Rpc._of(self, pointer)
            else:
                rpc = self._answering[key]
                rpc._put(pointer)  # as long as the hooks are asked
            calls[key] = copied(pointer), weakref.ref(rpc)
            verdict = self._ask(when, rpc, request, data)
            if verdict is TERMINATE:
                rpc._over()
            elif verdict is PAUSE:
                self.base.defer(id, rpc)  # keeps it alive until C has recorded the pause
                rpc._paused = True  # no call from here on: C must learn of what is noted here
            elif when is RpcHook.INPUT:
                self._arriving[key] = rpc
            elif key in calls:
                del calls[key]
                rpc._lose()
            result[0] = verdict
        except BaseException:  # C terminates the call, and frees it
            known = calls[key][1]() if key in calls else None
            if known is not None:
                known._over()
            raise

    def _handle(self, made: Registered, pointer: CData, taken: Taken) -> None:
        """Call *made*'s handler for the call with the context *pointer*; set *taken*, or C answers.

        Once more after an interrupt, it calls the handler if the first time didn't come to that.
        """
        key, arriving, calls = number(pointer), self._arriving, self._served.calls
        rpc = arriving.get(key)
        if self.closed or made.handler is None:
            if rpc is not None:
                rpc._over()
            return
        known = rpc is not None
        rpc = Rpc._of(self, pointer) if rpc is None else rpc
        entry = copied(pointer), weakref.ref(rpc)
        if not known:  # no call from here to the try
            calls[key] = entry
        elif key in arriving:
            del arriving[key]
        taken[0] = 1
        try:
            rpc.name, rpc._asked = made.name, True
            try:
                rpc.request = made.request.unmarshal(octets_of(lib.evpy_rpc_request(pointer)))
            except ValueError:  # C answers 503 without a reason, too
                rpc.fail()
                return
            rpc.reply = made.reply()
            made.handler(rpc)
        except BaseException as error:
            try:
                self.base._report(error, rpc)
                if not self.base._forked and not rpc.closed and not rpc._answered:
                    rpc._fail_at_last()
            except BaseException:  # an interrupt
                rpc.close()
                raise

    def _handle_late(self, made: Registered, pointer: CData) -> None:
        """Call the handler for *pointer* after C has resumed it."""
        taken = [0]
        try:
            self._handle(made, pointer, taken)
        except BaseException:  # an interrupt
            if not taken[0]:
                self._handle(made, pointer, taken)
            raise
        finally:
            if not taken[0] and not self.base._forked:
                lib.evpy_rpc_refuse(pointer)


handling.add(RpcServer._handle.__code__)


@from_c()
def evpy_rpc(made: Registered, pointer: CData, taken: CData) -> None:
    """Handle the call; set *taken*, or C calls once more, and then answers it."""
    server = made.server
    if server._late is not None:
        late, put_off = functools.partial(server._handle_late, made, pointer), server._late.append
        taken[0] = 1  # no call from here to the next line
        put_off(late)
        return
    server._depth += 1
    try:
        server._handle(made, pointer, taken)
    finally:
        server._depth -= 1
