"""Messages are, byte for byte, those of the C code that libevent's ``event_rpcgen.py`` makes.

What it makes of ``every.rpc`` has written the messages below. And the C code is made anew, and
reads, writes, serves and calls. The generator comes with libevent's source, but not with Debian's
packages of it: it is EVENT_RPCGEN, or on the PATH, or is taken from Debian's source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libevent_py import (
    EventBase,
    HttpConnection,
    HttpServer,
    Message,
    Rpc,
    RpcCall,
    RpcPool,
    RpcServer,
)
from libevent_py.enums import RpcStatus
from libevent_py.rpc.message import Array, Bytes, Int, Int64, String, Struct
from tests.kit.once import once
from tests.kit.support import PATIENCE

HERE = Path(__file__).parent


class Inner(Message):
    """What ``every.rpc`` calls inner."""

    name = String(1)
    count = Int(0x10121, optional=True)


class Every(Message):
    """What ``every.rpc`` calls every."""

    number = Int(1)
    large = Int64(2)
    text = String(3)
    fixed = Bytes(4, 5)
    some = Bytes(300)
    one = Struct(6, Inner)
    numbers = Array(Int(7))
    larges = Array(Int64(8))
    texts = Array(String(9))
    many = Array(Struct(10, Inner))
    maybe_number = Int(11, optional=True)
    maybe_large = Int64(12, optional=True)
    maybe_text = String(13, optional=True)
    maybe_fixed = Bytes(14, 3, optional=True)
    maybe_some = Bytes(0x7FFFFFFF, optional=True)
    maybe_one = Struct(16, Inner, optional=True)


def least() -> Every:
    """Return what ``rpc_peer.c`` makes as least."""
    some = b"\0\1\2"
    message = Every(number=0, large=0xDEAD0A0BCAFEBEEF, text="", fixed=b"a\0b\xff!", some=some)
    message.one = Inner(name="inner")
    return message


def full() -> Every:
    """Return what ``rpc_peer.c`` makes as full."""
    message = least()
    assert message.one is not None
    message.one.count = 15
    message.numbers = [0, 16, 2**32 - 1]
    message.larges = [2**32]
    message.texts = ["Troms\u00f8", ""]
    message.many = [Inner(name="first"), Inner(name="second", count=2)]
    message.maybe_number, message.maybe_large = 0xDEAD0A0B, 255
    message.maybe_text, message.maybe_fixed, message.maybe_some = "maybe", b"xyz", b"?"
    message.maybe_one = Inner(name="maybe")
    return message


MESSAGES = {"least": least(), "full": full()}

#: What C has written.
WRITTEN = {
    "least": "0101000209ffeebefacb0a0daed003000405610062ff21ac020300010206070105696e6e6572",
    "full": """
        0101000209ffeebefacb0a0daed003000405610062ff21ac0203000102060c0105696e6e6572a18204010f07
        01000702101007057ffffffff008058000000001090754726f6d73c3b809000a07010566697273740a0d0106
        7365636f6e64a1820401020b057b0a0daed00c021ff00d056d617962650e0378797affffffff07013f100701
        056d61796265
    """,
}

every = pytest.mark.parametrize("name", MESSAGES)


@every
def test_a_message_is_written_as_c_writes_it(name: str) -> None:
    assert bytes(MESSAGES[name]) == bytes.fromhex(WRITTEN[name])


@every
def test_what_c_has_written_is_read(name: str) -> None:
    assert Every.unmarshal(bytes.fromhex(WRITTEN[name])) == MESSAGES[name]


@pytest.fixture(scope="session")
def generator(request: pytest.FixtureRequest) -> str:
    """The path of the generator, brought along with libevent's source where it is not found."""
    found = os.environ.get("EVENT_RPCGEN") or shutil.which("event_rpcgen.py")
    return found or str(request.getfixturevalue("source") / "event_rpcgen.py")


@pytest.fixture(scope="session")
def peer(generator: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The C program, built with code that is made now."""

    def make(place: Path) -> None:
        names = str(HERE / "every.rpc"), "every.gen.h", "every.gen.c"
        subprocess.run([sys.executable, generator, "--quiet", *names], cwd=place, check=True)
        sources = [str(HERE / "rpc_peer.c"), "every.gen.c"]
        libraries = ["-levent_extra", "-levent_core"]
        compiler = ["cc", "-I.", "-o", "peer", *sources, *libraries]
        subprocess.run(compiler, cwd=place, check=True, timeout=PATIENCE)

    return str(once(tmp_path_factory, "rpc", make) / "peer")


def run(*command: str, data: bytes = b"") -> bytes:
    """Return what *command* writes when it has read *data*."""
    return subprocess.run(
        command, input=data, stdout=subprocess.PIPE, check=True, timeout=PATIENCE
    ).stdout


@pytest.mark.slow
@every
def test_c_code_made_now_writes_what_is_recorded(peer: str, name: str) -> None:
    assert run(peer, "make", name) == bytes.fromhex(WRITTEN[name])


@pytest.mark.slow
@every
def test_c_reads_what_python_writes_and_writes_the_same(peer: str, name: str) -> None:
    data = bytes(MESSAGES[name])
    assert run(peer, "copy", data=data) == data


@pytest.fixture
def served(peer: str) -> Iterator[int]:
    """The port of a C server that answers calls of Copy by what they have asked."""
    with subprocess.Popen([peer, "serve"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


def test_python_calls_a_server_in_c(base: EventBase, served: int) -> None:
    replies: list[RpcCall] = []
    with RpcPool(base) as pool:
        pool.add_connection(HttpConnection(base, "127.0.0.1", served))
        for message in MESSAGES.values():
            pool.call("Copy", message, Every, replies.append)
        base.once(lambda _fd, _what: base.loopbreak(), timeout=PATIENCE)
        while len(replies) < 2 and not base.got_break:
            base.loop(1)
        assert [call.status for call in replies] == [RpcStatus.NONE] * 2
        assert [call.reply for call in replies] == list(MESSAGES.values())


@every
def test_a_client_in_c_calls_python(base: EventBase, peer: str, name: str) -> None:
    asked = []

    def copy(rpc: Rpc) -> None:
        asked.append(rpc.request)
        rpc.reply = rpc.request
        rpc.done()

    data = bytes(MESSAGES[name])
    with HttpServer(base) as http:
        server = RpcServer(http)
        server.register("Copy", Every, Every, copy)
        port = http.bind_socket("127.0.0.1", 0).port
        with subprocess.Popen(
            [peer, "call", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(data)
            client.stdin.close()
            base.once(lambda _fd, _what: base.loopbreak(), fd=client.stdout, what=2, timeout=60)
            base.dispatch()
            assert client.stdout.read() == data
    assert asked == [MESSAGES[name]]
