"""Random walks through all kinds of bufferevents: layers, TLS, limits, connections, EAGER."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, ClassVar

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    Listener,
    RateLimit,
    RateLimitGroup,
    TriggerOption,
)
from libevent_py.types import FileDescriptor
from tests.kit import worlds
from tests.kit.certificates import HOST
from tests.kit.flags import CLOSE, DEFER, EAGER, READ, UNLOCK, WRITE
from tests.kit.tls_peers import tls_contexts
from tests.kit.worlds import World

SAFE = BufferEventOption.THREADSAFE

OPTIONS = [
    BufferEventOption(0),
    CLOSE,
    EAGER | CLOSE,
    EAGER,
    EAGER | CLOSE | DEFER,
    CLOSE | DEFER,
    CLOSE | SAFE,
    CLOSE | SAFE | DEFER | UNLOCK,
]


class Layers(World):
    """A world whose bufferevents stand on one another, in callbacks too."""

    BUDGET = 600

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.groups: list[RateLimitGroup] = []
        self.clients, self.server = tls_contexts()

    def options(self) -> BufferEventOption:
        return self.random.choice(OPTIONS)

    def limit(self) -> RateLimit | None:
        rate = self.random.choice([None, 1, 100, 100_000])
        burst = self.random.choice([1, 10])
        if self.random.random() < 0.3:
            return None
        return RateLimit(rate, rate and rate * burst, rate, tick=self.random.choice([0.001, 1]))

    def talk(self, bev: BufferEvent) -> None:
        """Read and write, as callbacks do most of the time."""
        bev.write(bev.read(self.random.choice([None, None, 3])) or b"again")

    def new_tls_pair(self, base: EventBase) -> None:
        one, other = socket.socketpair()
        for end, context, host in (
            (one, self.random.choice(self.clients), HOST),
            (other, self.server, None),
        ):
            options = self.options() & ~EAGER
            self.keep(BufferEvent.tls(base, end, context, server_hostname=host, options=options))

    def new_tls_filter(self, bev: BufferEvent) -> None:
        context, host = self.random.choice(
            [(self.random.choice(self.clients), HOST), (self.server, None)]
        )
        options = self.options() & ~EAGER
        self.keep(BufferEvent.tls_filter(bev, context, server_hostname=host, options=options))

    def new_tls_over_pair(self, base: EventBase) -> None:
        halves = BufferEvent.pair(base, self.options())
        contexts = self.random.choice(self.clients), self.server
        for half, context, host in zip(halves, contexts, (HOST, None), strict=True):
            if self.random.random() < 0.5:
                half = BufferEvent.filter(half, self.filter, None, self.options())
            options = self.options() & ~EAGER
            self.keep(BufferEvent.tls_filter(half, context, server_hostname=host, options=options))

    def new_connection(self, listener: Listener) -> None:
        options = self.options()
        if self.random.random() < 0.3:
            context, host = (
                self.random.choice(self.clients),
                self.random.choice([HOST, HOST, "other.test"]),
            )
            bev = BufferEvent.tls(listener.base, -1, context, server_hostname=host, options=options)
        else:
            bev = BufferEvent(listener.base, -1, options)
        self.keep(bev)
        if self.random.random() < 0.5:
            bev.write(b"early")
        self.connect_bev(bev)

    def connect_bev(self, bev: BufferEvent) -> None:
        if not self.listeners or self.random.random() < 0.1:
            address = ("127.0.0.1", 1)
        else:
            address = self.random.choice(self.listeners).address
        if self.random.random() < 0.5:
            bev.connect(address)
        else:
            bev.connect_hostname(None, *address)

    def new_listener(self, base: EventBase) -> None:
        def accept(listener: Listener, fd: int, address: object) -> None:
            if self.random.random() < 0.5:
                options = self.options() | CLOSE
                if self.random.random() < 0.3:
                    bev = BufferEvent.tls(base, fd, self.server, options=options)
                else:
                    bev = BufferEvent(base, fd, options)
                self.keep(bev)
                self.callback()
            else:
                self.callback()
                os.close(fd)

        if len(self.listeners) < 5:
            self.listeners.append(Listener(base, ("127.0.0.1", 0), accept))

    def new_group(self, base: EventBase) -> None:
        if len(self.groups) < 4:
            self.groups.append(RateLimitGroup(base, self.limit() or RateLimit(50, tick=0.001)))

    def join(self, bev: BufferEvent) -> None:
        if self.groups:
            bev.add_to_rate_limit_group(self.random.choice(self.groups))

    def set_fd(self, bev: BufferEvent) -> None:
        fds: list[FileDescriptor] = [-1, self.socket()]
        bev.fd = self.random.choice(fds)

    def detach(self, bev: BufferEvent) -> None:
        fd = bev.detach()
        if fd >= 0:
            self.sockets.append(socket.socket(fileno=fd))

    def locked(self, bev: BufferEvent) -> None:
        with bev.lock():
            self.callback()

    def callback(self, *arguments: object) -> None:
        if arguments and isinstance(arguments[0], BufferEvent) and self.random.random() < 0.5:
            bev = arguments[0]
            self.attempt(lambda: self.talk(bev))
        super().callback(*arguments)

    def drop(self, thing: None) -> None:
        if self.groups and self.random.random() < 0.1:
            del self.groups[self.random.randrange(len(self.groups))]
        super().drop(thing)

    OPERATIONS: ClassVar[list[tuple[str, Callable[[Any, Any], object]]]] = [
        *World.OPERATIONS,
        ("bases", new_tls_pair),
        ("bases", new_tls_pair),
        ("bases", new_tls_over_pair),
        ("bases", new_group),
        ("bases", World.new_bev),
        ("bases", World.loop),
        ("bases", World.loop),
        ("bases", World.loop),
        ("listeners", new_connection),
        ("listeners", new_connection),
        ("bevs", new_tls_filter),
        ("bevs", lambda world, bev: bev.close(flush=True)),
        ("bevs", lambda world, bev: bev.close(flush=True)),
        ("bevs", lambda world, bev: bev.shutdown()),
        ("bevs", lambda world, bev: bev.renegotiate()),
        ("bevs", lambda world, bev: bev.tls_errors()),
        ("bevs", lambda world, bev: (bev.cipher, bev.peer_certificate_chain, bev.alpn_protocol)),
        ("bevs", lambda world, bev: setattr(bev, "allow_dirty_shutdown", True)),
        ("bevs", lambda world, bev: setattr(bev, "rate_limit", world.limit())),
        ("bevs", lambda world, bev: setattr(bev, "rate_limit", world.limit())),
        ("bevs", lambda world, bev: bev.decrement_read_limit(world.random.choice([-5, 5, 500]))),
        ("bevs", lambda world, bev: bev.decrement_write_limit(world.random.choice([-5, 5, 500]))),
        ("bevs", join),
        ("bevs", join),
        ("bevs", lambda world, bev: bev.remove_from_rate_limit_group()),
        ("bevs", set_fd),
        ("bevs", detach),
        ("bevs", connect_bev),
        ("bevs", locked),
        ("bevs", talk),
        ("bevs", talk),
        ("bevs", lambda world, bev: world.buffers.append(bev.input)),
        ("bevs", lambda world, bev: bev.input.add_cb(world.callback)),
        ("bevs", lambda world, bev: bev.output.add_cb(world.callback)),
        ("bevs", lambda world, bev: setattr(bev, "priority", 0)),
        ("bevs", lambda world, bev: setattr(bev, "max_single_read", 5000)),
        ("bevs", lambda world, bev: bev.trigger(READ | WRITE, TriggerOption.IGNORE_WATERMARKS)),
        (
            "bevs",
            lambda world, bev: bev.trigger_event(BufferEventFlag.EOF | BufferEventFlag.READING),
        ),
        ("bevs", lambda world, bev: bev.write(b"z" * 300_000)),
        ("bevs", lambda world, bev: world.keep(bev)),
        ("groups", lambda world, group: group.close() if world.random.random() < 0.5 else None),
        ("groups", lambda world, group: group.decrement_read(world.random.choice([-50, 1000]))),
        ("groups", lambda world, group: group.decrement_write(world.random.choice([-50, 1000]))),
        ("groups", lambda world, group: setattr(group, "limit", world.limit() or RateLimit(9))),
    ]


def walks(seeds: range, steps: int) -> None:
    """Take a walk for each of *seeds*, and check that nothing is left of them."""
    worlds.walks(seeds, steps, Layers)
