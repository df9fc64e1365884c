"""How long a call to another thread's loop takes: ``python -m tests.kit.round_trip``.

Beside `EventBase.call` stands what asyncio has for it, on its own loop and on uvloop's if there is
one. All take turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import EventBase

#: How many round trips are timed at once, and how often.
NUMBER, TIMES = 2000, 15


async def nothing() -> None:
    """Return at once, as what the others call does."""


@contextlib.contextmanager
def of_base() -> Iterator[Callable[[], object]]:
    with EventBase() as base, base.in_thread():
        yield lambda: base.call(int).result()


@contextlib.contextmanager
def of_loop(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[], object]]:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda: asyncio.run_coroutine_threadsafe(nothing(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def main() -> None:
    made: dict[str, Any] = {
        "EventBase.call": of_base(),
        "asyncio": of_loop(asyncio.new_event_loop()),
    }
    if importlib.util.find_spec("uvloop"):
        made["uvloop"] = of_loop(importlib.import_module("uvloop").new_event_loop())
    taken: dict[str, list[float]] = {name: [] for name in made}
    with contextlib.ExitStack() as stack:
        trips = {name: stack.enter_context(one) for name, one in made.items()}
        for _ in range(TIMES):
            for name, trip in trips.items():
                begin = time.perf_counter()
                for _ in range(NUMBER):
                    trip()
                taken[name].append((time.perf_counter() - begin) / NUMBER * 1e6)
    for name, times in taken.items():
        print(f"{name:15} {statistics.median(times):6.1f} µs, at best {min(times):.1f}")


if __name__ == "__main__":
    sys.exit(main())
