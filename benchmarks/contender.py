"""What every Python contender shares: how the runner asks for a sample, and the meters."""

import ctypes
import gc
import itertools
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from resource import getpagesize

# 1 to 100 ms, in an order that is the same for every contender.
DELAYS = [(i * 37 % 100 + 1) / 1000 for i in range(100)]
HOUR = 3600.0

# What a source sends, again and again: the same after each 256 bytes.
CHUNK = bytes(range(256)) * 256

# What servers of HTTP answer.
HELLO = b"Hello, World!"

# A quarter of the message that is sent back in four writes.
PIECE = 256

processor_time = time.process_time_ns


def serve(sample: Callable[..., tuple[int, int]]) -> None:
    """Answer the counts of each line with what *sample* returns for them: amount, operations."""
    for line in sys.stdin:
        print(*sample(*map(int, line.split())), flush=True)


def say_port(port: int) -> None:
    print(port, flush=True)


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def delays(count: int) -> Iterator[float]:
    return itertools.islice(itertools.cycle(DELAYS), count)


def meter(kind: str) -> Callable[[], int]:
    """Return what reads the memory in use, in bytes: "python" (by tracemalloc) or "resident"."""
    if kind == "python":
        tracemalloc.start()
        return python_bytes
    # What starting has left free would hold a thousand connections before the process grew.
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes


def python_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident_bytes() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * getpagesize()
