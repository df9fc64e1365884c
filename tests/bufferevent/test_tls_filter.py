"""TLS through another bufferevent: a socket's, a pair's, a filter's, or TLS again."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    FilterResult,
    FlushMode,
    Listener,
    TlsError,
    TlsVersion,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import EAGER
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, is_open, nobody_listens, run_until, settle
from tests.kit.support import run_python
from tests.kit.tls_peers import End, client_context, connected_ends, server_context

Ends = tuple[End, End]
Below = tuple[BufferEvent, BufferEvent]
OWNED = BufferEventOption.CLOSE_ON_FREE
DEFERRED = BufferEventOption.DEFER_CALLBACKS


def over_sockets(base: EventBase, authority: Authority) -> Below:
    left, right = socket.socketpair()
    return BufferEvent(base, left), BufferEvent(base, right)


def over_eager_sockets(base: EventBase, authority: Authority) -> Below:
    left, right = socket.socketpair()
    return BufferEvent(base, left, OWNED | EAGER), BufferEvent(base, right, OWNED | EAGER)


def over_a_pair(base: EventBase, authority: Authority) -> Below:
    return BufferEvent.pair(base)


def scrambled(
    source: Buffer, destination: Buffer, limit: int | None, mode: FlushMode
) -> FilterResult:
    destination.add(bytes(byte ^ 0x55 for byte in source.remove(limit)))
    return FilterResult.OK


def over_filters(base: EventBase, authority: Authority) -> Below:
    one, other = over_sockets(base, authority)
    return (
        BufferEvent.filter(one, scrambled, scrambled),
        BufferEvent.filter(other, scrambled, scrambled),
    )


def over_tls(base: EventBase, authority: Authority) -> Below:
    one, other = connected_ends(base, authority)
    for end in (one, other):
        end.bev.setcb(None, None, None)
    return one.bev, other.bev


BELOW = [over_sockets, over_eager_sockets, over_a_pair, over_filters, over_tls]


def layered(authority: Authority, below: Below, **named: Any) -> Ends:
    """Return the client's and the server's end of TLS through *below*."""
    client, server = client_context(authority), server_context(authority)
    one = End(BufferEvent.tls_filter, below[0], client, server_hostname=HOST, **named)
    return one, End(BufferEvent.tls_filter, below[1], server, **named)


@pytest.mark.parametrize("make", BELOW)
@pytest.mark.parametrize("options", [OWNED | DEFERRED, OWNED])
def test_megabytes_pass_through_whatever_is_below(
    base: EventBase,
    authority: Authority,
    make: Callable[[EventBase, Authority], Below],
    options: BufferEventOption,
) -> None:
    one, other = layered(authority, make(base, authority), options=options)
    data = os.urandom(2**20)
    for end in (one, other):
        end.bev.write(data)
    run_until(base, lambda: all(len(end.received) == len(data) for end in (one, other)))
    assert one.received == other.received == data
    assert one.connected
    assert other.connected
    assert one.bev.tls_version == "TLSv1.3"
    assert other.bev.server_hostname == HOST


@pytest.mark.parametrize("make", BELOW)
def test_the_handshake_begins_without_anybody_reading(
    base: EventBase, authority: Authority, make: Callable[[EventBase, Authority], Below]
) -> None:
    below = make(base, authority)
    events: list[Any] = []
    for bev, context, host in (
        (below[0], client_context(authority), HOST),
        (below[1], server_context(authority), None),
    ):
        BufferEvent.tls_filter(
            bev, context, server_hostname=host, on_event=lambda bev, what: events.append(what)
        )
    run_until(base, lambda: len(events) == 2)
    assert events == [BufferEventFlag.CONNECTED] * 2


@pytest.mark.parametrize("make", BELOW)
def test_the_end_by_tls_own_notice_is_eof(
    base: EventBase, authority: Authority, make: Callable[[EventBase, Authority], Below]
) -> None:
    one, other = layered(authority, make(base, authority))
    run_until(base, lambda: one.connected and other.connected)
    assert one.bev.shutdown() is True
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]
    other.bev.write(b"still")
    run_until(base, lambda: one.received)
    assert one.received == b"still"


def test_the_end_below_that_follows_tls_own_has_no_error(
    base: EventBase, authority: Authority
) -> None:
    one, other = layered(authority, over_sockets(base, authority))
    run_until(base, lambda: one.connected and other.connected)
    one.bev.close(flush=True)
    run_until(base, lambda: BufferEventFlag.ERROR in other.happened)
    assert BufferEventFlag.EOF in other.happened
    assert other.error is None


@pytest.mark.parametrize("dirty", [False, True])
def test_an_end_without_notice_is_an_error_unless_allowed(
    base: EventBase, authority: Authority, dirty: bool
) -> None:
    one, other = layered(authority, over_sockets(base, authority))
    run_until(base, lambda: one.connected and other.connected)
    other.bev.allow_dirty_shutdown = dirty
    one.bev.close()
    run_until(base, lambda: other.over)
    if dirty:
        assert other.events[1:] == [BufferEventFlag.EOF]
        assert other.error is None
    else:
        assert other.events[1:] == [BufferEventFlag.ERROR]
        assert isinstance(other.error, TlsError)
        assert other.error.reason == "UNEXPECTED_EOF_WHILE_READING"


@pytest.mark.parametrize("talk", [b"", b"\x16\x03\x01"])
def test_an_end_in_the_handshake_is_told(
    base: EventBase, authority: Authority, talk: bytes
) -> None:
    left, right = socket.socketpair()
    below = BufferEvent(base, left)
    end = End(BufferEvent.tls_filter, below, client_context(authority), server_hostname=HOST)
    settle(base)
    right.sendall(talk)
    right.close()
    run_until(base, lambda: end.over)
    assert isinstance(end.error, TlsError | ConnectionError)


def test_a_connection_that_is_refused_below_says_so(base: EventBase, authority: Authority) -> None:
    below = BufferEvent(base)
    end = End(BufferEvent.tls_filter, below, client_context(authority), server_hostname=HOST)
    below.connect(nobody_listens())
    run_until(base, lambda: end.over)
    assert isinstance(end.error, ConnectionRefusedError)


def test_what_is_below_can_be_connected_afterwards(base: EventBase, authority: Authority) -> None:
    accepted: list[End] = []

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        accepted.append(End(BufferEvent.tls, base, fd, server_context(authority)))

    below = BufferEvent(base)
    end = End(BufferEvent.tls_filter, below, client_context(authority), server_hostname=HOST)
    end.bev.write(b"hello")
    below.connect(Listener(base, ("127.0.0.1", 0), on_accept).address)
    run_until(base, lambda: accepted and accepted[0].received)
    assert accepted[0].received == b"hello"
    assert end.events == [BufferEventFlag.CONNECTED]


def test_it_takes_what_is_below_until_it_is_closed(base: EventBase, authority: Authority) -> None:
    below, _ = over_sockets(base, authority)
    bev = BufferEvent.tls_filter(below, client_context(authority), server_hostname=HOST)
    assert bev.underlying is below
    assert bev.fd == below.fd
    for use in (
        below.close,
        lambda: below.setcb(None, None, None),
        lambda: BufferEvent.tls_filter(below, client_context(authority), server_hostname=HOST),
        lambda: BufferEvent.filter(below, None, None),
    ):
        with pytest.raises(ValueError, match="is the underlying one of"):
            use()
    fd = bev.fd
    bev.close()
    with pytest.raises(ClosedError):
        _ = below.fd
    settle(base)
    assert not is_open(fd)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"server_hostname": None}, ValueError, "server_hostname must name the host"),
        ({"context": None}, TypeError, "context must be a TlsContext"),
        ({"options": 1 << 20}, ValueError, "options has bits"),
        ({"underlying": None}, TypeError, "underlying must be a BufferEvent, not None"),
        ({"on_event": 1}, TypeError, "on_event must be callable"),
    ],
)
def test_what_is_refused_leaves_what_is_below_free(
    base: EventBase, authority: Authority, arguments: dict[str, Any], error: Any, said: str
) -> None:
    below, _ = over_sockets(base, authority)
    context = client_context(authority)
    given: dict[str, Any] = {"underlying": below, "context": context, "server_hostname": HOST}
    with pytest.raises(error, match=said):
        BufferEvent.tls_filter(**{**given, **arguments})
    below.close()
    with pytest.raises(ClosedError):
        BufferEvent.tls_filter(**given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BufferEventOption.CLOSE_ON_FREE, "DEFER_CALLBACKS"),
        (BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE, "DEFER_CALLBACKS"),
    ],
)
def test_a_filter_that_calls_back_at_once_is_refused(
    base: EventBase, authority: Authority, options: int, said: str
) -> None:
    below = BufferEvent.filter(over_sockets(base, authority)[0], None, None, options)
    with pytest.raises(ValueError, match=f"underlying must be made with {said}"):
        BufferEvent.tls_filter(below, client_context(authority), server_hostname=HOST)
    below.write(b"still its own")
    below.close()


def test_the_descriptor_below_a_filter_is_found_and_not_lost(
    base: EventBase, authority: Authority, pair: Pair
) -> None:
    fd = pair[0].fileno()
    below = BufferEvent.filter(BufferEvent(base, pair[0]), None, None)
    bev = BufferEvent.tls_filter(below, client_context(authority), server_hostname=HOST)
    assert bev.fd == below.fd == fd
    assert bev.detach() == fd
    assert bev.fd == -1
    bev.fd = fd
    assert bev.fd == fd
    bev.close()
    settle(base)
    assert not is_open(fd)


@pytest.mark.parametrize("make", BELOW)
def test_a_lock_above_that_is_not_below_is_refused(
    base: EventBase, authority: Authority, make: Callable[..., Below]
) -> None:
    below, _ = make(base, authority)
    context, options = client_context(authority), BufferEventOption.THREADSAFE
    with pytest.raises(ValueError, match="underlying must be THREADSAFE"):
        BufferEvent.tls_filter(below, context, server_hostname=HOST, options=options)
    below.write(b"still its own")
    below.close()


@VALGRIND_TAKES_LONG
def test_a_lock_above_and_below_ends_with_the_last(authority: Authority, valgrind: bool) -> None:
    run_python(
        f"""
        import itertools, socket
        from libevent_py import *
        from tests.kit.peers import settle
        client = TlsContext(cafile={str(authority.ca.certfile)!r})
        SAFE, OWNED = BufferEventOption.THREADSAFE, BufferEventOption.CLOSE_ON_FREE
        for owned, alone in itertools.product((SAFE, SAFE | OWNED), (SAFE, SAFE | OWNED)):
            with EventBase() as base:
                left, right = socket.socketpair()
                below = BufferEvent(base, left, alone)
                BufferEvent.tls_filter(
                    below, client, server_hostname="server.test", options=owned
                ).close()
                settle(base)
                if not below.closed:
                    below.enable(EventFlag.READ)
                    below.write(b"in the clear")
                    settle(base)
                    below.close()
                settle(base)
                left.close()
                right.close()
        """,
        valgrind=valgrind,
    )


def test_a_connection_can_begin_with_tls_and_end_it_again(
    base: EventBase, authority: Authority
) -> None:
    below = over_sockets(base, authority)
    plain = [End(lambda bev=bev, **callbacks: adopted(bev, **callbacks)) for bev in below]
    for _ in range(3):
        plain[0].bev.write(b"begin")
        run_until(base, lambda: plain[1].received == b"begin")
        plain[1].received = b""
        both = layered(authority, below, options=DEFERRED)
        both[0].bev.write(b"secret")
        run_until(base, lambda: both[1].received == b"secret")  # noqa: B023
        run_until(base, lambda: both[0].connected)  # noqa: B023
        both[0].bev.shutdown()
        run_until(base, lambda: both[1].over)  # noqa: B023
        both[1].bev.shutdown()
        run_until(base, lambda: both[0].over)  # noqa: B023
        for end in both:
            assert end.error is None
            end.bev.close()
        assert plain[0].events == plain[1].events == []


def adopted(bev: BufferEvent, on_read: Any, on_event: Any) -> BufferEvent:
    """Give *bev* callbacks, as if it had been made with them."""
    bev.setcb(on_read, None, on_event)
    return bev


def test_one_that_is_closed_in_its_callback_does_not_disturb_the_next(
    base: EventBase, authority: Authority
) -> None:
    below = over_sockets(base, authority)
    seconds: list[End] = []
    named: dict[str, Any] = {"options": DEFERRED}

    def again(bev: BufferEvent, what: BufferEventFlag) -> None:
        index = below.index(bev.underlying)
        bev.close()
        context = (client_context, server_context)[index](authority)
        host = (HOST, None)[index]
        second = End(BufferEvent.tls_filter, below[index], context, server_hostname=host, **named)
        second.bev.write(b"from the second")
        seconds.append(second)

    client = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
    server = server_context(authority, maximum_version=TlsVersion.TLSv1_2)
    BufferEvent.tls_filter(below[0], client, server_hostname=HOST, on_event=again, **named)
    BufferEvent.tls_filter(below[1], server, on_event=again, **named)
    run_until(base, lambda: len(seconds) == 2 and all(end.received for end in seconds))
    assert [end.received for end in seconds] == [b"from the second"] * 2
    assert [end.events for end in seconds] == [[BufferEventFlag.CONNECTED]] * 2


def test_a_filter_can_stand_on_tls(base: EventBase, authority: Authority) -> None:
    both = connected_ends(base, authority)
    upper = [End(BufferEvent.filter, end.bev, scrambled, scrambled) for end in both]
    upper[0].bev.write(b"over TLS")
    run_until(base, lambda: upper[1].received)
    assert upper[1].received == b"over TLS"


def test_a_new_descriptor_below_begins_the_handshake_anew(
    base: EventBase, authority: Authority
) -> None:
    one, other = layered(authority, over_sockets(base, authority))
    run_until(base, lambda: one.connected and other.connected)
    left, right = socket.socketpair()
    again = End(BufferEvent.tls, base, right, server_context(authority))
    one.events.clear()
    one.bev.fd = left
    one.bev.write(b"once more")
    run_until(base, lambda: again.received)
    assert BufferEventFlag.CONNECTED in one.happened
    assert again.received == b"once more"


def test_a_descriptor_can_be_taken_from_below(base: EventBase, authority: Authority) -> None:
    one, _ = layered(authority, over_sockets(base, authority))
    settle(base)
    fd = one.bev.detach()
    one.bev.close()
    settle(base)
    assert is_open(fd)
    os.close(fd)


@VALGRIND_TAKES_LONG
def test_what_is_below_can_not_reach_tls_while_openssl_is_at_work(
    authority: Authority, valgrind: bool
) -> None:
    run_python(
        f"""
        import socket
        from pathlib import Path
        from libevent_py import *
        from tests.kit.peers import run_until
        from tests.kit.tls_peers import End
        certificates = Path({str(authority.directory)!r})
        client = TlsContext(cafile=certificates / "ca.pem")
        own = certificates / "server.pem", certificates / "server.key"
        server = TlsContext(server_side=True, certfile=own[0], keyfile=own[1])
        tried = []

        def meddle():
            for use in (
                lambda: upper.bev.read(),
                lambda: upper.bev.write(b"x"),
                lambda: upper.bev.input.drain(10),
                lambda: kept_input.drain(10),
                lambda: kept_output.drain(10),
                lambda: kept_output.add(b"x"),
                lambda: upper.bev.shutdown(),
                lambda: upper.bev.enable(EventFlag.READ),
                lambda: top.bev.write(b"x"),
                lambda: top.bev.close(),
            ):
                try:
                    use()
                except RuntimeError as error:
                    assert "can't be used in a callback of the one that it stands on" in str(error)
                    tried.append(use)
                else:
                    raise AssertionError("nothing was refused")

        def meddling(source, destination, limit, mode):
            if ready:
                meddle()
                for bev in (upper.bev, top.bev):
                    assert not bev.closed
            destination.add_buffer(source)
            return FilterResult.OK

        with EventBase() as base:
            ready = False
            left, right = socket.socketpair()
            below = BufferEvent.filter(BufferEvent(base, left), meddling, meddling)
            upper = End(BufferEvent.tls_filter, below, client, server_hostname="server.test")
            peer = End(BufferEvent.tls, base, right, server)
            run_until(base, lambda: upper.connected and peer.connected)
            kept_input, kept_output = upper.bev.input, upper.bev.output
            top = End(BufferEvent.filter, upper.bev, None, None)
            ready = True
            data = bytes(range(256)) * 200
            for _ in range(3):
                peer.bev.write(data)
                top.bev.write(data)
            run_until(base, lambda: len(top.received) == len(peer.received) == 3 * len(data))
            assert tried
            below.output.add_cb(lambda buffer, info: meddle())
            tried.clear()
            top.bev.write(data)
            run_until(base, lambda: len(peer.received) == 4 * len(data))
            assert tried
            assert top.received + data == peer.received == 4 * data
        """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_any_order_of_closing_touches_no_freed_memory(authority: Authority, valgrind: bool) -> None:
    run_python(
        f"""
        import gc, itertools, socket
        from pathlib import Path
        from libevent_py import *
        from tests.kit.peers import settle
        from tests.kit.tls_peers import End
        certificates = Path({str(authority.directory)!r})
        client = TlsContext(cafile=certificates / "ca.pem")
        own = certificates / "server.pem", certificates / "server.key"
        server = TlsContext(server_side=True, certfile=own[0], keyfile=own[1])
        OWNED, DEFERRED = BufferEventOption.CLOSE_ON_FREE, BufferEventOption.DEFER_CALLBACKS

        def made(base, options, pair):
            if pair:
                below = BufferEvent.pair(base)
            else:
                left, right = socket.socketpair()
                below = BufferEvent(base, left), BufferEvent(base, right)
            one = End(BufferEvent.tls_filter, below[0], client, server_hostname="server.test",
                      options=options)
            other = End(BufferEvent.tls_filter, below[1], server, options=options)
            return below, (one, other)

        def closing(bev, what):
            bev.close()

        for options, pair, turns in itertools.product(
            (OWNED | DEFERRED, OWNED, DEFERRED, 0), (False, True), (0, 4, 12)
        ):
            for how in ("ends", "base", "drop", "callback"):
                base = EventBase()
                below, both = made(base, options, pair)
                if how == "callback":
                    for end in both:
                        end.bev.on_event = closing
                for end in both:
                    end.bev.write(b"x" * 1000)
                for _ in range(turns):
                    base.loop(LoopFlag.NONBLOCK)
                if how == "ends":
                    for end in both:
                        end.bev.close()
                    settle(base)
                    for bev in below:
                        bev.close()
                if how == "drop":
                    del base, below, both, end
                    gc.collect()
                else:
                    base.close()
        """,
        valgrind=valgrind,
    )


def test_nothing_is_left_of_those_that_are_dropped(base: EventBase, authority: Authority) -> None:
    for make in BELOW:
        for end in layered(authority, make(base, authority)):
            end.bev.close()
    settle(base)
    gc.collect()
    assert not base._live
    assert lib.ERR_get_error() == 0
