"""What a worker counts, in memory that it shares with the master.

So the counters of a worker that has been killed aren't lost, and nobody has to ask a busy worker.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
from typing import TYPE_CHECKING

from libevent_py.event.event import Event

if TYPE_CHECKING:
    from libevent_py.serve.engine import Engine, Exchange

#: How often a worker writes down what has changed without a request, in seconds.
PERIOD = 0.5

#: What is counted up, in the order in which it is written down; and what is as it is now.
TOTALS = (
    "accepted",
    "requests",
    "refused",
    "unanswered",
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "body_bytes_sent",
)
NOW = ("connections", "in_flight")

LAYOUT = struct.Struct(f"@{len(TOTALS) + len(NOW)}Q")


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one worker, or all of them, have counted."""

    totals: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(TOTALS, 0))
    now: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(NOW, 0))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            {name: number + other.totals[name] for name, number in self.totals.items()},
            {name: number + other.now[name] for name, number in self.now.items()},
        )

    def ended(self) -> Counts:
        """Return what is left of them when their worker has ended: nothing is going on."""
        return Counts(self.totals)


class Shared:
    """The memory that a worker writes its counters to, and the master reads."""

    def __init__(self) -> None:
        self.memory: mmap.mmap = mmap.mmap(-1, LAYOUT.size)

    def read(self) -> Counts:
        """Return what the worker has counted so far."""
        numbers = LAYOUT.unpack_from(self.memory)
        return Counts(
            dict(zip(TOTALS, numbers, strict=False)),
            dict(zip(NOW, numbers[len(TOTALS) :], strict=True)),
        )

    def close(self) -> None:
        """Give the memory back."""
        self.memory.close()


class Meter:
    """Counts what *engine* does, in a worker."""

    def __init__(self, engine: Engine, shared: Shared) -> None:
        self._engine = engine
        self._shared = shared
        self._unanswered = self._sent = 0
        self._classes = [0] * 6
        self._told = engine.on_end
        engine.on_end = self._ended
        self._timer = Event.timer(engine.base, self._tick)
        self._timer.add(PERIOD)

    def _ended(self, exchange: Exchange) -> None:
        status = exchange.status
        if status:
            self._classes[status // 100 if status < 600 else 5] += 1
        else:
            self._unanswered += 1
        self._sent += exchange.sent
        self.write()
        if self._told is not None:
            self._told(exchange)

    def _tick(self, timer: Event, _fd: int, _what: int) -> None:
        self.write()
        timer.add(PERIOD)

    def write(self) -> None:
        """Write down how it stands."""
        engine = self._engine
        LAYOUT.pack_into(
            self._shared.memory,
            0,
            engine.accepted,
            engine.requests,
            engine.refused,
            self._unanswered,
            *self._classes[1:],
            self._sent,
            engine.connections,
            engine.in_flight,
        )
