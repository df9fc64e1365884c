"""The bufferevent of an HTTP connection is for asking only: whatever would use it is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    EventBase,
    FileSegment,
    HttpConnection,
    HttpServer,
    HttpServerRequest,
    RateLimit,
    RateLimitGroup,
    TlsContext,
    tag,
)
from libevent_py.buffer.owned import BorrowedBuffer
from tests.kit.certificates import Authority
from tests.kit.flags import READ
from tests.kit.http_peers import OK, Asked, Server, ask, client
from tests.kit.peers import run_until
from tests.kit.tls_peers import client_context, server_context
from tests.kit.web import Client, get, where

#: What can be asked, also of TLS. (A policy for the end, that TLS's may be missing, is no use.)
ASKED_NAMES = """
    allow_dirty_shutdown alpn_protocol base cipher closed dns_error enabled error fd getwatermark
    input lock max_single_read max_single_write max_to_read max_to_write on_data on_event on_read
    on_write output partner peer_certificate peer_certificate_chain pointer priority rate_limit
    rate_limit_group read_limit server_hostname session_reused ssl tls_errors tls_version
    underlying write_limit
"""

#: What makes another one.
OTHERS_NAMES = "filter pair tls tls_filter"

ASKED, OTHERS = ASKED_NAMES.split(), OTHERS_NAMES.split()


#: What would use it, by its name.
USES: dict[str, Callable[[Any, Any], object]] = {
    "add_to_rate_limit_group": lambda bev, group: bev.add_to_rate_limit_group(group),
    "close": lambda bev, _: bev.close(),
    "connect": lambda bev, _: bev.connect(("127.0.0.1", 1)),
    "connect_hostname": lambda bev, _: bev.connect_hostname(None, "127.0.0.1", 1),
    "decrement_read_limit": lambda bev, _: bev.decrement_read_limit(1),
    "decrement_write_limit": lambda bev, _: bev.decrement_write_limit(1),
    "detach": lambda bev, _: bev.detach(),
    "disable": lambda bev, _: bev.disable(READ),
    "enable": lambda bev, _: bev.enable(READ),
    "flush": lambda bev, _: bev.flush(READ),
    "read": lambda bev, _: bev.read(),
    "read_buffer": lambda bev, _: bev.read_buffer(Buffer()),
    "remove_from_rate_limit_group": lambda bev, _: bev.remove_from_rate_limit_group(),
    "renegotiate": lambda bev, _: bev.renegotiate(),
    "set_timeouts": lambda bev, _: bev.set_timeouts(1, 1),
    "setcb": lambda bev, _: bev.setcb(None, None, None),
    "setwatermark": lambda bev, _: bev.setwatermark(READ, 1, 0),
    "shutdown": lambda bev, _: bev.shutdown(),
    "trigger": lambda bev, _: bev.trigger(READ),
    "trigger_event": lambda bev, _: bev.trigger_event(1),
    "write": lambda bev, _: bev.write(b"x"),
    "write_buffer": lambda bev, _: bev.write_buffer(Buffer(b"x")),
}

#: What can be asked but not set.
SET = {
    "fd": 0,
    "max_single_read": 1,
    "max_single_write": 1,
    "on_event": None,
    "on_data": None,
    "on_read": None,
    "on_write": None,
    "priority": 0,
    "rate_limit": RateLimit(1000, 1000),
}

BUFFER_ASKED_NAMES = """
    __bytes__ __contains__ __eq__ __iter__ __len__ add_cb closed contiguous_space
    copyout enable_locking lock peek pointer pullup search search_eol
