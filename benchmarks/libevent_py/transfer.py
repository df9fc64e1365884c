"""Bytes without end over one bufferevent: ``transfer sink|relay|source [OPTION...]``."""

import sys

from benchmarks.contender import CHUNK
from benchmarks.libevent_py.server import serve


def take(bev):
    bev.read()


def pass_on(bev):
    bev.output.add_buffer(bev.input)


def give(bev):
    bev.write(CHUNK)


callbacks = {
    "sink": {"on_read": take},
    "relay": {"on_read": pass_on},
    "source": {"on_write": give},
}
serve(**callbacks[sys.argv[1]], options=sys.argv[2:])
