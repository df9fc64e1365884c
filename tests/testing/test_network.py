"""Bad networks: what goes through them, and how it ends."""

from __future__ import annotations

import math
import socket
import subprocess
import time
from typing import Any, NamedTuple

import pytest

from libevent_py import BufferEvent, BufferEventFlag, EventBase, EventFlag, FlushMode, LoopFlag
from libevent_py.testing import BadNetwork, Faults, LocalHttpServer, LocalListener, Until
from libevent_py.testing.network import FULL
from libevent_py.testing.peers import discard
from tests.kit.support import PATIENCE

BOTH = EventFlag.READ | EventFlag.WRITE
END = BufferEventFlag.READING | BufferEventFlag.EOF
RESET = BufferEventFlag.READING | BufferEventFlag.ERROR
DATA = bytes(range(250))


class Ends(NamedTuple):
    """The two ends of a connection, and the events that each has got."""

    client: BufferEvent
    told: list[BufferEventFlag]
    server: BufferEvent
    heard: list[BufferEventFlag]


@pytest.fixture
def connect(
    event_base: EventBase, listener: LocalListener, until: Until, bad_network: BadNetwork
) -> Any:
    """A function that connects a client and a server over a network with the given faults."""

    def connected(*faults: Any, **settings: Any) -> Ends:
        plain = BufferEvent(event_base)
        plain.connect(listener.address)
        client = bad_network(plain, *faults, **settings)
        told: list[BufferEventFlag] = []
        heard: list[BufferEventFlag] = []
        client.on_event = lambda _, what: told.append(what)
        client.enable(BOTH)
        until(lambda: listener.accepted and told)
        assert told == [BufferEventFlag.CONNECTED]
        told.clear()
        server = listener.accepted[-1]
        server.on_event = lambda _, what: heard.append(what)
        return Ends(client, told, server, heard)

    return connected


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(delay=0.02),
        Faults(fragment=1),
        Faults(jitter=0.002, fragment=20),
        Faults(delay=0.01, fragment=100),
    ],
    ids=str,
)
def test_all_comes_in_order_and_the_end_comes_last(
    connect: Any, until: Until, faults: Faults
) -> None:
    client, told, server, heard = connect(faults)
    begun = time.monotonic()
    client.write(DATA)
    until(lambda: len(server.input) == len(DATA))
    assert time.monotonic() - begun >= faults.delay
    assert server.read() == DATA
    server.write(DATA)
    until(lambda: not server.output)
    with socket.socket(fileno=server.fd) as peer:
        peer.shutdown(socket.SHUT_WR)
        peer.detach()
    until(lambda: told)
    assert told == [END]
    assert client.read() == DATA
    client.write(b"and more")
    client.close()
    until(lambda: heard)
    assert server.read() == b"and more"
    assert heard == [END]


def test_fragments_come_one_by_one(connect: Any, until: Until) -> None:
    client, _, server, _ = connect(to_peer=Faults(fragment=10))
    sizes: list[int] = []
    server.on_read = lambda bev: sizes.append(len(bev.read()))
    client.write(DATA)
    until(lambda: sum(sizes) == len(DATA))
    assert len(sizes) > 1
    backwards: list[int] = []
    client.on_read = lambda bev: backwards.append(len(bev.read()))
    server.write(DATA)
    until(lambda: sum(backwards) == len(DATA))
    assert backwards == [len(DATA)]


def test_one_connection_overtakes_another(connect: Any, until: Until) -> None:
    slow, fast = connect(delay=0.1), connect()
    came: list[str] = []
    slow.server.on_read = lambda _: came.append("slow")
    fast.server.on_read = lambda _: came.append("fast")
    slow.client.write(b"x")
    fast.client.write(b"x")
    until(lambda: len(came) == 2)
    assert came == ["fast", "slow"]


@pytest.mark.parametrize("reset", [False, True], ids=["its-end", "a-reset"])
def test_a_connection_is_cut(connect: Any, until: Until, reset: bool) -> None:
    client, told, server, heard = connect(cut_after=100, reset=reset)
    client.write(DATA)
    until(lambda: told and heard)
    expected = RESET if reset else END
    assert (told, heard) == ([expected], [expected])
    if not reset:
        assert server.read() == DATA[:100]


def test_a_connection_is_cut_on_the_way_back(connect: Any, until: Until) -> None:
    client, told, server, heard = connect(Faults(cut_after=10), to_peer=Faults())
    client.write(DATA)
    until(lambda: len(server.input) == len(DATA))
    server.write(DATA)
    until(lambda: told and heard)
    assert client.read() == DATA[:10]
    assert told == [END]


def test_a_connection_is_cut_by_its_first_byte(connect: Any, until: Until) -> None:
    client, told, server, heard = connect(cut_after=0)
    client.write(b"x")
    until(lambda: told and heard)
    assert (told, heard, len(client.input), len(server.input)) == ([END], [END], 0, 0)


def changed(event_base: EventBase, until: Until, seed: int) -> bytes:
    """Return what comes of `DATA` on a network that changes half of it, one way."""
    left, right = BufferEvent.pair(event_base)
    with BadNetwork(event_base, seed) as network, left, right:
        client = network(left, to_peer=Faults(corrupt=0.5))
        right.enable(BOTH)
        client.enable(BOTH)
        client.write(DATA)
        until(lambda: len(right.input) == len(DATA))
        right.write(DATA)
        until(lambda: len(client.input) == len(DATA))
        assert client.read() == DATA
        return right.read()


def test_bytes_are_changed_the_same_way_each_time(event_base: EventBase, until: Until) -> None:
    one, same, other = (changed(event_base, until, seed) for seed in (1, 1, 2))
    assert 75 < sum(before != after for before, after in zip(DATA, one, strict=True)) < 175
    assert one == same != other


