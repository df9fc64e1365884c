"""What tests of filters share: ways to make them, and one whose effect is easy to recognize."""

from __future__ import annotations

from collections.abc import Callable

from libevent_py import Buffer, BufferEvent, FilterResult, FlushMode
from tests.kit.flags import CLOSE, DEFER, EAGER, THREADSAFE, UNLOCK

OK = FilterResult.OK

#: How filters, and what they stand on, are made.
OPTIONS = [CLOSE, CLOSE | DEFER, CLOSE | THREADSAFE, CLOSE | THREADSAFE | DEFER | UNLOCK]
OPTIONS += [CLOSE | EAGER]

Filter = Callable[[Buffer, Buffer, "int | None", FlushMode], FilterResult]

Halves = tuple[BufferEvent, BufferEvent]


def shift(distance: int) -> Filter:
    """Return a filter that adds *distance* to each byte."""
    table = bytes((number + distance) % 256 for number in range(256))

    def shifted(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        target.add(source.remove(limit).translate(table))
        return OK

    return shifted
