"""An echo server of bufferevents: ``bufferevent_echo echo|four_writes [OPTION...]``."""

import sys

from benchmarks.contender import pieces
from benchmarks.libevent_py.server import serve
from libevent_py import BufferEvent


def echo(bev: BufferEvent) -> None:
    bev.write(bev.read())


def four_writes(bev: BufferEvent) -> None:
    for piece in pieces(bev.read()):
        bev.write(piece)


serve({"echo": echo, "four_writes": four_writes}[sys.argv[1]], options=sys.argv[2:])
