"""What both ends of an RPC have in common: hooks that see each message, and may hold it up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import known_as
from libevent_py._core.dispatch import from_c
from libevent_py._core.frames import in_the_middle
from libevent_py._core.handle import Handle
from libevent_py._core.owner import Child, Rank
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.callbacks import BufferCallback
from libevent_py.enums import RpcHook, RpcHookResult
from libevent_py.http.request import Request, RequestBuffer
from libevent_py.rpc.message import Message

#: ``hook(context, request, buffer)``, with the `Rpc` or `RpcCall`, its HTTP request, its message.
Hook = Callable[[Any, Any, Any], RpcHookResult]

CONTINUE, TERMINATE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.TERMINATE, RpcHookResult.PAUSE


def number(pointer: Any) -> int:
    """Return the address that *pointer* has, as what to look it up by."""
    return int(ffi.cast("uintptr_t", pointer))


def call_name(name: str | bytes) -> bytes:
    """Return an RPC's *name* as C takes it, and a request line can have it."""
    octets = convert.string(name, "name")
    if not octets or any(not 0x21 <= octet <= 0x7E or octet in b"#%?" for octet in octets):
        raise ValueError(f"name must be of printable ASCII without space, #, % and ?, not {name!r}")
    return octets


def message_class(kind: Any, name: str) -> None:
    """Raise `TypeError` unless *kind* is a class of messages."""
    if not isinstance(kind, type) or not issubclass(kind, Message):
        raise TypeError(f"{name} must be a subclass of Message, not {kind!r}")


def octets_of(pointer: Any) -> bytes:
    """Return what is in C's evbuffer."""
    size = lib.evbuffer_get_length(pointer)
    octets = ffi.new("char[]", size)
    lib.evbuffer_copyout(pointer, octets, size)
    return bytes(ffi.buffer(octets, size))


@known_as("Buffer")
class HookedBuffer(RequestBuffer):
    """A message on its way, as long as a hook looks at it."""

    __slots__ = ()

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        raise ValueError("a message on its way can't be watched")


@known_as("HttpRequest")
class HookedRequest(Request):
    """The HTTP request that an RPC is, for as long as a callback has it, or the RPC goes on."""

    __slots__ = ("_owner",)

    def __init__(self, base: Any, pointer: Any, owner: Any = None) -> None:
        self._owner = owner  # who ends it, and so must live as long
        self._begin(base, pointer)

    def close(self) -> None:
        """Raise `ValueError`: the RPC frees it."""
        raise ValueError("the HTTP request of an RPC ends with the RPC")

    def _lend(self, pointer: Any) -> RequestBuffer:
        buffer = HookedBuffer._borrowed(pointer, self)
        assert isinstance(buffer, HookedBuffer)
        return buffer


