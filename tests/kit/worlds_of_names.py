"""Random walks through resolvers, their lookups, and objects that connect by names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from libevent_py import (
    BufferEvent,
    DnsBase,
    DnsBaseFlag,
    DnsQueryFlag,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
)
from tests.kit import worlds
from tests.kit.accounts import Oops
from tests.kit.dns_peers import SILENCE, NameServer
from tests.kit.worlds import World

NAMES = ["yes.example", "no.example", "half.example", "silent.example", "127.0.0.1", "refused"]


class Names(World):
    """A world with name servers; each callback of a lookup is called once at most."""

    BUDGET = 600

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.resolvers: list[DnsBase] = []
        self.lookups: list[Any] = []
        self.servers: list[NameServer] = []
        self.connections: list[HttpConnection] = []
        self.told: Counter[int] = Counter()

    def new_base(self, _: None) -> None:
        super().new_base(None)
        if len(self.servers) < 3:
            self.new_server(self.random.choice(self.bases))

    def new_server(self, base: EventBase) -> None:
        zone = {
            "yes.example": ["127.0.0.1", "::1"],
            "half.example": lambda question: ["127.0.0.1"] if question.type == 1 else SILENCE,
            "silent.example": SILENCE,
            "refused": self.answer,
        }
        self.servers.append(NameServer(base, zone))
        self.sockets.append(self.servers[-1].socket)

    def answer(self, _question: object) -> Any:
        self.callback()
        return self.random.choice([["127.0.0.1"], 4, 5, 2, b"", b"\0" * 20, SILENCE])

    def new_resolver(self, base: EventBase) -> None:
        flags = self.random.choice([DnsBaseFlag(0), DnsBaseFlag.DISABLE_WHEN_INACTIVE])
        dns = DnsBase(base, flags)
        for option, values in (
            ("timeout", [0.001, 0.002, 5]),
            ("attempts", [1, 2]),
            ("max-timeouts", [1, 3]),
            ("initial-probe-timeout", [0.001, 0.003]),
            ("getaddrinfo-allow-skew", [0.001, 3]),
            ("max-inflight", [1, 3, 64]),
        ):
            dns.set_option(option, self.random.choice(values))
        dns.search_add("example")
        self.resolvers.append(dns)
        self.add_server(dns)
        self.add_server(dns)

    def add_server(self, dns: DnsBase) -> None:
        if self.servers:
            dns.nameserver_sockaddr_add(self.random.choice(self.servers).address)

    def change_servers(self, dns: DnsBase) -> None:
        dns.clear_nameservers_and_suspend()
        for _ in range(self.random.randrange(3)):
            self.attempt(lambda: self.add_server(dns))
        dns.resume()

    def tell(self) -> Callable[..., None]:
        number = len(self.told)
        self.told[number] = 0

        def told(*_: object) -> None:
            self.told[number] += 1
            assert self.told[number] == 1
            self.callback()

        return told

    def look_up(self, dns: DnsBase) -> None:
        name, flags = self.random.choice(NAMES), self.random.choice(list(DnsQueryFlag))
        look_up: Callable[[], Any] = self.random.choice(
            [
                lambda: dns.resolve_ipv4(name, self.tell(), flags=flags),
                lambda: dns.resolve_ipv6(name, self.tell()),
                lambda: dns.resolve_reverse("127.0.0.1", self.tell(), flags=flags),
                lambda: dns.getaddrinfo(name, 80, self.tell()),
                lambda: dns.getaddrinfo(name, 80, self.tell()),
            ]
        )
        for _ in range(self.random.choice([1, 1, 5])):
            self.lookups.append(look_up())

    def connect_by_name(self, dns: DnsBase) -> None:
        bev = BufferEvent(dns.base, on_event=self.callback)
        self.bevs.append(bev)
        bev.connect_hostname(dns, self.random.choice(NAMES), 9)

    def request(self, dns: DnsBase) -> None:
        connection = HttpConnection(dns.base, self.random.choice(NAMES), 9, dns_base=dns)
        self.connections.append(connection)
        request = HttpRequest(self.quietly)
        connection.make_request(request, HttpCommand.GET, "/")

    def quietly(self, *_: object) -> None:
        try:
            self.callback()
        except Oops as error:
            self.note(error)

    def drop(self, thing: None) -> None:
        kinds: list[list[Any]] = [self.resolvers, self.lookups, self.connections]
        things = self.random.choice(kinds)
        if things and self.random.random() < 0.5:
            del things[self.random.randrange(len(things))]
        super().drop(thing)

    OPERATIONS: ClassVar[list[tuple[str, Callable[[Any, Any], object]]]] = [
        *World.OPERATIONS,
        ("bases", new_resolver),
        ("bases", new_resolver),
        *[("bases", World.loop)] * 6,
        *[("resolvers", look_up)] * 8,
        *[("resolvers", connect_by_name)] * 2,
        ("resolvers", request),
        ("resolvers", add_server),
        ("resolvers", change_servers),
        ("resolvers", change_servers),
        ("resolvers", lambda world, dns: dns.search_clear()),
        ("resolvers", lambda world, dns: dns.search_add("other.example")),
        ("resolvers", lambda world, dns: dns.set_option("max-inflight", 2)),
        ("resolvers", lambda world, dns: dns.close()),
        ("lookups", lambda world, lookup: lookup.cancel()),
        ("lookups", lambda world, lookup: lookup.cancel()),
        ("connections", lambda world, connection: connection.close()),
    ]


def walks(seeds: range, steps: int) -> None:
    """Take a walk for each of *seeds*, and check that nothing is left of them."""
    worlds.walks(seeds, steps, Names)
