"""``struct ev_token_bucket_cfg``: how much a bufferevent, or a group of them, may read and write.

A limit has a bucket of bytes for reading and one for writing. Bytes that are read or written are
taken out; every tick adds as many as the rate, up to the burst. While a bucket is empty, the
bufferevent waits for the next tick. libevent counts what sockets and TLS read and write; pairs and
filters only wait with their group. TLS counts its own overhead too, and sends each write as a
whole, then waits. If a limit for TLS is for one direction only, the other's is 2 GiB per tick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, SupportsFloat, SupportsIndex

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.described import described, if_made
from libevent_py._core.dispatch import next_key
from libevent_py._core.frames import came_at_entry
from libevent_py._core.handle import Making, slot
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.given import check_may_act, check_not_given
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Given
    from libevent_py.bufferevent.bufferevent import BufferEvent

#: The number that means no limit.
UNLIMITED: int = lib.EV_RATE_LIMIT_MAX

#: What C gets instead. libevent gives a TLS connection that follows another what that has taken;
#: beyond the largest number there is, it would count from below 0.
BOUNDLESS = UNLIMITED // 2

#: The largest limit in bytes: with a limit of exactly 2**32, libevent reads 0 bytes, and takes that
#: for the end of the input.
MOST = 2**32 - 1

#: The shortest and the longest tick in seconds: libevent divides by its milliseconds, an int.
SHORTEST, LONGEST = 0.001, 4_294_967.0

#: The most that can be read or written at once.
AT_ONCE = 2**31 - 1

NO_LIMIT = "this bufferevent has no rate limit"

errors.call(lib.evpy_ratelimit_init)


@described(
    read_rate="How many bytes may be read in each tick.",
    read_burst="The most bytes that may be read in one tick, after quieter ones.",
    write_rate="How many bytes may be written in each tick.",
    write_burst="The most bytes that may be written in one tick, after quieter ones.",
    tick="The length of a tick in seconds.",
)
@dataclasses.dataclass(frozen=True, init=False, slots=True)
class RateLimit:
    """How fast to read and write: an immutable value for any number of bufferevents and groups.

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
        """Allow *read_rate* and *write_rate* bytes per *tick* seconds; None means no limit.

        A burst is the most bytes in one tick after a pause; None means the rate. The tick is one
        second by default, and at least a millisecond; libevent counts whole ones, so that a part of
        one counts as the next. Raises `ValueError` for a burst that is less than the rate, and for
        numbers that are not from 1 to 2**32 - 1, except ``EV_RATE_LIMIT_MAX``, which means no
        limit.
        """
        numbers = _in_range(read_rate, read_burst, write_rate, write_burst, tick)
        for name, value in zip(_FIELDS, numbers, strict=True):
            object.__setattr__(self, name, value)

    @if_made
    def __repr__(self) -> str:
        values = [f"{name}={getattr(self, name)}" for name in _FIELDS]
        limited = [value for value in values if not value.endswith(f"={UNLIMITED}")]
        return f"RateLimit({', '.join(limited)})"


_FIELDS = tuple(field.name for field in dataclasses.fields(RateLimit))


def _in_range(
    read_rate: SupportsIndex | None,
    read_burst: SupportsIndex | None,
    write_rate: SupportsIndex | None,
    write_burst: SupportsIndex | None,
    tick: SupportsFloat | SupportsIndex | None,
) -> tuple[int, int, int, int, float]:
    """Return the numbers of a limit as C takes them, or raise an error that names the argument."""
    reading = _bucket(read_rate, read_burst, "read")
    writing = _bucket(write_rate, write_burst, "write")
    length = 1.0 if tick is None else convert.seconds(tick, "tick")
    if not SHORTEST <= length <= LONGEST:
        raise ValueError(f"tick must be from {SHORTEST} to {LONGEST:.0f} seconds, not {tick!r}")
    return *reading, *writing, length


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


def _checked(limit: RateLimit) -> RateLimit:
    if not isinstance(limit, RateLimit):
        raise TypeError(f"limit must be a RateLimit, not {limit!r}")
    return limit