"""

BUFFER_ASKED = BUFFER_ASKED_NAMES.split()

#: What would use its buffers. Each is called with a buffer, and what it could take.
BUFFER_USES: dict[str, Callable[[Any, Any], object]] = {
    "__iadd__": lambda buffer, _: buffer.__iadd__(b"x"),
    "add": lambda buffer, _: buffer.add(b"x"),
    "add_buffer": lambda buffer, _: buffer.add_buffer(Buffer(b"x")),
    "add_buffer_reference": lambda buffer, _: buffer.add_buffer_reference(Buffer(b"x")),
    "add_file": lambda buffer, file: buffer.add_file(file),
    "add_file_segment": lambda buffer, file: buffer.add_file_segment(FileSegment(file)),
    "add_iovec": lambda buffer, _: buffer.add_iovec([b"x"]),
    "add_reference": lambda buffer, _: buffer.add_reference(b"x"),
    "close": lambda buffer, _: buffer.close(),
    "commit": lambda buffer, _: buffer.commit(1),
    "defer_callbacks": lambda buffer, file: buffer.defer_callbacks(buffer._owner.base),
    "drain": lambda buffer, _: buffer.drain(1),
    "expand": lambda buffer, _: buffer.expand(1),
    "freeze": lambda buffer, _: buffer.freeze(True),
    "prepend": lambda buffer, _: buffer.prepend(b"x"),
    "prepend_buffer": lambda buffer, _: buffer.prepend_buffer(Buffer(b"x")),
    "read": lambda buffer, file: buffer.read(file),
    "readln": lambda buffer, _: buffer.readln(),
    "remove": lambda buffer, _: buffer.remove(),
    "remove_buffer": lambda buffer, _: buffer.remove_buffer(Buffer(), 1),
    "remove_into": lambda buffer, _: buffer.remove_into(bytearray(1)),
    "reserve": lambda buffer, _: buffer.reserve(1),
    "unfreeze": lambda buffer, _: buffer.unfreeze(True),
    "write": lambda buffer, file: buffer.write(file),
}

#: Where else its buffers could be moved from or to.
TAKES: list[Callable[[Any], object]] = [
    lambda buffer: Buffer().add_buffer(buffer),
    lambda buffer: Buffer().prepend_buffer(buffer),
    lambda buffer: Buffer(b"x").remove_buffer(buffer, 1),
    lambda buffer: tag.marshal_int(buffer, 1, 1),
    lambda buffer: tag.unmarshal_int(buffer, 1),
]


def test_every_method_and_attribute_is_known_here() -> None:
    known = [*ASKED, *OTHERS, *USES]
    assert len(known) == len(set(known))
    assert {name for name in dir(BufferEvent) if not name.startswith("_")} == set(known)
    settable = {
        name
        for name in ASKED
        if isinstance(member := getattr(BufferEvent, name), property) and member.fset
    }
    assert settable - set(SET) == {"allow_dirty_shutdown", "output"}


def test_every_method_of_its_buffers_is_known_here() -> None:
    known = [*BUFFER_ASKED, *BUFFER_USES]
    assert len(known) == len(set(known))
    inherited = {name for name in dir(object) if name != "__eq__"} | {"__slots__", "__module__"}
    machinery = {"__enter__", "__exit__", "__weakref__", "__bool__", "__hash__", "__reduce_ex__"}
    public = {
        name for name in dir(BorrowedBuffer) if not name.startswith("_") or name.startswith("__")
    }
    assert public - inherited - machinery - {"__dict__", "__annotations__"} == set(known)


def past_its_class(use: Callable[[Any, Any], object], group: RateLimitGroup) -> Any:
    """Return what stands for a bufferevent whose methods are those of `BufferEvent` itself."""

    class Unbound:
        def __init__(self, bev: BufferEvent) -> None:
            object.__setattr__(self, "bev", bev)

        def __getattr__(self, name: str) -> Any:
            return partial(getattr(BufferEvent, name), self.bev)

        def __setattr__(self, name: str, value: object) -> None:
            getattr(BufferEvent, name).fset(self.bev, value)

    return lambda bev: use(Unbound(bev), group)


def check_refused(bev: BufferEvent, group: RateLimitGroup, file: Any) -> None:
    """Check that nothing changes *bev* or its buffers, and that all else can be asked."""
    before = [bytes(bev.input), bytes(bev.output), bev.enabled, bev.getwatermark(READ)]
    for name, use in USES.items():
        with pytest.raises(ValueError, match=r"belongs to <Http.*can be asked, but not used"):
            use(bev, group)
            pytest.fail(name)
        with pytest.raises(ValueError, match="belongs to <Http"):
            past_its_class(use, group)(bev)
            pytest.fail(name)
    for name, value in SET.items():
        with pytest.raises(ValueError, match="belongs to <Http"):
            setattr(bev, name, value)
            pytest.fail(name)
        with pytest.raises(ValueError, match="belongs to <Http"):
            getattr(BufferEvent, name).fset(bev, value)
            pytest.fail(name)
    for buffer in (bev.input, bev.output):
        for name, use in BUFFER_USES.items():
            with pytest.raises(ValueError):
                use(buffer, file)
                pytest.fail(name)
        for take in TAKES:
            with pytest.raises(ValueError, match=r"belongs to <Http.*which counts its bytes"):
                take(buffer)
        assert len(buffer) == len(bytes(buffer)) == len(buffer.copyout())
    for name in ASKED:
        if name not in ("allow_dirty_shutdown", "ssl") and "_" not in name[:1]:
            try:
                getattr(bev, name)
            except ValueError as error:
                assert "has no TLS" in str(error)
    assert [bytes(bev.input), bytes(bev.output), bev.enabled, bev.getwatermark(READ)] == before


@pytest.mark.parametrize("made", ["by libevent", "by a callback", "by TLS"])
def test_a_servers_is_for_asking_only(
    base: EventBase, authority: Authority, made: str, tmp_path: Any
) -> None:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    tls: TlsContext | None = None
    own: list[BufferEvent] = []

    def bevcb(base: EventBase) -> BufferEvent:
        own.append(BufferEvent(base, on_read=print))
        return own[-1]

    if made == "by a callback":
        server.set_bevcb(bevcb)
    elif made == "by TLS":
        server.tls, tls = server_context(authority), client_context(authority)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    group = RateLimitGroup(base, RateLimit(1000, 1000))
    checked: list[BufferEvent] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        bev = connection.bufferevent
        assert isinstance(bev, BufferEvent)
        assert type(bev).__name__ == "BufferEvent"
        assert not own or bev is own[0]
        request.send_reply_start(200)
        request.send_reply_chunk(b"first ")
        with path.open("r+b") as file:
            check_refused(bev, group, file)
        for move in (
            lambda: request.send_reply_chunk(bev.output),
            lambda: BufferEvent.filter(bev, None, None),
            lambda: BufferEvent.tls_filter(bev, server_context(authority)),
        ):
            with pytest.raises(ValueError, match="belongs to <Http"):
                move()
        request.send_reply_chunk(b"second")
        request.send_reply_end()
        checked.append(bev)

    server.set_gencb(handler)
    connection = HttpConnection(base, "127.0.0.1", where(server)[1], tls=tls)
    assert ask(connection).body == b"first second"
    assert path.read_bytes() == b"content"
    connection.close()
    run_until(base, lambda: checked[0].closed)


@pytest.mark.parametrize("made", ["by libevent", "by its user"])
def test_a_clients_is_for_asking_only(base: EventBase, made: str, tmp_path: Any) -> None:
    own = BufferEvent(base) if made == "by its user" else None
    held = None if own is None else (own.input, own.output)
    connection = client(base, Server(base, OK), bufferevent=own)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    group = RateLimitGroup(base, RateLimit(1000, 1000))

    def check(request: Any) -> None:
        bev = connection.bufferevent
        assert own is None or bev is own
        assert held is None or (bev.input, bev.output) == held
        with path.open("r+b") as file:
            check_refused(bev, group, file)

    asked = Asked(on_header=check).on(connection)
    run_until(base, lambda: asked.ended)
    assert asked.body == b"hello"
    check(None)
    assert ask(connection).body == b"hello"


def test_a_bufferevent_in_whose_output_memory_is_reserved_is_not_taken(base: EventBase) -> None:
    bev = BufferEvent(base)
    with bev.output.reserve(1), pytest.raises(ValueError, match="memory reserved in its output"):
        client(base, Server(base, OK), bufferevent=bev)
    connection = client(base, Server(base, OK), bufferevent=bev)
    assert ask(connection).body == b"hello"


def test_a_users_own_class_stays_one(base: EventBase) -> None:
    class Mine(BufferEvent):
        def hello(self) -> str:
            return "hello"

    bev = Mine(base)
    connection = client(base, Server(base, OK), bufferevent=bev)
    assert isinstance(bev, Mine)
    assert bev.hello() == "hello"
    with pytest.raises(ValueError, match="belongs to"):
        bev.write(b"x")
    connection.close()
    assert bev.closed


def test_callbacks_of_its_buffers_are_told_of_what_passes(base: EventBase) -> None:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    written: list[int] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        connection.bufferevent.output.add_cb(lambda buffer, info: written.append(info.n_deleted))
        request.send_reply(200, None, b"body")

    server.set_gencb(handler)
    got = Client(base, where(server)).send(get()).rest()
    assert sum(written) == len(got)
