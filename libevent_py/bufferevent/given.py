"""Bufferevents that others use: those given to HTTP can be asked, but not used.

evhttp counts the bytes that it sends and receives, and asserts that their state is as it left it.
With a byte more in the output, or one less in the input, a peer takes one message for another. With
a timeout or a watermark that evhttp doesn't know of, it waits for ever. An `aio.Stream` owns only
the callbacks and the watermarks of its bufferevent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from libevent_py._core.handle import Handle, Role, subclass_of
from libevent_py._ffi import lib
from libevent_py.buffer.owned import BorrowedBuffer
from libevent_py.enums import BufferEventOption

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.bufferevent.bufferevent import BufferEvent

B = TypeVar("B", bound="BufferEvent")

#: What to do instead of using a bufferevent that HTTP has.
INSTEAD = (
    "it can be asked, but not used: send by HttpConnection.make_request() or "
    "HttpServerRequest.send_reply(), set HttpConnection.timeout or HttpServer.timeout, and "
    "pause(), limit and close() the connection"
)


def check_not_given(bev: BufferEvent) -> None:
    """Raise `ValueError` if *bev* belongs to HTTP, which may end the process when misled."""
    if bev._given_to is not None:
        raise ValueError(
            f"this {type(bev).__name__} belongs to {bev._given_to!r}, which owns its "
            f"callbacks and its descriptor, and closes it: {INSTEAD}"
        )


def check_may_act(bev: BufferEvent) -> None:
    """Raise `ThreadError` in another thread than the owner's, or what `check_not_given` raises."""
    bev.base._check_thread()
    check_not_given(bev)


def check_not_kept(bev: BufferEvent) -> None:
    """Raise `ValueError` if something else has the callbacks and the watermarks of *bev*."""
    if bev._kept_by is not None:
        raise ValueError(
            f"this {type(bev).__name__} belongs to a {type(bev._kept_by).__name__}, which owns its "
            "callbacks and its watermarks, and reads and writes it"
        )


def mark(bev: BufferEvent, what: int, low: int, high: int) -> None:
    """Set the watermarks of *bev*, for its user or for what it is kept by."""
    bev.base._call(lib.evpy_bufferevent_setwatermark, bev.pointer, what, low, high)
    if not bev.closed:  # by a callback
        bev._set_callbacks()


def check_givable(bev: BufferEvent) -> None:
    """Raise `ValueError` if evhttp could not use or free *bev*."""
    bev._layers.check_socket("HTTP can't use a pair, nor a bufferevent on top of another one")
    if not bev._options & BufferEventOption.CLOSE_ON_FREE:
        raise ValueError("the bufferevent must be made with CLOSE_ON_FREE")
    if bev._options & BufferEventOption.EAGER:
        raise ValueError("the bufferevent must be made without EAGER")
    if bev._limits.any:
        raise ValueError("the bufferevent must not have a rate limit")
    if any(type(buffer) is not BorrowedBuffer for buffer in bev._lent()):
        raise ValueError("the bufferevent must not have memory reserved in its output")


class GivenBuffer(BorrowedBuffer):
    """The input or the output of a bufferevent that HTTP has; read-only."""

    __slots__ = ()

    def _check_changeable(self) -> NoReturn:
        """Raise `ValueError`: HTTP counts the bytes in it."""
        raise ValueError(
            f"this Buffer belongs to {self._owner._given_to!r}, which counts its bytes: {INSTEAD}"
        )

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        """Raise `ValueError`: HTTP counts the bytes in it."""
        self._check_changeable()

    if not TYPE_CHECKING:  # for checkers they are as in any Buffer
        add = add_iovec = add_reference = add_buffer_reference = _refuse
        add_file = add_file_segment = add_buffer = prepend = prepend_buffer = _refuse
        reserve = commit = expand = defer_callbacks = _refuse
        remove = remove_into = remove_buffer = drain = readln = read = write = _refuse


class Given(Role):
    """The role of a bufferevent that HTTP has: its buffers are read-only, too.

    Its own methods refuse to act by `check_may_act`: a user's class could go past what stands here.
    """

    __slots__ = ()

    _buffer_kind = GivenBuffer


def become_given(bev: BufferEvent) -> None:
    """Make *bev* and its buffers refuse any use from now on."""
    bev.__class__ = given(type(bev))
    bev._calls_back = True  # so that its fast paths, which don't ask, are not taken
    for buffer in bev._lent():
        buffer.__class__ = GivenBuffer


def given(kind: type[B]) -> type[B]:
    """Return the subclass of *kind* whose objects are `Given`, made when first needed."""
    return subclass_of(kind, Given)


def give(bev: BufferEvent, owner: Handle) -> CData:
    """Give C's object to *owner*, whose C object will free it, and return its pointer.

    Until `taken_back` *bev* can be asked, but not used: it belongs to *owner*, which lists it in
    its `_lent`. Raises `ValueError` if evhttp could not use or free it.
    """
    pointer = bev._give_up()
    check_givable(bev)
    if bev._given_to is not None or bev._layers.above is not None:  # by other code
        bev._check_unmanaged()
    bev._given_to = owner  # no call before this
    bev._check_usable()  # other code may have closed it by now
    become_given(bev)
    lib.evpy_bufferevent_setcb(pointer, False, False, False, bev._key)
    bev._on_read = bev._on_write = bev._on_event = None
    bev.base._forget(bev._key)
    return pointer


def taken_back(bev: BufferEvent) -> None:
    """Become closed, because C has freed the object that was given to it."""
    for handle in bev._lent():
        handle._take()
    bev._take()
    bev.base._forget(bev._key)
    bev._limits.forget_group(bev._key)
