"""Pieces of 4 KiB through one Buffer, timed: ``buffer_ops add|search|readln|remove|drain``."""

import sys

from benchmarks.contender import processor_time, serve
from libevent_py import Buffer

PIECE = b"x" * 4094 + b"\r\n"
STARTS = range(0, 64 * len(PIECE), len(PIECE))  # of the pieces in the buffer at a time

buffer = Buffer()


def add() -> None:
    for _ in STARTS:
        buffer.add(PIECE)


def search() -> None:
    for start in STARTS:
        buffer.search(b"\r\n", start)


def readln() -> None:
    for _ in STARTS:
        buffer.readln()


def remove() -> None:
    for _ in STARTS:
        buffer.remove(4096)


def drain() -> None:
    for _ in STARTS:
        buffer.drain(4096)


def sample(count: int) -> tuple[int, int]:
    taken = done = 0
    while done < count:
        if operate is not add:
            add()
        start = processor_time()
        operate()
        taken += processor_time() - start
        done += len(STARTS)
        buffer.drain(len(buffer))
    return taken, done


operate = {f.__name__: f for f in (add, search, readln, remove, drain)}[sys.argv[1]]
serve(sample)