class Context(Handle):
    """An RPC at one end, from its first hook until it is over."""

    __slots__ = ()

    base: Any
    #: The server or pool that it belongs to.
    end: Any
    #: Whether a hook has held it up, and nobody has let it go on yet.
    _paused: bool

    @property
    def paused(self) -> bool:
        """Whether a hook has held the RPC up, and nobody has called `resume` yet."""
        return self._paused

    def resume(self, result: RpcHookResult = CONTINUE) -> None:
        """Let an RPC that a hook has held up go on, past the rest of the hooks, or TERMINATE it.

        Raises `RuntimeError` when it isn't held up: inside the hook itself, or a second time (R6).
        Wraps ``evrpc_resume_request``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if result not in (CONTINUE, TERMINATE):
            raise ValueError(f"result must be CONTINUE or TERMINATE, not {result!r}")
        if not self._paused:
            raise RuntimeError("no hook holds this RPC up, or none has returned PAUSE yet")
        self._go_on(pointer, result)

    def _go_on(self, pointer: Any, result: RpcHookResult) -> None:
        end = self.end.pointer

        def resume() -> None:
            if self._paused:  # else other code has resumed it
                self._paused = False  # type: ignore[misc]  # its subclasses have the slot
                self.end._let_go_on(end, pointer, result)  # no call from there to here

        self.end._enter(resume)

    def add_meta(self, key: str | bytes, data: Any) -> None:
        """Keep *data*, bytes of which there must be some, as *key* with this RPC until it is over.

        Wraps ``evrpc_hook_add_meta``.
        """
        self.base._check_thread()
        name = convert.string(key, "key")
        view, size = convert.octets(data)
        if not size:
            raise ValueError("data must have at least one byte")
        errors.call(lib.evpy_rpc_hook_add_meta, self.pointer, name, view, size)

    def find_meta(self, key: str | bytes) -> bytes | None:
        """Return what `add_meta` has kept as *key*, the first of them, or None.

        Wraps ``evrpc_hook_find_meta``.
        """
        self.base._check_thread()
        data, size = ffi.new("void **"), ffi.new("size_t *")
        name = convert.string(key, "key")
        if lib.evrpc_hook_find_meta(self.pointer, name, data, size):
            return None
        return bytes(ffi.buffer(data[0], size[0]))


class End(Child):
    """A server or a pool: what has hooks."""

    __slots__ = ("_depth", "_hooks", "_late")

    _rank = Rank.RPC_END

    def __init__(self, base: Any, key: int, pointer: Any) -> None:
        #: How many of its callbacks, and of calls that may call them, are under way.
        self._depth = 0
        self._hooks: dict[RpcHook, tuple[Hook, ...]] = {RpcHook.INPUT: (), RpcHook.OUTPUT: ()}
        #: While C lets an RPC go on, what it has called back, to be done afterwards; else None.
        self._late: list[Callable[[], object]] | None = None
        super().__init__(base, key, pointer)

    def add_hook(self, when: RpcHook, callback: Hook) -> None:
        """Have ``callback(context, request, buffer)`` look at each message: INPUT or OUTPUT.

        *context* is the `Rpc` or `RpcCall`, *request* the HTTP request with its headers, *buffer*
        the message, which the hook may change; the last two are there until it returns. It returns
        CONTINUE, TERMINATE, or PAUSE, after which somebody calls ``context.resume()``. Hooks are
        called in the order in which they came, until one doesn't CONTINUE. One that raises
        TERMINATEs the RPC. Wraps ``evrpc_add_hook``.
        """
        self._check_usable()  # a closed end has no hooks
        self.base._check_thread()
        when = RpcHook(when)
        self._hooks[when] = (*self._hooks[when], convert.callback(callback))

    def remove_hook(self, when: RpcHook, callback: Hook) -> None:
        """Take back a hook; raises `ValueError` when there is no such.

        A hook may take itself back, too. Wraps ``evrpc_remove_hook``.
        """
        self._check_usable()  # a closed end has no hooks
        self.base._check_thread()
        hooks = list(self._hooks[RpcHook(when)])
        hooks.remove(callback)
        self._hooks[RpcHook(when)] = tuple(hooks)

    def _enter(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C by *function*, where it may call this end's callbacks at once."""
        base = self.base
        self._depth += 1
        try:
            return base._call(function, *arguments)
        finally:
            self._depth -= 1
            if not base._forked and not base._busy():
                base._exhume()  # no loop may ever run that would

    def _let_go_on(self, end: Any, pointer: Any, result: RpcHookResult) -> None:
        """Have C, whose end is *end*, let go on the RPC whose context is *pointer*.

        C keeps its note that the RPC is held up until it has gone on. Whoever meanwhile ends it,
        or holds it up again, would have C find that note, though the RPC is freed or further on
        (R6). So what C calls back waits until the note is gone.
        """
        late: list[Callable[[], object]] = []
        outer, self._late = self._late, late
        try:
            failed = lib.evpy_rpc_resume_request(end, pointer, result)
        finally:
            self._late = outer
        for function in late:
            self._depth += 1
            try:
                function()
            except BaseException as error:
                self.base._report(error, self)
            finally:
                self._depth -= 1
        if failed:
            raise errors.failed(lib.evrpc_resume_request)

    def _hook(self, when: RpcHook, pointer: Any, request: Any, data: Any) -> RpcHookResult:
        """Return what the hooks make of the RPC whose context is *pointer*."""
        raise NotImplementedError

    def _ask(self, when: RpcHook, context: Any, request: Any, data: Any) -> RpcHookResult:
        hooks = self._hooks[when]
        if not hooks:
            return CONTINUE
        http = HookedRequest(self.base, request)
        buffer = http._lend(data)
        try:
            for hook in hooks:
                result = hook(context, http, buffer)
                if not isinstance(result, RpcHookResult):
                    raise TypeError(f"a hook must return an RpcHookResult, not {result!r}")
                if self.closed:
                    return TERMINATE
                if result is not CONTINUE:
                    return result
            return CONTINUE
        finally:
            buffer._take()
            http._end()

    def _later(self, free: Callable[[Any], object], what: Any) -> None:
        """Have *free* free *what*, but not below one of this end's own callbacks (R6)."""
        base = self.base
        busy = self._depth or in_the_middle(base, sys._getframe(1))
        if not busy and not base._forked:
            self._enter(free, what)
            return
        base._free_later(free, what)

    def _free_or_bury(self, free: Callable[[Any], object], pointer: Any) -> None:
        """Have *free* free this end's *pointer*, before its base, which who was told may close."""
        base = self.base
        if base._condemned is not None:  # it waits for this end
            base._bury(self._key, free, pointer)
            return
        base._forget(self._key)
        self._later(free, pointer)


@from_c(late=TERMINATE, raised=TERMINATE)
def evpy_rpc_hook(end: Any, when: int, pointer: Any, request: Any, data: Any) -> int:
    end._depth += 1
    try:
        return int(end._hook(RpcHook(when), pointer, request, data))
    finally:
        end._depth -= 1