def _numbers(limit: RateLimit) -> tuple[int, int, int, int, float]:
    """Return the numbers of *limit* in the order in which C takes them.

    They are looked at once more: what a user's subclass has instead could end the process.
    """
    reading, writing = (limit.read_rate, limit.read_burst), (limit.write_rate, limit.write_burst)
    *amounts, tick = _in_range(*reading, *writing, limit.tick)
    first, second, third, fourth = (min(amount, BOUNDLESS) for amount in amounts)
    # The timer would wait for all of the tick; but what it adds is counted by whole milliseconds.
    return first, second, third, fourth, math.ceil(round(tick * 1000, 3)) / 1000


def level(left: int) -> int:
    """Return how many bytes are *left* by C's count; `UNLIMITED` where there is no limit."""
    return UNLIMITED if left > BOUNDLESS // 2 else left


def _taken(n: SupportsIndex, level: int, burst: int) -> int:
    """Return *n*, checked: a bucket beyond its burst would never be full again."""
    return convert.integer(n, "n", min(0, level - min(burst, BOUNDLESS)), MOST)


class Limits:
    """The limits of one bufferevent: its own, and that of its group."""

    __slots__ = ("_changing", "_in_int", "group", "own")

    def __init__(self, in_int: bool) -> None:
        self._changing = False
        #: Whether C counts in an int, as it does for TLS, and so can't take a larger limit.
        self._in_int = in_int
        #: The bufferevent's own limit, or None.
        self.own: RateLimit | None = None
        #: The group that it is a member of, or None.
        self.group: RateLimitGroup | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit, its own or its group's."""
        return self.own is not None or self.group is not None

    # Its own limit.

    def set(self, bev: BufferEvent, limit: RateLimit | None) -> None:
        """Set `BufferEvent.rate_limit`, but also if *bev* is given to HTTP."""
        old, self.own = self.own, limit if limit is None else _checked(limit)
        bev._set_callbacks()
        if self._changing:  # called by a callback inside `_change`, which sets it next
            return
        busy = bev.base._running or bev.base._calls > 0
        try:
            self._change(bev, busy)
        except (MemoryError, TypeError, ValueError):
            self.own = old
            raise
        if busy and self.own is None:
            bev.base.defer(functools.partial(self._lift, bev))

    def _lift(self, bev: BufferEvent) -> None:
        """Remove the very large limit that C was given in place of none."""
        if self.own is None and not bev.closed:
            self._change(bev, False)

    def _change(self, bev: BufferEvent, busy: bool) -> None:
        """Set C's limit; a callback inside may set another, or close the bufferevent.

        libevent would crash if such a callback called it again, or if it were called after the
        bufferevent has been finalized.
        """
        pointer = bev.pointer
        limit: RateLimit | Limits | None = self
        held: list[CData] = []
        try:
            self._changing, held = True, [pointer]
            lib.bufferevent_incref(pointer)  # no call from there to here
            while limit is not self.own:
                limit = self.own
                if limit is None:
                    bev.base._call(lib.evpy_bufferevent_unlimit, pointer, busy)
                else:
                    change = lib.evpy_bufferevent_set_rate_limit
                    bev.base._call(change, pointer, *_numbers(self._kept_by_c(limit)))
        finally:
            try:
                self._changed(bev, held)
            except BaseException:  # an interrupt
                self._changed(bev, held)
                raise

    def _changed(self, bev: BufferEvent, held: list[CData]) -> None:
        """Let the pointer in *held* go; a second time does nothing."""
        self._changing = False
        closed = bev.closed
        if held:
            pointer = held[0]
            if closed:  # the limit was set too late to be freed with the bufferevent
                lib.evpy_bufferevent_unlimit(pointer, True)
            del held[0]  # no call from here to the next line
            lib.bufferevent_decref(pointer)

    def _kept_by_c(self, limit: RateLimit) -> RateLimit:
        """Return the limit that C gets for *limit*."""
        if not self._in_int:
            return limit
        buckets = limit.read_rate, limit.read_burst, limit.write_rate, limit.write_burst
        return RateLimit(*(min(number, AT_ONCE) for number in buckets), tick=limit.tick)

    def take_from_reading(self, bev: BufferEvent, n: int) -> None:
        """Count *n* bytes as read by *bev*, which must have its own limit."""
        check_not_given(bev)
        n = _taken(n, bev.read_limit, self._kept(bev).read_burst)
        self._take(bev, False, n)

    def take_from_writing(self, bev: BufferEvent, n: int) -> None:
        """Count *n* bytes as written by *bev*, which must have its own limit."""
        check_not_given(bev)
        n = _taken(n, bev.write_limit, self._kept(bev).write_burst)
        self._take(bev, True, n)

    @staticmethod
    def _take(bev: BufferEvent, writing: bool, n: int) -> None:
        """Have C take *n* bytes, unless other code has removed the limit since it was asked for."""
        if bev.base._call(lib.evpy_bufferevent_take, bev.pointer, writing, n):
            raise ValueError(NO_LIMIT)

    def _kept(self, bev: BufferEvent) -> RateLimit:
        """Return the limit that C has, or raise `ValueError` if there is none."""
        limit = self.own
        if limit is None or not lib.bufferevent_get_token_bucket_cfg(bev.pointer):
            raise ValueError(NO_LIMIT)
        return self._kept_by_c(limit)

    # The group.

    def join(self, bev: BufferEvent, group: RateLimitGroup) -> None:
        """Make *bev* a member of *group*, which it isn't yet; also if it is given to HTTP."""
        while self.group is not None:  # a callback may have added it to a third one
            self.leave(bev)
        # The locals end in this order: a bufferevent closed meanwhile leaves a group before that is
        # freed.
        pointer = bev.pointer
        held = [group.pointer]
        self.group = group
        group._members[bev._key] = bev
        bev._set_callbacks()
        try:
            self._settle_group(pointer, held)
        except MemoryError:
            self.forget_group(bev._key)
            raise
        bev._check_usable()  # other code may have closed either of them
        group._check_usable()

    def _settle_group(self, pointer: CData, held: list[CData]) -> None:
        """Set C's group to the one that Python has, which other code may change meanwhile.

        *held* gets each group that C got, which must not be freed before *pointer* is.
        """
        group: RateLimitGroup | Limits | None = self
        while group is not self.group:
            group = self.group
            if group is None:
                lib.bufferevent_remove_from_rate_limit_group(pointer)
            else:
                held.append(group.pointer)
                errors.call(lib.bufferevent_add_to_rate_limit_group, pointer, held[-1])

    def leave(self, bev: BufferEvent) -> None:
        """Leave the group, if there is one; also if *bev* is given to HTTP."""
        bev.base._check_thread()
        pointer = bev.pointer
        group = self.group
        if group is not None:
            self.group = None  # the local keeps the group alive until C has done its part
            bev._set_callbacks()
            bev.base._call(lib.bufferevent_remove_from_rate_limit_group, pointer)
            if self.group is not group:  # a callback may have joined it once more
                group._members.pop(bev._key, None)

    def leave_before_the_end(self, bev: BufferEvent) -> None:
        """Leave the group while *bev* is still open: C may free it long after it is closed."""
        group = self.group
        if group is not None and not bev.base._forked and not bev.closed:
            bev.base._check_thread()
            lib.bufferevent_disable(bev.pointer, lib.EV_READ | lib.EV_WRITE)
            _left(bev, group._members)  # now, since an interrupt may delay the freeing

    def forget_group(self, key: int) -> None:
        """Forget the group in Python, and the member with *key* in the group."""
        group = self.group
        if group is not None:
            self.group = None
            group._members.pop(key, None)

    def pass_to(self, bev: BufferEvent) -> None:
        """Make *bev* the member in place of another object for the same bufferevent."""
        if self.group is not None:
            self.group._members[bev._key] = bev


