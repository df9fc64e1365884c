"""A network with faults: what goes through it is late, in pieces, changed, or cut off.

Each direction of a connection is a `_Way`: a queue of pieces, each with the time when it is due,
and a timer. The bufferevent that a test gets is one half of a pair. The other half and the test's
own bufferevent are the two ends of the ways. A filter of libevent's would not do: there, the end of
a connection overtakes what the filter still holds, as it does on no network.
"""

from __future__ import annotations

import random
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from libevent_py._core.convert import MAX_SECONDS
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.end import close_all
from libevent_py.enums import BufferEventFlag, BufferEventOption, EventFlag, FlushMode
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.listener import Listener
from libevent_py.testing.peers import HOST, discard, local, shut_down

BOTH = EventFlag.READ | EventFlag.WRITE
OPTIONS = BufferEventOption.CLOSE_ON_FREE

#: While so many bytes are on their way, or not taken by the target, no more are read.
FULL = 1 << 20


@dataclass(frozen=True)
class Faults:
    """What a network does to the bytes of one direction; without arguments, nothing."""

    #: How late each byte is, in seconds.
    delay: float = 0.0
    #: How much later than that it may be, at random, in seconds: so that one direction, or one
    #: connection, overtakes another. The bytes of one direction stay in order, as with TCP.
    jitter: float = 0.0
    #: The most bytes that come at once: each piece has a size at random from 1 to that, and comes
    #: in a turn of the loop of its own.
    fragment: int | None = None
    #: How likely each byte is changed, from 0 to 1.
    corrupt: float = 0.0
    #: After how many bytes the connection is cut, or with 0 by the first: both peers read its end.
    cut_after: int | None = None
    #: Whether the connection is reset when it is cut, which peers get as an error.
    reset: bool = False

    def __post_init__(self) -> None:
        for name in ("delay", "jitter"):
            if not 0 <= getattr(self, name) <= MAX_SECONDS:
                raise ValueError(
                    f"{name} must be from 0 to {MAX_SECONDS} seconds, not {getattr(self, name)}"
                )
        if self.fragment is not None and self.fragment < 1:
            raise ValueError(f"fragment must be at least 1 byte, not {self.fragment}")
        if not 0 <= self.corrupt <= 1:
            raise ValueError(f"corrupt must be a probability from 0 to 1, not {self.corrupt}")
        if self.cut_after is not None and self.cut_after < 0:
            raise ValueError(f"cut_after must be a number of bytes, not {self.cut_after}")
        if self.reset and self.cut_after is None:
            raise ValueError("reset says how the connection is cut: cut_after must say when")


