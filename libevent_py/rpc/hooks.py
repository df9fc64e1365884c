"""The common part of both ends of an RPC: hooks that see each message, and may pause it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import Octets
from libevent_py._core.described import known_as
from libevent_py._core.dispatch import from_c
from libevent_py._core.frames import (
    came_at_entry,
    frames,
    in_the_middle,
    is_ours,
    mentions,
    outside,
)
from libevent_py._core.handle import Handle, Made, without_pointer
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.callbacks import BufferCallback
from libevent_py.enums import RpcHook, RpcHookResult
from libevent_py.http.request import Request, RequestBuffer
from libevent_py.rpc.message import Message

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Result, Unpack
    from libevent_py.event.base import EventBase

#: What sees each message, as ``hook(context, request, buffer)``. The context is an `Rpc` at a
#: server, an `RpcCall` at a pool.
RpcHookCallback: TypeAlias = Callable[[Any, Request, Buffer], RpcHookResult]

Thing = TypeVar("Thing")

# Looked up once, so that nothing comes between what is noted and the call.
resume_request: Final = lib.evpy_rpc_resume_request

#: The code of what calls handlers: it is prepared for whatever they do to a call.
handling: set[CodeType] = set()

CONTINUE, TERMINATE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.TERMINATE, RpcHookResult.PAUSE


def _here(process: int, function: Callable[[Thing], object], what: Thing) -> None:
    """Call *function* with *what*, unless this is a forked child of *process*, which does so."""
    if process == os.getpid():
        function(what)


def number(pointer: CData) -> int:
    """Return the address of C's *pointer* as a number, to look it up by."""
    return int(ffi.cast("uintptr_t", pointer))


def call_name(name: str | bytes) -> bytes:
    """Return an RPC's *name* as bytes, or raise an error unless a request line can contain it."""
    octets = convert.string(name, "name")
    if not octets or any(not 0x21 <= octet <= 0x7E or octet in b"#%?" for octet in octets):
        raise ValueError(f"name must be of printable ASCII without space, #, % and ?, not {name!r}")
    return octets


def message_class(kind: object, name: str) -> None:
    """Raise `TypeError` unless *kind* is a class of messages."""
    if not isinstance(kind, type) or not issubclass(kind, Message):
        raise TypeError(f"{name} must be a subclass of Message, not {kind!r}")


def octets_of(pointer: CData) -> bytes:
    """Return the bytes in C's evbuffer *pointer*."""
    size = lib.evbuffer_get_length(pointer)
    octets = ffi.new("char[]", size)
    lib.evbuffer_copyout(pointer, octets, size)
    return bytes(ffi.buffer(octets, size))


@known_as("Buffer")
class HookedBuffer(RequestBuffer):
    """A message on its way; closed when the hook returns."""

    __slots__ = ()

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        raise ValueError("a message on its way can't be watched")


@known_as("HttpRequest")
class HookedRequest(Request):
    """The HTTP request of an RPC; it ends with the callback that got it, or with the RPC."""

    __slots__ = ("_owner",)

    def __init__(self, base: EventBase, pointer: CData, owner: Context | None = None) -> None:
        self._owner = owner  # ends this request, and so must live as long
        self._begin(base, pointer)

    def close(self) -> None:
        """Raise `ValueError`: the RPC frees it."""
        raise ValueError("the HTTP request of an RPC ends with the RPC")

    def _lend(self, pointer: CData) -> Buffer:
        buffer = HookedBuffer._borrowed(pointer, self)
        assert isinstance(buffer, HookedBuffer)
        return buffer