class Unlimited(Limits):
    """The limits of all bufferevents that have never had one; never changed."""

    __slots__ = ()

    own: None = None
    group: None = None

    def __init__(self) -> None:
        pass


UNLIMITED_YET = Unlimited()


def own(bev: BufferEvent) -> Limits:
    """Return what *bev* has of its own, made now if it has shared `UNLIMITED_YET` so far."""
    made = Limits(in_int=bev._tls is not None)
    if bev._limits is UNLIMITED_YET:  # no call from here on: other code may have made some
        bev._limits = made
    return bev._limits


def check_limitable(bev: BufferEvent) -> None:
    """Raise `ValueError` if libevent can't limit *bev*.

    To write before the handshake is done, OpenSSL must read first. While the limit forbids that,
    libevent would ask OpenSSL again and again.
    """
    check_not_given(bev)  # its owner would free it without removing the limit first (J1)
    tls = bev._tls
    if bev._layers.below is not None and tls is not None and not tls.agreed(bev.pointer):
        raise ValueError(
            "TLS through another bufferevent can't be limited until its handshake is done: "
            "limit the underlying one, or wait for CONNECTED"
        )


def set_at_once(
    bev: BufferEvent, change: Callable[[Given, int], int], size: int, name: str
) -> None:
    """Set by *change* how many bytes C may read, or write, at once."""
    check_may_act(bev)
    size = convert.integer(size, name, 0, AT_ONCE)
    errors.call(change, bev.pointer, size)


