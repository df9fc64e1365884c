"""An echo server of bufferevents: ``bufferevent_echo echo|four_writes|data [OPTION...]``."""

import sys

from benchmarks.contender import pieces
from benchmarks.libevent_py.server import serve
from libevent_py import BufferEvent


def echo(bev: BufferEvent) -> None:
    bev.write(bev.read())


def four_writes(bev: BufferEvent) -> None:
    for piece in pieces(bev.read()):
        bev.write(piece)


def same(bev: BufferEvent, data: bytes) -> bytes:
    return data


if sys.argv[1] == "data":
    serve(on_data=same, options=sys.argv[2:])
else:
    serve({"echo": echo, "four_writes": four_writes}[sys.argv[1]], options=sys.argv[2:])
