"""Bytes without end over one bufferevent: ``transfer sink|relay|source [OPTION...]``."""

import sys

from benchmarks.contender import CHUNK
from benchmarks.libevent_py.server import DataCallback, serve
from libevent_py import BufferEvent


def take(bev: BufferEvent) -> None:
    bev.read()


def pass_on(bev: BufferEvent) -> None:
    bev.output.add_buffer(bev.input)


def give(bev: BufferEvent) -> None:
    bev.write(CHUNK)


callbacks: dict[str, tuple[DataCallback | None, DataCallback | None]] = {
    "sink": (take, None),
    "relay": (pass_on, None),
    "source": (None, give),
}
serve(*callbacks[sys.argv[1]], options=sys.argv[2:])
