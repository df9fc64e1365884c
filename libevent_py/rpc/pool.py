"""``struct evrpc_pool``: connections for calling the procedures of an RPC server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child
from libevent_py._core.described import described
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import goes_on, tells
from libevent_py._core.handle import Handle, Making, fill
from libevent_py._core.owner import askable
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import RpcHook, RpcHookResult, RpcStatus
from libevent_py.event.base import EventBase
from libevent_py.http.client import HttpConnection
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

if TYPE_CHECKING:
    from libevent_py._ffi import CData


#: What is called once a call has ended, as ``callback(call)``.
RpcCallback: TypeAlias = Callable[["RpcCall"], object]


@described(
    base="The event base whose loop makes the call.",
    end="The `RpcPool` that makes the call.",
    name="The name of the called procedure.",
    request="The message that is sent.",
    reply="The reply, once the callback is called; None before, or if *status* says why not.",
    status="How the call has ended, as an `RpcStatus`, once the callback is called; None before.",
    http_request="The HTTP request and its response, while the callback runs, or None.",
)
class RpcCall(Context):
    """A call at the client, until its callback has been called."""

    __slots__ = (
        "_callback",
        "_connection",
        "_key",
        "_paused",
        "_put_off",
        "_record",
        "_reply_class",
        "_sent",
        "_told",
        "base",
        "end",
        "http_request",
        "name",
        "reply",
        "request",
        "status",
    )

    base: EventBase
    end: RpcPool
    name: str
    request: Message
    reply: Any
    status: RpcStatus | None
    http_request: HookedRequest | None

    def __init__(
        self,
        pool: RpcPool,
        name: bytes,
        request: Message,
        reply: type[Message],
        callback: RpcCallback,
    ) -> None:
        data = bytes(request)
        self.base, self.end = pool.base, pool
        self.name, self.request, self.reply = name.decode(), request, None
        self.status = self.http_request = None
        self._reply_class, self._callback = reply, callback
        self._paused = self._told = self._put_off = False
        #: Whether the server may have received it.
        self._sent = False
        #: The address of C's connection that the call is made on, or None.
        self._connection: int | None = None
        self._key = next_key()
        make, asked = lib.evpy_call_new, (data, len(data), self._key)
        self._record = new_owned(lib.evpy_call_free, make, *asked)
        super().__init__(ffi.NULL)  # until C begins to make the call

    def _make(self, pool: CData, connections: CData) -> None:
        """Have C's *pool* make the call; a hook may be asked, and the call end, in here.

        Python gets C's context with C's return, or where a hook is asked.
        """
        begin, name = lib.evpy_rpc_make_request, self.name.encode()
        errors.handed(partial(fill, self), begin, (self._record, pool, name, connections))
        if not self._begun():
            if ffi.errno:
                raise errors.failed(lib.evrpc_make_request)
            # Other code has removed the last connection.
            raise RuntimeError("the pool has no connection: add one first")

    def _begun(self) -> bool:
        """Tell whether C has begun to make the call."""
        return bool(lib.evpy_call_begun(self._record))

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or super()._unusable()

    def _may_ask(self) -> bool:
        return askable(self.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{self.name!r}"
        if self._paused:
            yield "held up"
        if self.status is not None:
            yield self.status.name

    @property
    def pool(self) -> RpcPool:
        """The pool that makes the call. Stands for ``evrpc_request_get_pool``."""
        return self.end

    @property
    def connection(self) -> HttpConnection | None:
        """The `HttpConnection` that the call is made on, or None while it waits for one.

        Wraps ``evrpc_hook_get_connection``.
        """
        self.base._check_thread()
        pointer = lib.evrpc_hook_get_connection(self.pointer)
        return self.end._made.connections.get(number(pointer), (None,))[0]

    def close(self) -> None:
        """Raise `ValueError`: a call ends with its reply, or with its pool."""
        raise ValueError("a call can't be closed: it ends with its reply, or with its pool")

    def _go_on(self, pointer: CData, result: RpcHookResult) -> None:
        self._sent = self._sent or result is CONTINUE
        super()._go_on(pointer, result)

    @tells
    def _ended(self, status: RpcStatus, http: CData | None, data: bytes) -> None:
        """Call the user's callback, once: after an interrupt this may be called again."""
        self._paused = False
        self._take()
        if self.status is None and status is RpcStatus.NONE:
            try:
                self.reply = self._reply_class.unmarshal(data)
            except BaseException as error:
                status = RpcStatus.BADPAYLOAD
                if not isinstance(error, ValueError):
                    self.base._report(error, self)
        self.status = status if self.status is None else self.status
        if http:
            self.http_request = HookedRequest(self.base, http)
        try:
            if not self._told:
                self._told = True
                self._callback(self)
        except BaseException as error:
            self.base._report(error, self)
        finally:
            if self.http_request is not None:
                self.http_request._end()
                self.http_request = None


