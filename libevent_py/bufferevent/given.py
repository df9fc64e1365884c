"""What a bufferevent is once HTTP has it: something to ask, not to use.

evhttp counts the bytes that it sends and receives, and asserts what state it has left them in. A
byte more in the output, or one less in the input, and a peer takes one message for another; a
timeout or a watermark that evhttp doesn't know of, and it waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from libevent_py.buffer.owned import BorrowedBuffer
from libevent_py.bufferevent.stream import INSTEAD

#: What comes before a user's class must not have slots of its own: its objects become `Given`.
if TYPE_CHECKING:
    from libevent_py.bufferevent.layers import Layered as Mixin
else:
    Mixin = object


class GivenBuffer(BorrowedBuffer):
    """The input or the output of a bufferevent that HTTP has, which can only be looked at."""

    __slots__ = ()

    def _check_changeable(self) -> NoReturn:
        """Raise `ValueError`: HTTP counts the bytes in it."""
        raise ValueError(
            f"this Buffer belongs to {self._owner._given_to!r}, which counts its bytes: {INSTEAD}"
        )

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Raise `ValueError`: HTTP counts the bytes in it."""
        self._check_changeable()

    add = add_iovec = add_reference = add_buffer_reference = add_file = add_file_segment = _refuse
    add_buffer = prepend = prepend_buffer = reserve = commit = expand = _refuse
    remove = remove_into = remove_buffer = drain = readln = read = write = _refuse
    defer_callbacks = _refuse


class Given(Mixin):
    """What a bufferevent is besides, once HTTP has it."""

    __slots__ = ()

    _buffer_kind = GivenBuffer

    def __init_subclass__(cls) -> None:
        """Keep `given` from the ``__init_subclass__`` of a user's class."""

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Raise `ValueError`: HTTP has it."""
        self._check_not_given()
        raise AssertionError

    read = read_buffer = write = write_buffer = _refuse
    setwatermark = set_timeouts = flush = trigger = trigger_event = enable = disable = _refuse
    set_rate_limit = add_to_rate_limit_group = remove_from_rate_limit_group = _refuse
    decrement_read_limit = decrement_write_limit = _refuse
    renegotiate = shutdown = _refuse


def _only_asked(name: str, kind: Any) -> property:
    """Return the property *name* of *kind* as one that refuses to be set."""
    asked: property = getattr(kind, name)
    return property(asked.fget, Given._refuse, None, asked.__doc__)


def given(kind: Any) -> Any:
    """Return the subclass of *kind* whose objects are `Given`, made when first needed."""
    if "_given" not in vars(kind):
        members = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
        for name in ("priority", "max_single_read", "max_single_write"):
            members[name] = _only_asked(name, kind)
        kind._given = type(kind)(kind.__name__, (Given, kind), members)
    return kind._given