def test_a_server_that_refuses_is_an_error(
    event_base: EventBase, until: Until, bad_network: BadNetwork
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        plain = BufferEvent(event_base)
        plain.connect(closed.getsockname())
        told: list[BufferEventFlag] = []
        client = bad_network(plain)
        client.on_event = lambda _, what: told.append(what)
        until(lambda: told)
    assert told == [BufferEventFlag.ERROR]
    client.close()
    assert plain.closed


def curl(until: Until, port: int) -> tuple[int, bytes]:
    """Return curl's exit status and what it has got from *port*."""
    command = ["curl", "--silent", "--max-time", str(PATIENCE), f"http://127.0.0.1:{port}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        until(lambda: process.poll() is not None)
        assert process.stdout is not None
        return process.returncode, process.stdout.read()


@pytest.mark.parametrize(
    ("faults", "status", "size"),
    [
        (Faults(fragment=9, delay=0.001), 0, 600),
        (Faults(cut_after=300), 18, 300),
        (Faults(cut_after=300, reset=True), 56, 300),
    ],
    ids=str,
)
def test_a_program_is_behind_a_bad_network(
    http_server: LocalHttpServer,
    until: Until,
    bad_network: BadNetwork,
    faults: Faults,
    status: int,
    size: int,
) -> None:
    http_server.set_cb("/", lambda request: request.send_reply(200, "OK", b"hi" * 300))
    done, body = curl(until, bad_network.between(http_server.port, faults, to_server=Faults()))
    assert done == status
    assert len(body) <= size
    assert body == b"hi" * 300 or status


def test_nobody_is_behind_the_network(until: Until, bad_network: BadNetwork) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert curl(until, bad_network.between(closed.getsockname()))[0] == 52
    assert curl(until, bad_network.between("./no such socket"))[0] in (52, 56)


def test_a_reset_goes_through(
    event_base: EventBase, listener: LocalListener, until: Until, bad_network: BadNetwork
) -> None:
    told: list[BufferEventFlag] = []
    with BufferEvent(event_base, on_event=lambda _, what: told.append(what)) as client:
        client.connect(("127.0.0.1", bad_network.between(listener.port)))
        client.enable(BOTH)
        client.write(b"x")
        until(lambda: listener.accepted and len(listener.accepted[0].input))
        discard(listener.accepted[0])
        listener.accepted[0].close()
        until(lambda: len(told) == 2)
        assert told[1] == RESET


@pytest.mark.parametrize("way", ["to the peer", "from the peer"])
def test_an_end_that_a_test_closes_itself_is_cut(
    event_base: EventBase, until: Until, bad_network: BadNetwork, way: str
) -> None:
    told: list[BufferEventFlag] = []
    left, right = BufferEvent.pair(event_base)
    with left, right:
        client = bad_network(left, delay=0.01)
        client.on_event = lambda _, what: told.append(what)
        client.enable(BOTH)
        (client if way == "to the peer" else right).write(DATA)
        event_base.loop(LoopFlag.NONBLOCK)
    until(lambda: told)
    assert told == [END]


@pytest.mark.parametrize("end", ["close", "flush"])
def test_a_peer_that_takes_nothing_stops_the_other(
    bufferevent_pair: tuple[BufferEvent, BufferEvent],
    until: Until,
    bad_network: BadNetwork,
    end: str,
) -> None:
    left, right = bufferevent_pair
    client = bad_network(left, fragment=1 << 16)
    client.write(bytes(FULL * 8))
    until(lambda: len(left.output) >= FULL)
    assert len(client.output) > FULL * 4
    right.on_read = lambda _: taken.append(len(right.read()))
    taken: list[int] = []
    right.enable(BOTH)
    client.close() if end == "close" else client.flush(EventFlag.WRITE, FlushMode.FINISHED)
    until(lambda: sum(taken) == FULL * 8)


def test_a_timeout_ends_nothing(
    bufferevent_pair: tuple[BufferEvent, BufferEvent], until: Until, bad_network: BadNetwork
) -> None:
    left, right = bufferevent_pair
    left.set_timeouts(0.01, None)
    told: list[BufferEventFlag] = []
    client = bad_network(left)
    client.on_event = lambda _, what: told.append(what)
    client.enable(BOTH)
    until(lambda: len(told) == 2)
    right.write(DATA)
    until(lambda: len(client.input) == len(DATA))
    assert set(told) == {BufferEventFlag.READING | BufferEventFlag.TIMEOUT}


def test_closing_the_network_closes_all(connect: Any, bad_network: BadNetwork) -> None:
    client, told, _, _ = connect(delay=5)
    client.write(DATA)
    bad_network.close()
    assert client.closed
    assert told == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delay": -1}, "delay must be from 0 to 2147483647 seconds, not -1"),
        ({"delay": math.nan}, "delay must be from 0 .* not nan"),
        ({"jitter": -0.5}, "jitter must be from 0 "),
        ({"jitter": math.inf}, "jitter must be from 0 "),
        ({"fragment": 0}, "fragment must be at least 1 byte, not 0"),
        ({"corrupt": 2}, "corrupt must be a probability from 0 to 1, not 2"),
        ({"cut_after": -1}, "cut_after must be a number of bytes, not -1"),
        ({"reset": True}, "reset says how the connection is cut: cut_after must say when"),
    ],
    ids=str,
)
def test_faults_must_make_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Faults(**settings)


def test_faults_are_given_once(
    bufferevent_pair: tuple[BufferEvent, BufferEvent], bad_network: BadNetwork
) -> None:
    with pytest.raises(TypeError, match="faults and delay say the same: give one of them"):
        bad_network(bufferevent_pair[0], Faults(), delay=1)
