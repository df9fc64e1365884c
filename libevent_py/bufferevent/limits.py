"""``struct ev_token_bucket_cfg``: how much a bufferevent, or a group of them, may read and write.

Each has a bucket of bytes for reading and one for writing. What goes through is taken out; every
tick adds as much as the rate, up to the burst. With an empty bucket it waits for the next tick.
libevent counts what sockets and TLS read and write; pairs and filters only wait with their group.
TLS counts its own bytes too, and sends as a whole what was written as a whole: it waits afterwards.
Where it has a limit for one direction only, the other's is 2 GiB per tick.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Making, slot
from libevent_py._core.owner import Child, Rank
from libevent_py._ffi import ffi, lib
from libevent_py.event.base import EventBase

#: No limit.
UNLIMITED: int = lib.EV_RATE_LIMIT_MAX

#: The largest limit in bytes: when exactly 2**32 may be read, libevent reads nothing, and takes
#: that for the end of the input.
MOST = 2**32 - 1

#: The shortest and the longest tick in seconds: libevent divides by the milliseconds in an int.
SHORTEST, LONGEST = 0.001, 4_294_967.0

#: The most that can be read or written at once.
AT_ONCE = 2**31 - 1

errors.call(lib.evpy_ratelimit_init)


@described(
    read_rate="How many bytes may be read in each tick.",
    read_burst="The most bytes that may be read in one tick, after some with less.",
    write_rate="How many bytes may be written in each tick.",
    write_burst="The most bytes that may be written in one tick, after some with less.",
    tick="How often the rates are added, in seconds.",
)
@dataclasses.dataclass(frozen=True, init=False, slots=True)
class RateLimit:
    """How many bytes may be read and written: a value, for any number of bufferevents and groups.

    Wraps ``ev_token_bucket_cfg_new``, ``ev_token_bucket_cfg_free``.
    """

    read_rate: int
    read_burst: int
    write_rate: int
    write_burst: int
    tick: float

    def __init__(
        self,
        read_rate: SupportsIndex | None = None,
        read_burst: SupportsIndex | None = None,
        write_rate: SupportsIndex | None = None,
        write_burst: SupportsIndex | None = None,
        *,
        tick: SupportsFloat | SupportsIndex | None = None,
    ) -> None:
        """Allow *read_rate* and *write_rate* bytes per *tick* seconds, None being no limit.

        A burst is what may come together in one tick after a pause; None is as much as the rate.
        The tick is a second unless given, and a millisecond at least (J2). Raises `ValueError` for
        a burst that is less than the rate, and for numbers that are not from 1 to 2**32 - 1, but
        for ``EV_RATE_LIMIT_MAX``: no limit.
        """
        reading = _bucket(read_rate, read_burst, "read")
        writing = _bucket(write_rate, write_burst, "write")
        length = 1.0 if tick is None else convert.seconds(tick, "tick")
        if not SHORTEST <= length <= LONGEST:
            raise ValueError(f"tick must be from {SHORTEST} to {LONGEST:.0f} seconds, not {tick!r}")
        for name, value in zip(_FIELDS, (*reading, *writing, length), strict=True):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        values = [f"{name}={getattr(self, name)}" for name in _FIELDS]
        limited = [value for value in values if not value.endswith(f"={UNLIMITED}")]
        return f"RateLimit({', '.join(limited)})"


_FIELDS = tuple(field.name for field in dataclasses.fields(RateLimit))


def _bucket(
    rate: SupportsIndex | None, burst: SupportsIndex | None, direction: str
) -> tuple[int, int]:
    """Return the two numbers of one direction, or raise an error that names the argument."""
    rate = _amount(UNLIMITED if rate is None else rate, f"{direction}_rate")
    burst = rate if burst is None else _amount(burst, f"{direction}_burst")
    if burst < rate:
        raise ValueError(f"{direction}_burst must be at least {direction}_rate, not {burst}")
    return rate, burst


def _amount(value: SupportsIndex, name: str) -> int:
    number = convert.integer(value, name, 1, UNLIMITED)
    if MOST < number < UNLIMITED:
        raise ValueError(f"{name} must be from 1 to {MOST}, or None for no limit, not {number}")
    return number


def _checked(limit: Any) -> RateLimit:
    if not isinstance(limit, RateLimit):
        raise TypeError(f"limit must be a RateLimit, not {limit!r}")
    return limit


def _numbers(limit: RateLimit) -> tuple[int, int, int, int, float]:
    """Return *limit* as C takes it."""
    return (
        limit.read_rate,
        limit.read_burst,
        limit.write_rate,
        limit.write_burst,
        limit.tick,
    )


def _taken(n: SupportsIndex, level: int, burst: int) -> int:
    """Return what is to be taken from a bucket: beyond the burst it would never be full again."""
    return convert.integer(n, "n", min(0, level - burst), MOST)


class Limited(Child):
    """What `BufferEvent` has of limits."""

    __slots__ = ("_changing", "_group", "_rate_limit")

    def __init__(self, base: Any, key: int, pointer: Any) -> None:
        self._changing = False
        self._rate_limit: RateLimit | None = None
        self._group: RateLimitGroup | None = None
        super().__init__(base, key, pointer)

    def close(self) -> None:
        """Free the C object; a second time does nothing. Raises `ThreadError` in a wrong thread."""
        group = self._group
        if group is not None and self.base.parked is None and not self.closed:
            self.base.check_thread()
            lib.bufferevent_disable(self.pointer, lib.EV_READ | lib.EV_WRITE)
            _left(self, group._members)  # while an interrupt has not yet kept it from being freed
        super().close()
        self._leave()

    def _set_callbacks(self) -> None:
        """Tell C whom to call, and how: while it is limited, not past libevent."""
        raise NotImplementedError

    def _check_limitable(self) -> None:
        """Raise `ValueError` where libevent can't do with a limit."""

    def limited(self) -> bool:
        """Tell whether it has a limit, of its own or of its group."""
        return self._rate_limit is not None or self._group is not None

    def _leave(self) -> RateLimitGroup | None:
        """Belong to no group as far as Python knows; return the one that it was."""
        group, self._group = self._group, None
        if group is not None:
            group._members.pop(self.key, None)
        return group

    def set_rate_limit(self, limit: RateLimit | None) -> None:
        """Read and write no faster than *limit* says, or with None as fast as can be.

        The first limit begins with one tick's worth of bytes; the next takes over what is left.
        While there is one, `max_single_read` and `max_single_write` don't count. Raises
        `ValueError` for TLS through another bufferevent until its handshake is done: libevent could
        wait inside itself for ever.
        Wraps ``bufferevent_set_rate_limit``.
        """
        self.base.check_thread()
        self.pointer  # noqa: B018  (what is closed has none)
        if limit is not None:
            self._check_limitable()
        self._limit(limit)

    def _limit(self, limit: RateLimit | None) -> None:
        """Do what `set_rate_limit` does, also for who has been given it."""
        old, self._rate_limit = self._rate_limit, limit if limit is None else _checked(limit)
        self._set_callbacks()
        if self._changing:  # by a callback of `_change`, which comes to that when it returns
            return
        busy = self.base.running or self.base.calls > 0
        try:
            self._change(busy)
        except MemoryError:
            self._rate_limit = old
            raise
        if busy and self._rate_limit is None:
            self.base.defer(self._lift)

    def _lift(self) -> None:
        """Put nothing in the place of what stands in for no limit."""
        if self._rate_limit is None and not self.closed:
            self._change(False)

    def _kept_by_c(self, limit: RateLimit) -> RateLimit:
        """Return what C keeps to for *limit*."""
        return limit

    def _change(self, busy: bool) -> None:
        """Have C keep to the limit; a callback inside may set another, or close the bufferevent.

        libevent would neither survive to be called again by it, nor to be called once more after
        the bufferevent has been finalized.
        """
        pointer = self.pointer
        limit: Any = self
        self._changing = True
        lib.bufferevent_incref(pointer)
        try:
            while limit is not self._rate_limit:
                limit = self._rate_limit
                if limit is None:
                    self.base.call(lib.evpy_bufferevent_unlimit, pointer, busy)
                else:
                    change = lib.evpy_bufferevent_set_rate_limit
                    self.base.call(change, pointer, *_numbers(self._kept_by_c(limit)))
        finally:
            self._changing = False
            if self.closed:  # then the limit has come too late to be freed with the rest
                lib.evpy_bufferevent_unlimit(pointer, True)
            lib.bufferevent_decref(pointer)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limit of its own, or None. Wraps ``bufferevent_get_token_bucket_cfg``."""
        self.pointer  # noqa: B018  (what is closed has none)
        return self._rate_limit

    def add_to_rate_limit_group(self, group: RateLimitGroup) -> None:
        """Share the limit of *group* with its other members, and leave another group.

        A limit of its own still counts. Raises `ValueError` for a group of another event base, and
        where `set_rate_limit` does.
        Wraps ``bufferevent_add_to_rate_limit_group``.
        """
        self._check_group(group)
        if group is self._group:
            return
        self._check_limitable()
        self._join(group)

    def _check_group(self, group: RateLimitGroup) -> None:
        """Raise an error for what is no open group of the same event base."""
        self.base.check_thread()
        if not isinstance(group, RateLimitGroup):
            raise TypeError(f"group must be a RateLimitGroup, not {group!r}")
        if group.base is not self.base:
            raise ValueError("group must be of the bufferevent's own event base")
        group.pointer  # noqa: B018  (a closed one is none to leave another for)

    def _join(self, group: RateLimitGroup) -> None:
        """Become a member of *group*, which it isn't yet; also for who has been given it."""
        while self._group is not None:  # a callback may have added it to a third one
            self._quit()
        # Let go in this order: what is closed here meanwhile leaves a group before that is freed.
        pointer = self.pointer
        held = [group.pointer]
        self._group = group
        group._members[self.key] = self
        self._set_callbacks()
        try:
            self._settle_group(pointer, held)
        except MemoryError:
            self._leave()
            raise
        self.pointer  # noqa: B018  (other code may have closed either of them)
        group.pointer  # noqa: B018

    def _settle_group(self, pointer: Any, held: list[Any]) -> None:
        """Have C know of the group that Python knows of, which other code may change meanwhile.

        *held* gets what C has been told of: it must not be freed before *pointer* is let go.
        """
        group: Any = self
        while group is not self._group:
            group = self._group
            if group is None:
                lib.bufferevent_remove_from_rate_limit_group(pointer)
            else:
                held.append(group.pointer)
                errors.call(lib.bufferevent_add_to_rate_limit_group, pointer, held[-1])

    def remove_from_rate_limit_group(self) -> None:
        """Leave the group, if there is one. Wraps ``bufferevent_remove_from_rate_limit_group``."""
        self._quit()

    def _quit(self) -> None:
        """Leave the group, if there is one; also for who has been given it."""
        self.base.check_thread()
        pointer = self.pointer
        group, self._group = self._group, None  # which must not go before C has done its part
        if group is not None:
            self._set_callbacks()
            self.base.call(lib.bufferevent_remove_from_rate_limit_group, pointer)
            if self._group is not group:  # a callback may have it join once more
                group._members.pop(self.key, None)

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The group that it is a member of, or None."""
        self.pointer  # noqa: B018  (what is closed is a member of none)
        return self._group

    @property
    def read_limit(self) -> int:
        """How many bytes may be read in this tick by its own limit; negative after too many.

        Without a limit, the largest number there is. Wraps ``bufferevent_get_read_limit``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_get_read_limit(self.pointer))

    @property
    def write_limit(self) -> int:
        """How many bytes may be written in this tick by its own limit; negative after too many.

        Without a limit, the largest number there is. Wraps ``bufferevent_get_write_limit``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_get_write_limit(self.pointer))

    def decrement_read_limit(self, n: int) -> None:
        """Count *n* bytes as read, or a negative number as given back.

        No more can be given back than the burst has room for. Raises `ValueError` without a limit
        of its own, where C would end the process (J6). Wraps ``bufferevent_decrement_read_limit``.
        """
        n = _taken(n, self.read_limit, self._own_limit().read_burst)
        self.base.call(lib.bufferevent_decrement_read_limit, self.pointer, n)

    def decrement_write_limit(self, n: int) -> None:
        """Count *n* bytes as written, or a negative number as given back.

        No more can be given back than the burst has room for. Raises `ValueError` without a limit
        of its own, where C would end the process (J6). Wraps ``bufferevent_decrement_write_limit``.
        """
        n = _taken(n, self.write_limit, self._own_limit().write_burst)
        self.base.call(lib.bufferevent_decrement_write_limit, self.pointer, n)

    def _own_limit(self) -> RateLimit:
        limit = self._rate_limit
        if limit is None or not lib.bufferevent_get_token_bucket_cfg(self.pointer):
            raise ValueError("this bufferevent has no rate limit")
        return self._kept_by_c(limit)

    @property
    def max_single_read(self) -> int:
        """How many bytes are read at once; setting 0 brings libevent's default back.

        libevent 2.1 reads 4096 from a socket, whatever more is allowed, and TLS ignores it.
        Wraps ``bufferevent_get_max_single_read``, ``bufferevent_set_max_single_read``.
        """
        return int(lib.bufferevent_get_max_single_read(self.pointer))

    @max_single_read.setter
    def max_single_read(self, size: int) -> None:
        self.base.check_thread()
        size = convert.integer(size, "max_single_read", 0, AT_ONCE)
        errors.call(lib.bufferevent_set_max_single_read, self.pointer, size)

    @property
    def max_single_write(self) -> int:
        """How many bytes are written at once; setting 0 brings libevent's default back.

        Wraps ``bufferevent_get_max_single_write``, ``bufferevent_set_max_single_write``.
        """
        return int(lib.bufferevent_get_max_single_write(self.pointer))

    @max_single_write.setter
    def max_single_write(self, size: int) -> None:
        self.base.check_thread()
        size = convert.integer(size, "max_single_write", 0, AT_ONCE)
        errors.call(lib.bufferevent_set_max_single_write, self.pointer, size)

    @property
    def max_to_read(self) -> int:
        """How many bytes may be read now by all that limits it.

        Wraps ``bufferevent_get_max_to_read``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_get_max_to_read(self.pointer))

    @property
    def max_to_write(self) -> int:
        """How many bytes may be written now by all that limits it.

        Wraps ``bufferevent_get_max_to_write``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_get_max_to_write(self.pointer))


@described(
    read="How many bytes they have read.",
    written="How many bytes they have written.",
)
class Totals(NamedTuple):
    """How many bytes the members of a group have read and written."""

    read: int
    written: int


class RateLimitGroup(Child):
    """A limit that bufferevents share: `BufferEvent.add_to_rate_limit_group`.

    It is kept alive by its members, not by its base. While there is one, its timer keeps
    `EventBase.dispatch` from returning, as in C (J4): close it, or call `EventBase.loopexit`.
    """

    __slots__ = ("_limit", "_members", "_min_share")

    rank = Rank.GROUP

    def __init__(self, base: EventBase, limit: RateLimit, *, min_share: int = 64) -> None:
        """Make a group on *base* whose members read and write no faster than *limit* altogether.

        It begins with one tick's worth of bytes. *min_share* is as in `min_share`.
        Wraps ``bufferevent_rate_limit_group_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        numbers = _numbers(_checked(limit))
        share = convert.integer(min_share, "min_share", 1, lib.EV_SSIZE_MAX)
        self._limit = limit
        #: Its members, by key.
        self._members: dict[int, Limited] = {}
        making = Making(lib.evpy_rate_limit_group_new, base.pointer, *numbers)
        super().__init__(base, next_key(), making)
        self.min_share = share

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{self._limit!r}"
        yield f"{len(self._members)} members"

    @property
    def members(self) -> list[Any]:
        """The bufferevents that share the limit, in the order in which they came."""
        self.pointer  # noqa: B018  (what is closed has none)
        return list(self._members.values())

    @property
    def limit(self) -> RateLimit:
        """The limit. Another must have the same tick, or libevent could stop to refill the bucket.

        What is left of the old one is taken over, up to the new burst.
        Wraps ``bufferevent_rate_limit_group_set_cfg``.
        """
        self.pointer  # noqa: B018  (what is closed has none)
        return self._limit

    @limit.setter
    def limit(self, limit: RateLimit) -> None:
        self.base.check_thread()
        numbers = _numbers(_checked(limit))
        if limit.tick != self._limit.tick:
            raise ValueError(f"limit must have a tick of {self._limit.tick} s, not {limit.tick}")
        errors.call(lib.evpy_rate_limit_group_set_limit, self.pointer, *numbers)
        self._limit = limit

    @property
    def min_share(self) -> int:
        """The bytes that a member may read or write in a tick, however many members there are.

        1 at least: with 0, libevent can take a share of nothing for the end of the input. More than
        the rate counts as the rate. Wraps ``bufferevent_rate_limit_group_set_min_share``.
        """
        self.pointer  # noqa: B018  (what is closed has none)
        return self._min_share

    @min_share.setter
    def min_share(self, share: int) -> None:
        self.base.check_thread()
        share = convert.integer(share, "min_share", 1, lib.EV_SSIZE_MAX)
        errors.call(lib.bufferevent_rate_limit_group_set_min_share, self.pointer, share)
        self._min_share = share

    @property
    def read_limit(self) -> int:
        """How many bytes the members may read until the next tick; negative after too many.

        Wraps ``bufferevent_rate_limit_group_get_read_limit``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_rate_limit_group_get_read_limit(self.pointer))

    @property
    def write_limit(self) -> int:
        """How many bytes the members may write until the next tick; negative after too many.

        Wraps ``bufferevent_rate_limit_group_get_write_limit``.
        """
        self.base.check_thread()
        return int(lib.bufferevent_rate_limit_group_get_write_limit(self.pointer))

    def decrement_read(self, n: int) -> None:
        """Count *n* bytes as read by a member, or a negative number as given back.

        No more can be given back than the burst has room for.
        Wraps ``bufferevent_rate_limit_group_decrement_read``.
        """
        n = _taken(n, self.read_limit, self._limit.read_burst)
        self.base.call(lib.bufferevent_rate_limit_group_decrement_read, self.pointer, n)

    def decrement_write(self, n: int) -> None:
        """Count *n* bytes as written by a member, or a negative number as given back.

        No more can be given back than the burst has room for.
        Wraps ``bufferevent_rate_limit_group_decrement_write``.
        """
        n = _taken(n, self.write_limit, self._limit.write_burst)
        self.base.call(lib.bufferevent_rate_limit_group_decrement_write, self.pointer, n)

    def totals(self) -> Totals:
        """Return how many bytes its members have read and written since it was made or reset.

        Wraps ``bufferevent_rate_limit_group_get_totals``.
        """
        self.base.check_thread()
        both = ffi.new("ev_uint64_t[2]")
        lib.bufferevent_rate_limit_group_get_totals(self.pointer, both, both + 1)
        return Totals(*both)

    def reset_totals(self) -> None:
        """Count from nothing again. Wraps ``bufferevent_rate_limit_group_reset_totals``."""
        self.base.check_thread()
        lib.bufferevent_rate_limit_group_reset_totals(self.pointer)

    def close(self) -> None:
        """Have all members leave the group, and free it; a second time does nothing.

        Those that have waited go on at once, and what their callbacks raise comes out when the
        group is closed. Raises `ThreadError` in a wrong thread.
        Wraps ``bufferevent_rate_limit_group_free``.
        """
        base = self.base
        try:
            if self._members and not self.closed and base.parked is None:
                base.check_thread()
                base.call(self._dismiss)
        finally:
            super().close()

    def _dismiss(self) -> None:
        """Have all members leave the group."""
        for member in list(self._members.values()):
            if _left(member, self._members) and not member.closed:
                member._set_callbacks()

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the group, which its members leave first (J3)."""
        base, members = self.base, self._members

        def free(pointer: Any) -> None:
            for member in list(members.values()):  # where the group was dropped with them
                _left(member, members)
            # A member may be in the graveyard before it; and libevent may be about to come back to
            # the group from what it has called.
            base.graveyard.append((lib.bufferevent_rate_limit_group_free, pointer))
            if not base.busy():
                base.exhume()
            elif not base.closed:
                base.defer(base.exhume)

        return free


def _left(member: Limited, members: dict[int, Limited]) -> bool:
    """Have *member* leave the group of *members*; return False if it is in another one by now.

    First in C: an interrupt in between must not leave a member of what is about to be freed.
    """
    group = member._group
    if group is not None and group._members is not members:
        return False
    with contextlib.suppress(AttributeError):  # closed, and so in no group any more
        lib.bufferevent_remove_from_rate_limit_group(slot(member))
    if member._group is group:
        member._group = None
    members.pop(member.key, None)
    return True
