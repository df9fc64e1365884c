"""HTTPS by HTTP's client: whom it believes, and what it says when it doesn't."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    EventBaseCount,
    HttpConnection,
    HttpRequest,
    HttpRequestError,
    TlsContext,
    TlsError,
    TriggerOption,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.dns_peers import SILENCE, NameServer, client_of
from tests.kit.http_peers import (
    NOTHING,
    OK,
    Asked,
    Server,
    ask,
    chunked,
    client,
    response,
    then_close,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import nobody_listens, run_until, settle
from tests.kit.support import run_python
from tests.kit.tls_peers import client_context, openssl_server, server_context


@pytest.fixture
def believing(authority: Authority) -> TlsContext:
    """A context that believes the tests' authority."""
    return client_context(authority)


def test_a_response_comes_over_tls(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    server = Server(base, response(b"x" * 300_000), OK, context=server_context(authority))
    connection = client(base, server, tls=believing, server_hostname=HOST)
    assert ask(connection).body == b"x" * 300_000
    assert ask(connection).body == b"hello"
    assert len(server.connections) == 1
    bev = connection.bufferevent
    assert bev.tls_version == "TLSv1.3"
    assert bev.server_hostname == HOST
    assert bev.peer_certificate is not None


def test_the_certificate_is_to_be_for_the_host_by_default(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    server = Server(base, OK, context=server_context(authority))  # which is for 127.0.0.1, too
    assert ask(client(base, server, tls=believing)).error is None


@pytest.mark.parametrize("end", [b"HTTP/1.1 200 OK\r\n\r\nall of it", chunked(b"all ", b"of it")])
def test_what_comes_with_the_end_is_not_lost(
    base: EventBase, authority: Authority, believing: TlsContext, end: bytes
) -> None:
    server = Server(base, then_close(end), context=server_context(authority))
    asked = ask(client(base, server, tls=believing))
    assert (asked.error, asked.body) == (None, b"all of it")


def test_a_wrong_host_is_not_believed(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    server = Server(base, OK, context=server_context(authority))
    connection = client(base, server, tls=believing, server_hostname="other.test")
    for _ in range(2):
        asked = ask(connection)
        assert asked.error.code == HttpRequestError.EOF
        cause = asked.error.__cause__
        assert isinstance(cause, TlsError)
        assert cause.reason == "CERTIFICATE_VERIFY_FAILED"
        assert cause.verify_message == "hostname mismatch"
        assert "hostname mismatch" in str(asked.error)
    assert server.requests == []


def test_an_authority_that_is_not_known_is_not_believed(
    base: EventBase, authority: Authority
) -> None:
    server = Server(base, OK, context=server_context(authority))
    asked = ask(client(base, server, tls=TlsContext()))
    assert asked.error.__cause__.reason == "CERTIFICATE_VERIFY_FAILED"
    assert server.requests == []


def test_a_server_that_speaks_no_tls_is_an_error(base: EventBase, believing: TlsContext) -> None:
    server = Server(base, NOTHING)
    server.listener.callback = lambda listener, fd, address: BufferEvent(base, fd).write(OK)
    asked = ask(client(base, server, tls=believing))
    assert isinstance(asked.error.__cause__, TlsError)


def test_a_connection_cut_off_is_told_from_its_end(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    def cut(bev: BufferEvent) -> None:
        bev.write(b"HTTP/1.1 200 OK\r\n\r\nnot all")
        bev.on_write = lambda bev: bev.close()  # which tells the client nothing

    server = Server(base, cut, context=server_context(authority))
    asked = ask(client(base, server, tls=believing))
    assert asked.error is not None
    assert isinstance(asked.error.__cause__, TlsError)


def test_a_new_connection_is_made_with_tls_too(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    closing = then_close(response(b"1", "Connection: close"))
    server = Server(base, closing, OK, context=server_context(authority))
    connection = client(base, server, tls=believing)
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: other.ended)
    assert (one.body, other.body) == (b"1", b"hello")
    assert len(server.connections) == 2
    assert connection.bufferevent.tls_version == "TLSv1.3"


@pytest.mark.parametrize("behind", [True, False])
def test_the_end_of_one_connection_is_not_taken_for_that_of_the_next(
    base: EventBase, authority: Authority, believing: TlsContext, behind: bool
) -> None:
    def end_comes_with_it(request: HttpRequest) -> None:
        bev = lib.evhttp_connection_get_bufferevent(connection.pointer)
        what = BufferEventFlag.EOF | BufferEventFlag.READING
        lib.bufferevent_trigger_event(bev, what, TriggerOption.DEFER_CALLBACKS)

    closing = then_close(response(b"hello", "Connection: close"))
    connection = client(
        base, Server(base, closing, context=server_context(authority)), tls=believing
    )
    asked = [Asked(on_header=end_comes_with_it) for _ in range(3)]
    for number, one in enumerate(asked):
        if behind or not number:
            one.on(connection)
        else:
            asked[number - 1].then = lambda request, one=one: one.on(connection)  # type: ignore[misc]
    run_until(base, lambda: asked[2].ended)
    assert [(one.error, one.body) for one in asked] == [(None, b"hello")] * 3


@pytest.mark.parametrize("given", [False, True])
def test_a_lookup_that_is_cancelled_connects_nothing_more(
    base: EventBase, authority: Authority, believing: TlsContext, given: bool
) -> None:
    server = Server(base, OK, context=server_context(authority))
    how: dict[str, Any] = {"tls": believing}
    if given:
        how = {"bufferevent": BufferEvent.tls(base, -1, believing, server_hostname=HOST)}
    with NameServer(base, {HOST: SILENCE}) as names, client_of(names) as dns:
        connection = HttpConnection(base, HOST, server.port, dns_base=dns, **how)
        connection.family, connection.max_body_size = socket.AF_INET, 1
        one, other = Asked().on(connection), Asked().on(connection)
        run_until(base, lambda: names.asked)
        one.request.cancel()
        assert one.error.code == HttpRequestError.REQUEST_CANCEL
        assert not connection.closed
        run_until(base, lambda: len(names.asked) > 1)
        for question in names.asked:
            names.answer(question, ["127.0.0.1"])
        run_until(base, lambda: other.ended)
        assert other.error.code == HttpRequestError.DATA_TOO_LONG
        assert other.code == 200
        connection.close()
        run_until(base, lambda: not base.num_events(EventBaseCount.ACTIVE))


def test_a_request_is_tried_again_with_tls(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port, tls=believing)
    asked = ask(connection)
    assert isinstance(asked.error.__cause__, ConnectionRefusedError)
    connection.retries, connection.initial_retry = 100, 0.001
    asked = Asked().on(connection)
    run_until(base, lambda: connection._queue.tries > 2)
    Server(base, OK, context=server_context(authority), port=port)
    run_until(base, lambda: asked.ended)
    assert asked.body == b"hello"


def test_a_bufferevent_with_tls_can_be_given(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    server = Server(base, OK, context=server_context(authority))
    bev = BufferEvent.tls(base, -1, believing, server_hostname="other.test")
    connection = client(base, server, bufferevent=bev)
    del bev
    assert ask(connection).error.__cause__.verify_message == "hostname mismatch"
    bev = BufferEvent.tls(base, -1, believing, server_hostname=HOST)
    connection = client(base, server, bufferevent=bev)
    assert ask(connection).body == b"hello"
    assert connection.bufferevent.cipher is not None


def test_tls_without_close_on_free_is_refused(base: EventBase, believing: TlsContext) -> None:
    kept: Any = BufferEventOption.DEFER_CALLBACKS
    server = Server(base, OK)
    with (
        BufferEvent.tls(base, -1, believing, server_hostname=HOST, options=kept) as bev,
        pytest.raises(ValueError, match="CLOSE_ON_FREE"),
    ):
        client(base, server, bufferevent=bev)
    with pytest.raises(ValueError, match="can't be given together"):
        client(base, server, tls=believing, bufferevent=BufferEvent(base))
    settle(base)


def test_openssls_own_server_answers(
    base: EventBase, authority: Authority, believing: TlsContext
) -> None:
    own = authority.server
    arguments = ("-www", "-cert", str(own.certfile), "-key", str(own.keyfile))
    with openssl_server(*arguments) as (host, port):
        asked = ask(HttpConnection(base, host, port, tls=believing))
    assert asked.error is None
    assert asked.code == 200
    assert b"Ciphers" in asked.body


@VALGRIND_TAKES_LONG
def test_ending_https_everywhere_touches_no_memory_that_is_freed(
    authority: Authority, valgrind: bool
) -> None:
    own = authority.server
    run_python(
        """
    import gc, sys
    from libevent_py import *
    from tests.kit.http_peers import *
    from tests.kit.peers import nobody_listens, run_until, settle

    certfile, keyfile, cafile = sys.argv[1:]
    context = TlsContext(server_side=True, certfile=certfile, keyfile=keyfile)
    believing = TlsContext(cafile=cafile)
    for name in "127.0.0.1", "other.test":
        for act in ("close", "cancel", "end", "drop"):
            for where in "on_header", "on_chunk", "then", "sent":
                base = EventBase()
                server = Server(base, chunked(b"a", b"b"), context=context)
                connection = client(base, server, tls=believing, server_hostname=name)
                bev = connection.bufferevent if where == "then" else None

                def do(*arguments):
                    if act == "close":
                        asked.request.connection and asked.request.connection.close()
                    elif act == "cancel":
                        asked.request.cancel()
                    elif act == "end":
                        asked.request.close()

                asked = Asked(**({where: do} if where in ("on_header", "on_chunk") else {}))
                if where == "then":
                    asked.then = do
                asked.on(connection)
                if where == "sent":
                    base.loopexit(0.01)
                    base.loop()
                    do()
                del connection
                base.loopexit(0.05)
                base.loop()
                if act == "drop":
                    del base, server, asked, do, bev
                    gc.collect()
                else:
                    base.close()
                    assert asked.ended == 1, (name, act, where)
    """,
        str(own.certfile),
        str(own.keyfile),
        str(authority.ca.certfile),
        valgrind=valgrind,
    )