# Looked up once, so that nothing comes between what is noted and the call.
evrpc_pool_free: Final = lib.evrpc_pool_free


class Made:
    """What C uses of a pool: its calls by key, and its connections by the address in C."""

    __slots__ = ("calls", "connections", "count", "ending", "freed", "silence")

    def __init__(self, base: EventBase) -> None:
        #: Each is removed when C calls back; `RpcPool.close` may call its callback before that.
        self.calls: dict[int, RpcCall] = {}
        #: Those whose end C has told of: an interrupt may leave them to the end of the pool.
        self.ending: dict[int, RpcCall] = {}
        #: Each with the list that its pointer is in: see `give_back`.
        self.connections: dict[int, tuple[HttpConnection, list[CData]]] = {}
        #: How many connections C has, for C: it must not make a call without one.
        self.count: CData = ffi.new("int *")
        self.freed: bool = False
        self.silence: Callable[[int], object] = base._silencer()

    @goes_on
    def free(self, pool: CData) -> None:
        """Free the pool in C, and close its connections; by now the callbacks have been called."""
        known = list(self.connections.items())
        if not self.freed:
            pointers = ffi.new("struct evhttp_connection *[]", [here[0] for _, (_, here) in known])
            lib.evpy_rpc_pool_remove_connections(pool, pointers, self.count)
            for call in list(self.calls.values()):
                self.silence(call._key)
                context = lib.evpy_call_context(call._record)
                waits = lib.evpy_rpc_resume_request(pool, context, TERMINATE, True)
                if waits and call._connection is not None:
                    lib.evpy_call_abort(call._record)
            self.freed = True  # no call from here to the next line: nobody interrupts
            evrpc_pool_free(pool)
        for call in list(self.calls.values()):
            lib.evpy_call_let_go(call._record)
        self.calls.clear()
        for key, (connection, here) in known:
            give_back(connection, here)  # an interrupt leaves it, or its close, to the next time
            connection.close()
            self.connections.pop(key, None)


