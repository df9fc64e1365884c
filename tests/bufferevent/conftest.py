"""What bufferevents stand on, in turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from libevent_py import BufferEvent, EventBase
from tests.kit.filters import Halves


@pytest.fixture(params=["sockets", "pair"])
def below(request: pytest.FixtureRequest, base: EventBase) -> Iterator[Halves]:
    """Two bufferevents to stand on, of which each reads what the other writes."""
    if request.param == "pair":
        yield BufferEvent.pair(base)
    else:
        one, other = socket.socketpair()
        yield BufferEvent(base, one), BufferEvent(base, other)