class Context(Handle):
    """An RPC at one end, from its first hook until it is over."""

    __slots__ = ()

    base: EventBase
    #: The server or pool that it belongs to.
    end: End
    #: Whether a hook has paused it, and it has not been resumed yet.
    _paused: bool

    @property
    def paused(self) -> bool:
        """Whether a hook has paused the RPC, and `resume` has not been called yet."""
        return self._paused

    def resume(self, result: RpcHookResult = CONTINUE) -> None:
        """Resume an RPC that a hook has paused, skipping the other hooks; or TERMINATE it.

        Raises `RuntimeError` when the RPC isn't paused: inside the hook itself, or the second time.
        Wraps ``evrpc_resume_request``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if result not in (CONTINUE, TERMINATE):
            raise ValueError(f"result must be CONTINUE or TERMINATE, not {result!r}")
        if not self._paused:
            raise RuntimeError("this RPC isn't paused: a hook must have returned PAUSE")
        if self._is_used():
            self._once_unused(self._resume_late, result)
        else:
            self._go_on(pointer, result)

    def _resume_late(self, result: RpcHookResult) -> None:
        if self._paused and not self.closed:
            self._go_on(self.pointer, result)

    def _is_used(self) -> bool:
        """Tell whether a method is using it: a signal handler, or a finalizer, has come in between.

        C frees its own part as soon as it is answered, and may do so as soon as it is resumed.
        """
        things = [self, *self._lent()]
        for frame in frames(outside(sys._getframe(1))):
            if is_ours(frame):
                if frame.f_code in handling or frame.f_code.co_name.startswith("evpy_"):
                    return False
                if any(mentions(frame, thing) for thing in things):
                    return True
        return False

    def _lent(self) -> list[Handle]:
        """Return the lent handles, which end with it."""
        return []

    def _once_unused(self, function: Callable[[Thing], object], what: Thing) -> None:
        """Call *function* with *what* at the next clean moment, in this process."""
        self.base._free_later(functools.partial(_here, os.getpid(), function), what)

    def _go_on(self, pointer: CData, result: RpcHookResult) -> None:
        end = self.end.pointer

        def resume() -> None:
            # False if other code has resumed it.
            if self._paused and not self.end._let_go_on(self, end, pointer, result):
                self._paused = True  # type: ignore[misc]  # its subclasses have the slot
                raise errors.failed(lib.evrpc_resume_request)

        self.end._enter(resume)

    def add_meta(self, key: str | bytes, data: Octets) -> None:
        """Keep *data*, at least one byte, under *key* with this RPC until it is over.

        Wraps ``evrpc_hook_add_meta``.
        """
        self.base._check_thread()
        name = convert.string(key, "key")
        view, size = convert.octets(data)
        if not size:
            raise ValueError("data must have at least one byte")
        errors.call(lib.evpy_rpc_hook_add_meta, self.pointer, name, view, size)

    def find_meta(self, key: str | bytes) -> bytes | None:
        """Return the first data that `add_meta` has kept under *key*, or None.

        Wraps ``evrpc_hook_find_meta``.
        """
        self.base._check_thread()
        data, size = ffi.new("void **"), ffi.new("size_t *")
        name, pointer = convert.string(key, "key"), self.pointer
        if lib.evrpc_hook_find_meta(pointer, name, data, size):
            return None
        return bytes(ffi.buffer(data[0], size[0]))


class End(Child):
    """A server or a pool: an end of RPCs, which has hooks."""

    __slots__ = ("_depth", "_hooks", "_late")

    _rank = Rank.RPC_END

    def __init__(self, base: EventBase, key: int, pointer: Made) -> None:
        #: How many of its callbacks, and of calls of C that may call them, are on the stack.
        self._depth = 0
        self._hooks: dict[RpcHook, tuple[RpcHookCallback, ...]] = {
            RpcHook.INPUT: (),
            RpcHook.OUTPUT: (),
        }
        #: While C resumes an RPC, the work of its callbacks, to be done afterwards; else None.
        self._late: list[Callable[[], object]] | None = None
        super().__init__(base, key, pointer)

    def add_hook(self, when: RpcHook, callback: RpcHookCallback) -> None:
        """Call ``callback(context, request, buffer)`` for each message; *when*: INPUT or OUTPUT.

        *context* is the `Rpc` or `RpcCall`, *request* the HTTP request with its headers, *buffer*
        the message, which the hook may change; the last two are closed when it returns. The hook
        returns CONTINUE, TERMINATE or PAUSE; after PAUSE, call ``context.resume()`` later. Hooks
        are called in the order in which they were added, until one doesn't return CONTINUE. If one
        raises, the RPC is terminated. Wraps ``evrpc_add_hook``.
        """
        self._check_usable()  # a closed end has no hooks
        self.base._check_thread()
        when = RpcHook(when)
        self._hooks[when] = (*self._hooks[when], convert.callback(callback))

    def remove_hook(self, when: RpcHook, callback: RpcHookCallback) -> None:
        """Remove a hook; raises `ValueError` when it was never added.

        A hook may remove itself, too. Stands for ``evrpc_remove_hook``.
        """
        self._check_usable()  # a closed end has no hooks
        self.base._check_thread()
        hooks = list(self._hooks[RpcHook(when)])
        hooks.remove(callback)
        self._hooks[RpcHook(when)] = tuple(hooks)

    def _enter(
        self, function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
    ) -> Result:
        """Enter C by *function*, which may call this end's callbacks at once."""
        base = self.base
        self._depth += 1
        try:
            return base._call(function, *arguments)
        finally:
            self._depth -= 1
            if not base._forked and not base._busy():
                base._exhume()  # perhaps no loop will ever run to do it

    def _let_go_on(
        self,
        rpc: Context,
        end: CData,
        pointer: CData,
        result: RpcHookResult,
        ends: dict[int, Any] | None = None,
    ) -> bool:
        """Resume *rpc*, whose context is *pointer*, at C's end *end*; tell if C has begun to.

        Without memory C doesn't. It is removed from *ends*, where its address is the key.

        C keeps its record of the paused RPC until it has resumed it. If a callback ended the RPC,
        or paused it again, C would find that stale record (R6). So the work of C's callbacks waits
        until the record is gone.
        """
        late: list[Callable[[], object]] = []
        key, known = number(pointer), {} if ends is None else ends
        bare = None if ends is None else without_pointer(type(rpc))
        outer, self._late = self._late, late
        try:
            # No call from here to C's, or nobody could resume it any more.
            rpc._paused = False  # type: ignore[misc]  # its subclasses have the slot
            if key in known:
                del known[key]
            if bare is not None and rpc.__class__ is not bare:  # C frees it
                del rpc.pointer
                rpc.__class__ = bare
            failed = resume_request(end, pointer, result, False)
        finally:  # even after an interrupt, or calls would never end
            self._late = outer
            try:
                self._do_late(late)
            except BaseException:  # another one
                self._do_late(late)
                raise
        if failed and failed != lib.EVPY_NOT_BEGUN:
            raise errors.failed(lib.evrpc_resume_request)
        return bool(failed != lib.EVPY_NOT_BEGUN)

    def _do_late(self, late: list[Callable[[], object]]) -> None:
        """Do what has waited for C; an interrupt must not keep that from being begun."""
        while late:
            self._depth += 1
            try:
                function = late[0]
                del late[0]  # no call from here to the next line
                function()
            except BaseException as error:
                if came_at_entry(error):
                    late.insert(0, function)
                self.base._report(error, self)
            finally:
                self._depth -= 1

    def _hook(
        self, when: RpcHook, pointer: CData, request: CData, data: CData, result: CData
    ) -> None:
        """Store the hooks' result for the RPC whose context is *pointer*."""
        raise NotImplementedError

    def _ask(self, when: RpcHook, context: Context, request: CData, data: CData) -> RpcHookResult:
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

    def _later(self, free: Callable[[Thing], object], what: Thing) -> None:
        """Free *what* by *free*, but not while one of this end's callbacks is on the stack (R6)."""
        base = self.base
        busy = self._depth or in_the_middle(base, sys._getframe(1))
        if not busy and not base._forked:
            try:
                self._enter(free, what)
            except BaseException as error:
                base._bury_again(error, free, what)
                raise
            return
        base._free_later(free, what)

    def _free_or_bury(self, free: Callable[[CData], object], pointer: CData) -> None:
        """Free this end's *pointer* by *free*, and before its base, which a callback may close."""
        base = self.base
        if base._condemned is not None:  # the base waits for this end
            base._bury(self._key, free, pointer)
            return
        base._forget(self._key)
        self._later(free, pointer)


@from_c()
def evpy_rpc_hook(
    end: End, when: int, pointer: CData, request: CData, data: CData, result: CData
) -> None:
    """Store what C is to do in *result*; if nothing is stored, C calls once more."""
    which = RpcHook(when)
    end._depth += 1
    try:
        end._hook(which, pointer, request, data, result)
    finally:
        end._depth -= 1