def checked_group(base: EventBase, group: RateLimitGroup) -> RateLimitGroup:
    """Return *group*, or raise an error if it isn't an open group on *base*."""
    if not isinstance(group, RateLimitGroup):
        raise TypeError(f"group must be a RateLimitGroup, not {group!r}")
    if group.base is not base:
        raise ValueError("group must be of the bufferevent's own event base")
    group._check_usable()  # before another group is left for it
    return group


@described(
    read="How many bytes the members have read.",
    written="How many bytes the members have written.",
)
class Totals(NamedTuple):
    """How many bytes the members of a group have read and written."""

    read: int
    written: int


class RateLimitGroup(Child):
    """A rate limit that bufferevents share, once added by `BufferEvent.add_to_rate_limit_group`.

    Its members keep it alive, its base doesn't. Until it is closed, its timer keeps
    `EventBase.dispatch` from returning, as in C: close it, or call `EventBase.loopexit`.
    """

    __slots__ = ("_limit", "_members", "_min_share")

    _rank = Rank.GROUP

    def __init__(self, base: EventBase, limit: RateLimit, *, min_share: int = 64) -> None:
        """Make a group on *base* whose members together read and write no faster than *limit*.

        It begins with one tick's worth of bytes. *min_share* sets the attribute `min_share`.
        Wraps ``bufferevent_rate_limit_group_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        numbers = _numbers(_checked(limit))
        share = convert.integer(min_share, "min_share", 1, lib.EV_SSIZE_MAX)
        self._limit = limit
        #: The members by key.
        self._members: dict[int, BufferEvent] = {}
        making = Making(lib.evpy_rate_limit_group_new, base.pointer, *numbers)
        super().__init__(base, next_key(), making)
        self.min_share = share

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{self._limit!r}"
        yield f"{len(self._members)} members"

    @property
    def members(self) -> list[BufferEvent]:
        """The bufferevents that share the limit, in the order in which they were added."""
        self._check_usable()  # a closed group has none
        return list(self._members.values())

    @property
    def limit(self) -> RateLimit:
        """The limit that the members share; may be set to another one with the same tick.

        With another tick libevent could stop refilling the bucket. The new limit takes over what is
        left of the old one, up to the new burst. Wraps ``bufferevent_rate_limit_group_set_cfg``.
        """
        self._check_usable()  # a closed group has none
        return self._limit

    @limit.setter
    def limit(self, limit: RateLimit) -> None:
        self.base._check_thread()
        numbers = _numbers(_checked(limit))
        if limit.tick != self._limit.tick:
            raise ValueError(f"limit must have a tick of {self._limit.tick} s, not {limit.tick}")
        errors.call(lib.evpy_rate_limit_group_set_limit, self.pointer, *numbers)
        self._limit = limit

    @property
    def min_share(self) -> int:
        """The bytes that a member may read or write in a tick, however many members there are.

        It is at least 1: with 0, libevent can take a share of nothing for the end of the input.
        More than the rate counts as the rate.
        Wraps ``bufferevent_rate_limit_group_set_min_share``.
        """
        self._check_usable()  # a closed group has none
        return self._min_share

    @min_share.setter
    def min_share(self, share: int) -> None:
        self.base._check_thread()
        share = convert.integer(share, "min_share", 1, lib.EV_SSIZE_MAX)
        errors.call(lib.bufferevent_rate_limit_group_set_min_share, self.pointer, share)
        self._min_share = share

    @property
    def read_limit(self) -> int:
        """How many bytes the members may read until the next tick; negative after reading more.

        Wraps ``bufferevent_rate_limit_group_get_read_limit``.
        """
        self.base._check_thread()
        return level(lib.bufferevent_rate_limit_group_get_read_limit(self.pointer))

    @property
    def write_limit(self) -> int:
        """How many bytes the members may write until the next tick; negative after writing more.

        Wraps ``bufferevent_rate_limit_group_get_write_limit``.
        """
        self.base._check_thread()
        return level(lib.bufferevent_rate_limit_group_get_write_limit(self.pointer))

    def decrement_read(self, n: int) -> None:
        """Count *n* bytes as read by a member; a negative number gives bytes back.

        You can't give back more than the burst has room for.
        Wraps ``bufferevent_rate_limit_group_decrement_read``.
        """
        n = _taken(n, self.read_limit, self._limit.read_burst)
        self.base._call(lib.bufferevent_rate_limit_group_decrement_read, self.pointer, n)

    def decrement_write(self, n: int) -> None:
        """Count *n* bytes as written by a member; a negative number gives bytes back.

        You can't give back more than the burst has room for.
        Wraps ``bufferevent_rate_limit_group_decrement_write``.
        """
        n = _taken(n, self.write_limit, self._limit.write_burst)
        self.base._call(lib.bufferevent_rate_limit_group_decrement_write, self.pointer, n)

    def totals(self) -> Totals:
        """Return how many bytes the members have read and written since it was made or last reset.

        Wraps ``bufferevent_rate_limit_group_get_totals``.
        """
        self.base._check_thread()
        both = ffi.new("ev_uint64_t[2]")
        lib.bufferevent_rate_limit_group_get_totals(self.pointer, both, both + 1)
        return Totals(*both)

    def reset_totals(self) -> None:
        """Set the totals to 0. Wraps ``bufferevent_rate_limit_group_reset_totals``."""
        self.base._check_thread()
        lib.bufferevent_rate_limit_group_reset_totals(self.pointer)

    def close(self) -> None:
        """Remove all members from the group, and free it; a second time does nothing.

        Members that were waiting go on at once, and this method raises what their callbacks raise.
        Raises `ThreadError` in the wrong thread.
        Wraps ``bufferevent_rate_limit_group_free``.
        """
        base = self.base
        try:
            if self._members and not self.closed and not base._forked:
                base._check_thread()
                base._call(self._dismiss)
        finally:
            super().close()

    def _dismiss(self) -> None:
        """Remove all members from the group."""
        for member in list(self._members.values()):
            if _left(member, self._members) and not member.closed:
                member._set_callbacks()

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that removes all members from the group and frees it."""
        base, members = self.base, self._members

        def free(pointer: CData) -> None:
            try:
                for member in list(members.values()):  # (J3) if the group was dropped with them
                    _left(member, members)
            finally:  # even after an interrupt
                # A member may be in the graveyard, before the group; and libevent may still return
                # to the group from a callback.
                try:
                    base._once_clean(lib.bufferevent_rate_limit_group_free, pointer)
                except BaseException as error:
                    if came_at_entry(error):
                        base._once_clean(lib.bufferevent_rate_limit_group_free, pointer)
                    raise
            if not base._busy():
                base._exhume()
            elif not base.closed:
                base.defer(base._exhume)

        return free


def _left(member: BufferEvent, members: dict[int, BufferEvent]) -> bool:
    """Remove *member* from the group of *members*; return False if it is in another one by now.

    C comes first: an interrupt in between must not leave a member in a group about to be freed.
    """
    limits = member._limits
    group = limits.group
    if group is not None and group._members is not members:
        return False
    with contextlib.suppress(AttributeError):  # if it is closed, C has it in no group any more
        lib.bufferevent_remove_from_rate_limit_group(slot(member))
    if group is not None and limits.group is group:
        limits.group = None
    members.pop(member._key, None)
    return True