class RpcPool(End):
    """HTTP connections that calls are made on; usable in ``with``, which closes them.

    A call waits for the first idle connection. The pool stays alive while calls are under way, even
    if nothing refers to it.
    """

    __slots__ = ("_made",)

    def __init__(self, base: EventBase) -> None:
        """Make a pool whose connections are served by *base*'s loop.

        The pool has no timeout of its own: set those of its connections.
        Wraps ``evrpc_pool_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        base._check_usable()  # nothing can be made on a closed base
        self._made = Made(base)
        key = next_key()
        # C's pool gets no base: with one, it would take only connections that have none (R1).
        super().__init__(base, key, Making(lib.evpy_rpc_pool_new, key))

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{len(self._made.connections)} connections"
        yield f"{len(self._made.calls)} calls under way"

    def add_connection(self, connection: HttpConnection) -> None:
        """Add *connection*, an idle `HttpConnection` on the same base, to make calls on.

        The connection belongs to the pool, which closes it, and can't be used itself until it is
        removed: set its timeout first. Its ``retries`` don't apply to calls. When the `DnsBase`
        that it was made with is closed, so is the pool. Wraps ``evrpc_pool_add_connection``.
        """
        pool = self.pointer
        self.base._check_thread()
        if not isinstance(connection, HttpConnection):
            raise TypeError(f"connection must be an HttpConnection, not {connection!r}")
        if connection.base is not self.base:
            raise ValueError("connection must have the same base as the pool")
        here: list[CData] = []
        try:
            take_over(connection, here)
            self._give(pool, connection, here)
        except BaseException:  # perhaps an interrupt
            if here and number(here[0]) not in self._made.connections:
                give_back(connection, here)
            raise

    def _give(self, pool: CData, connection: HttpConnection, here: list[CData]) -> None:
        """Add *connection*, whose pointer has been taken and is *here*, to C's *pool*."""
        known, key = self._made.connections, number(here[0])

        def add() -> None:
            known[key] = connection, here  # no call from here to the next line
            lib.evpy_rpc_pool_add_connection(pool, here[0], self._made.count)

        self._enter(add)

    def remove_connection(self, connection: HttpConnection) -> None:
        """Remove *connection* from the pool; it can then be used by itself again.

        Raises `ValueError` when it isn't one of the pool's, `RuntimeError` while a call is under
        way on it. Wraps ``evrpc_pool_remove_connection``.
        """
        pool = self.pointer
        self.base._check_thread()
        known = self._made.connections
        found = [item for item in known.copy().items() if item[1][0] is connection]
        if not found:
            raise ValueError("connection is not one of this pool's")
        key, (_, here) = found[0]
        if any(call._connection == key for call in list(self._made.calls.values())):
            raise RuntimeError("a call is under way on this connection")
        remove, count = lib.evpy_rpc_pool_remove_connection, self._made.count
        if key not in known:
            raise ValueError("connection is not one of this pool's any more")
        del known[key]  # no call from here to the next line
        try:
            remove(pool, here[0], count)
            give_back(connection, here)
        except BaseException:  # an interrupt
            give_back(connection, here)
            raise

    @property
    def connections(self) -> list[HttpConnection]:
        """The connections that calls are made on."""
        return [connection for connection, _ in list(self._made.connections.values())]

    def call(
        self,
        name: str | bytes,
        request: Message,
        reply: type[Message],
        callback: RpcCallback,
    ) -> RpcCall:
        """Call the procedure *name* with the message *request*; then call ``callback(call)``, once.

        The call's ``status`` says how it ended; with NONE, ``reply`` is an object of the class
        *reply*. It is BADPAYLOAD for any answer that isn't such a message, and for a refused
        connection; TIMEOUT for a connection that fails. Raises `ValueError` when *request* is
        incomplete, `RuntimeError` when the pool has no connection; C would abort. Wraps
        ``evrpc_make_request_ctx``, ``evrpc_make_request``. Stands for
        ``evrpc_send_request_generic``.
        """
        self._check_usable()  # a closed pool makes no calls
        self.base._check_thread()
        octets = call_name(name)
        if not isinstance(request, Message):
            raise TypeError(f"request must be a Message, not {request!r}")
        message_class(reply, "reply")
        convert.callback(callback)
        if not self._made.connections:
            raise RuntimeError("the pool has no connection: add one first")
        call = RpcCall(self, octets, request, reply, callback)
        self._made.calls[call._key] = call
        self.base._may_call(call._key, call)
        self.base._may_call(self._key, self)
        try:
            call._check_usable()  # other code may have closed the pool, and told of the call's end
            self._enter(call._make, self.pointer, self._made.count)
        finally:
            if not call._begun():  # perhaps after an interrupt
                self._unmake(call)
        return call

    def _unmake(self, call: RpcCall) -> None:
        """Forget *call*, which C has not begun to make."""
        self._made.calls.pop(call._key, None)
        self.base._may_not_call(call._key)
        if self.closed or not self._made.calls:  # calls of a closed pool end without it
            self.base._may_not_call(self._key)
        call._take()

    def _hook(
        self, when: RpcHook, pointer: CData, request: CData, data: CData, result: CData
    ) -> None:
        """Store the hooks' result for the call whose context is *pointer*."""
        if self.closed:
            result[0] = TERMINATE
            return
        call = self._made.calls[lib.evpy_call_at_hand()]
        if when is RpcHook.OUTPUT:
            fill(call, lib.evpy_call_context(call._record))
            call._connection = number(lib.evrpc_hook_get_connection(pointer))
            connection = self._made.connections[call._connection][0]
            connection._queue.used_by_others(connection._defers)
        if self._late is not None:
            late = partial(self._hook_late, call, self.pointer, when, request, data)
            put_off = self._late.append
            result[0] = PAUSE  # to C alone: the user's hooks are asked later
            put_off(late)  # no call from the line above to here
        else:
            result[0] = TERMINATE  # what C does if a hook raises
            result[0] = self._ask_for(call, when, request, data)

    def _ask_for(self, call: RpcCall, when: RpcHook, request: CData, data: CData) -> RpcHookResult:
        result = self._ask(when, call, request, data)
        if when is RpcHook.OUTPUT:
            call._sent = result is CONTINUE
        call._paused = result is PAUSE
        return result

    def _hook_late(
        self, call: RpcCall, end: CData, when: RpcHook, request: CData, data: CData
    ) -> None:
        """Ask the hooks about *call*, which C has paused until now."""
        if self.base._called_by(call._key) is None:  # C had no memory to pause it, and has ended it
            return
        result = TERMINATE
        try:
            if not self.closed:
                result = self._ask_for(call, when, request, data)
        except BaseException as error:
            self.base._report(error, self)
        if result is PAUSE or self.base._forked:
            return
        try:
            begun = self._let_go_on(call, end, lib.evpy_call_context(call._record), result)
        except BaseException:  # an interrupt
            if context := lib.evpy_call_context(call._record):
                with contextlib.suppress(errors.LibeventError):  # C has resumed it
                    self._let_go_on(call, end, context, result)
            raise
        if not begun:
            call._paused = True  # somebody may resume it when there is memory
            raise errors.failed(lib.evrpc_resume_request)

    def _over(self, call: RpcCall, status: RpcStatus, http: CData | None, data: bytes) -> None:
        """Call the callback of *call*, which has ended, unless `close` has called it."""
        made = self._made
        if not call._told:
            if status is RpcStatus.UNSTARTED and made.calls:
                self.base.defer(self._nudge)
            self._depth += 1
            try:
                call._ended(status, http, data)
            finally:
                self._depth -= 1
        made.ending.pop(call._key, None)
        if not made.calls and not made.ending:  # else an interrupt has left some to the pool's end
            self.base._may_not_call(self._key)

    def _over_late(self, call: RpcCall, status: RpcStatus, http: CData | None, data: bytes) -> None:
        """Do as `_over` does, and free the HTTP request."""
        try:
            self._over(call, status, http, data)
        except BaseException:  # an interrupt
            self._over(call, status, http, data)
            raise
        finally:
            if http:
                lib.evhttp_request_free(http)

    def _nudge(self) -> None:
        """Make evrpc send a waiting call, which it fails to do after one that could not be sent."""
        calls = list(self._made.calls.values())
        if self.closed or all(call._connection is not None for call in calls):
            return
        self._enter(self._add_again, self.pointer)

    def _add_again(self, pool: CData) -> None:
        """Remove the first connection from C's *pool*, and add it again."""
        known, add, count = self._made.connections, lib.evpy_rpc_pool_add_again, self._made.count
        for key in list(known):
            if key in known:  # other code may have removed it
                add(pool, known[key][1][0], count)
                return

    def close(self) -> None:
        """End all calls, and close the connections; a second time does nothing.

        Unlike in C, the callbacks of calls under way are called: with TIMEOUT for calls that may
        have reached the server, UNSTARTED for the others. Wraps ``evrpc_pool_free``.
        """
        base = self.base
        if self.closed or base._forked:
            super().close()
            return
        base._check_thread()
        taken: list[CData] = []
        with base._telling():
            try:
                self._take_into(taken)
                if taken:  # else other code has closed it in between
                    self._tell_calls()
                    base._may_not_call(self._key)
                    self._free_or_bury(self._made.free, taken[0])
            except BaseException:  # an interrupt; or what callbacks have raised, as all is freed
                if taken:
                    self._tell_calls()
                    base._bury(self._key, self._free, taken[0])
                raise

    def _tell_calls(self) -> None:
        """Tell all calls of their end; a second time goes on where the first was interrupted."""
        calls = [*self._made.calls.values(), *self._made.ending.values()]
        for call in calls:
            call._take()
        for call in calls:
            if not call._told and not self.base._forked:  # a callback may have forked
                call._ended(RpcStatus.TIMEOUT if call._sent else RpcStatus.UNSTARTED, None, b"")

    def _do_without(self, other: Child) -> None:
        """Close if *other*, which is about to be closed, is a connection's DnsBase (L3)."""
        if any(connection._resolver is other for connection in self.connections):
            self.close()

    def _lent(self) -> list[Handle]:
        """Return the calls under way, and what the connections have lent."""
        connections = self._made.connections.values()
        lent = [handle for connection, _ in connections for handle in connection._lent()]
        return [*self._made.calls.values(), *lent]

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the pool in C once no callback is on the stack (R6)."""
        return partial(self.base._free_when_clean, self._made.free)


def take_over(connection: HttpConnection, here: list[CData]) -> None:
    """Move the pointer of *connection* to *here*: it can't be used until `give_back`."""
    connection._check_usable()
    if len(connection._queue):
        raise ValueError("connection must have no request under way")
    connection._take_into(here)
    if not here:  # other code has closed it since
        raise connection._unusable()
    connection.base._forget(connection._key)


def give_back(connection: HttpConnection, here: list[CData]) -> None:
    """Undo `take_over`; a second time does nothing, so it may follow an interrupt."""
    base = connection.base
    if here:
        base._know(connection)
        base._put_back_from(connection, here)  # a callback may have forked meanwhile


@from_c(late=1, raised=0)
def evpy_rpc_done(call: RpcCall, status: int, http: CData, reply: CData) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    pool, key = call.end, call._key
    made = pool._made
    made.ending[key] = call
    if key in made.calls:
        del made.calls[key]
    ended = call, RpcStatus(status), http, octets_of(reply)
    if pool._late is None:
        pool._over(*ended)
    elif not call._put_off:
        if http:  # the call was paused, so C would free the request now
            http.flags &= ~lib.EVHTTP_USER_OWNED
        call._take()  # C frees it, too, before the callback is called
        late, put_off = partial(pool._over_late, *ended), pool._late.append
        call._put_off = True  # no call from here to the next line
        put_off(late)
    call.base._may_not_call(key)
    return 1