class BadNetwork:
    """Put a network with faults between peers; closing it closes its connections.

    The same *seed* gives the same faults for the same bytes.
    """

    def __init__(self, base: EventBase, seed: int = 0) -> None:
        self._base = base
        self._random = random.Random(seed)
        self._links: list[_Link] = []
        self._listeners: list[Listener] = []

    def __enter__(self) -> BadNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections with the bufferevents made for them, and what listens for more."""
        with ExitStack() as stack:
            for link in reversed(self._links):
                if link.front is not None:
                    stack.callback(close_all, link.front)
                stack.callback(link.close)
            for listener in reversed(self._listeners):
                stack.callback(listener.close)

    def __call__(
        self,
        bev: BufferEvent,
        faults: Faults | None = None,
        *,
        to_peer: Faults | None = None,
        **settings: Any,
    ) -> BufferEvent:
        """Return a bufferevent to be used in place of *bev*, with a bad network in between.

        *faults*, or *settings* by the names of `Faults`, are those of both directions; *to_peer*,
        if given, those of what is written. The callbacks of *bev* belong to the network from now
        on; it is closed with the network, or once what was written before the new one was closed
        has got through. The new one has no descriptor. It gets *bev*'s events in the same order.
        """
        from_peer = _settled(faults, settings)
        near, mine = _Half.pair(self._base)
        mine.tells = True
        self._links.append(_Link(near, bev, to_peer or from_peer, from_peer, self._random, mine))
        return mine

    def between(
        self,
        address: int | str | tuple[str, int],
        faults: Faults | None = None,
        *,
        to_server: Faults | None = None,
        **settings: Any,
    ) -> int:
        """Return a port of 127.0.0.1 behind which *address* is, with a bad network in between.

        So any program can be a peer. *address* is a port of this machine, ``(host, port)``, or the
        path of a UNIX socket. *faults*, or *settings* by the names of `Faults`, are those of both
        directions of each connection; *to_server*, if given, those of what clients send.
        """
        back = _settled(faults, settings)
        place = local(address)

        def accept(_listener: Listener, fd: int, _address: Any) -> None:
            client = BufferEvent(self._base, fd, OPTIONS)
            server = BufferEvent(self._base, -1, OPTIONS)
            link = _Link(client, server, to_server or back, back, self._random)
            self._links.append(link)
            try:
                server.connect(place)
            except OSError:  # as if the server had refused it later
                link.close()

        listener = Listener(self._base, (HOST, 0), accept)
        self._listeners.append(listener)
        return int(listener.address[1])


def _settled(faults: Faults | None, settings: dict[str, Any]) -> Faults:
    if faults is not None and settings:
        raise TypeError(f"faults and {', '.join(settings)} say the same: give one of them")
    return Faults(**settings) if faults is None else faults


class _Half(BufferEvent):
    """A half of a pair; the one that a test has tells the other when it is closed."""

    tells = False

    def close(self, *, flush: bool = False) -> None:
        """Close it; what was written before still goes to the peer."""
        if self.tells and not self.closed and self.partner is not None:
            self.flush(BOTH, FlushMode.FINISHED)
        super().close(flush=flush)

    def flush(self, what: int, mode: int = FlushMode.NORMAL) -> bool:
        """Flush all that there is, also beyond what its peer takes at once."""
        if self.tells and mode == FlushMode.FINISHED and self.partner is not None:
            self.partner.setwatermark(EventFlag.READ, 0, 0)
        return super().flush(what, mode)


class _Link:
    """A connection: its two ends, and the way in each direction.

    *front* is the test's own bufferevent, if *near* is the other half of its pair.
    """

    def __init__(
        self,
        near: BufferEvent,
        far: BufferEvent,
        out: Faults,
        back: Faults,
        random: random.Random,
        front: _Half | None = None,
    ) -> None:
        self.front = front
        self.ends = (near, far)
        self.ways = (_Way(self, near, far, out, random), _Way(self, far, near, back, random))
        for way in self.ways:
            way.begin()

    @property
    def listens(self) -> bool:
        """Whether the test's own bufferevent can be told something."""
        return self.front is not None and not self.front.closed

    def tell(self, what: BufferEventFlag) -> None:
        """Tell the test's own bufferevent, if there is one, *what* has become of its peer."""
        if self.front is not None and not self.front.closed:
            self.front.trigger_event(what)

    def told(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        """React to what has become of one end."""
        way = self.ways[self.ends.index(bev)]
        # Several may come at once, as callbacks are deferred.
        if what & BufferEventFlag.CONNECTED:
            self.tell(BufferEventFlag.CONNECTED)
        directions = what & (BufferEventFlag.READING | BufferEventFlag.WRITING)
        if what & BufferEventFlag.ERROR:  # which doesn't wait for what is on its way
            self.tell(directions | BufferEventFlag.ERROR)
            if directions:
                self.discard()
            self.close()
        elif what & BufferEventFlag.EOF:
            way.ended = True
            way.take(bev)
        elif what & BufferEventFlag.TIMEOUT:  # which ends nothing
            self.tell(directions | BufferEventFlag.TIMEOUT)
            bev.enable(BOTH)

    def ended(self) -> None:
        """Close both ends, if nothing more can come through."""
        out, back = self.ways
        if out.done and (back.done or (self.front is not None and self.front.closed)):
            self.close()

    def cut(self, reset: bool) -> None:
        """Cut it: both peers read the end, or with *reset* get an error."""
        if reset:
            self.discard()
            self.tell(BufferEventFlag.READING | BufferEventFlag.ERROR)
        else:
            for bev in self.ends:
                if not bev.closed and bev.fd < 0 and self.listens:
                    bev.flush(EventFlag.WRITE, FlushMode.FINISHED)
        self.close()

    def discard(self) -> None:
        """Have those ends reset that are sockets, when they are closed."""
        for bev in self.ends:
            if not bev.closed and bev.fd >= 0:
                discard(bev)

    def close(self) -> None:
        """Close both ends and their timers, but not the test's own bufferevent."""
        for way in self.ways:
            way.timer.close()
        for bev in self.ends:
            bev.close()


class _Way:
    """One direction: what has come from *source* goes to *target* when it is due."""

    def __init__(
        self,
        link: _Link,
        source: BufferEvent,
        target: BufferEvent,
        faults: Faults,
        random: random.Random,
    ) -> None:
        self.link, self.source, self.target = link, source, target
        self.faults, self.random = faults, random
        self.pieces: deque[tuple[float, bytes]] = deque()
        #: Whether the source has ended; the connection is to be cut; the target knows of the end.
        self.ended = self.full = self.done = False
        #: How many bytes are on their way, and whether no more are read from the source.
        self.size, self.held = 0, False
        self.passed = 0
        self.last = 0.0
        self.timer = Event.timer(source.base, self.due)

    def begin(self) -> None:
        """Take what comes from the source from now on."""
        self.source.setcb(self.take, self.written, self.link.told)
        self.source.setwatermark(EventFlag.READ, 0, FULL)
        self.source.enable(BOTH)
        self.take(self.source)  # it may have read something already

    def take(self, source: BufferEvent) -> None:
        """Put what the source has read on its way."""
        data = source.read()
        faults, chance = self.faults, self.random
        if faults.corrupt and data:
            data = bytes(
                byte ^ chance.randrange(1, 256) if chance.random() < faults.corrupt else byte
                for byte in data
            )
        begin = 0
        while begin < len(data):
            size = len(data) if faults.fragment is None else chance.randint(1, faults.fragment)
            late = faults.delay + (chance.uniform(0, faults.jitter) if faults.jitter else 0.0)
            self.last = max(self.last, time.monotonic() + late)
            self.pieces.append((self.last, data[begin : begin + size]))
            begin += size
        self.size += len(data)
        self.go_on()

    def due(self, _timer: Event, _fd: int, _what: EventFlag) -> None:
        """Pass on one piece, whose time has come."""
        if self.is_left():
            return
        if self.pieces and self.pieces[0][0] <= time.monotonic():
            piece = self.pieces.popleft()[1]
            self.size -= len(piece)
            most = self.faults.cut_after
            if most is not None:
                piece = piece[: most - self.passed]
            self.passed += len(piece)
            self.target.write(piece)
            self.full = most is not None and self.passed >= most
            if self.full:
                self.pieces.clear()
        self.go_on()

    def is_left(self) -> bool:
        """Cut the connection, and return true, if the test has closed one of the ends itself."""
        if self.source.closed or self.target.closed:
            self.link.cut(reset=False)
            return True
        return False

    def go_on(self) -> None:
        """Wait for the next piece, or end the direction after the last one."""
        if self.timer.closed or self.done or self.is_left():
            return
        held = self.size + len(self.target.output) >= FULL
        if held != self.held:
            self.held = held
            (self.source.disable if held else self.source.enable)(EventFlag.READ)
        socket = self.target.fd >= 0
        over = self.ended or self.full
        if self.pieces:
            self.timer.add(max(0.0, self.pieces[0][0] - time.monotonic()))
        elif over and socket and self.target.output:
            return  # `written` comes back
        elif self.full:
            self.link.cut(self.faults.reset)
        elif over:
            self.done = True
            if socket:
                shut_down(self.target)
            elif self.link.listens:
                self.target.flush(EventFlag.WRITE, FlushMode.FINISHED)
            self.link.ended()

    def written(self, bev: BufferEvent) -> None:
        """Go on in the direction whose bytes have all been written to *bev*."""
        next(way for way in self.link.ways if way.target is bev).go_on()
