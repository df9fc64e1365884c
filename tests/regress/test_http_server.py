"""Group ``http`` of libevent's regression suite, the server's half.

What libevent's own suite fails on OpenSSL 3 passes here: an end without notice is EOF where that is
allowed (I6).
"""

from __future__ import annotations

import contextlib
import time

import pytest

from libevent_py import (
    BufferEventFlag,
    EventBase,
    HttpCommand,
    HttpServer,
    HttpServerFlag,
    HttpServerRequest,
)
from tests.kit.certificates import Authority
from tests.kit.peers import run_until
from tests.kit.regress_http import (
    BODY,
    CHUNKS,
    DISPATCHED,
    FINE,
    LONG,
    Raw,
    Site,
    ask,
    bufferevent,
    connection,
    data_length_constraints,
    failed,
    funny,
    refused,
    request,
)
from tests.kit.tls_peers import Contexts


@pytest.fixture
def contexts(authority: Authority) -> Contexts:
    return Contexts(authority)


def fine(raw: Raw, body: bytes = BODY) -> None:
    """Have what *raw* has received be one of the server's replies, with *body*."""
    status, headers, received = raw.answer
    assert status == f"HTTP/1.1 200 {FINE}"
    assert "Content-Type" in headers
    assert received == body


def test_primitives(base: EventBase) -> None:
    """A path has one callback at most."""
    with HttpServer(base) as server:
        server.set_cb("/test", print)
        with pytest.raises(ValueError, match="has a handler already"):
            server.set_cb("/test", print)
        server.del_cb("/test")
        with pytest.raises(KeyError, match="has no handler"):
            server.del_cb("/test")
        server.set_cb("/test", print)


def test_base(backend_base: EventBase) -> None:
    """A server answers by the loop of its own base, whatever other bases there are."""
    with EventBase():
        site = Site(backend_base)
        raw = Raw(site, request("/test"), until=BODY).run()
        assert raw.written == 1
        fine(raw)


def basic(
    base: EventBase,
    contexts: Contexts | None = None,
    *,
    filtering: bool = False,
    line: str = "GET /test HTTP/1.1",
) -> None:
    """Ask in two halves, then by another port, then for an absolute URI."""
    site = Site(base, contexts)
    second = site.bind()
    rest = "host\r\nConnection: close\r\n\r\n"
    head = f"{line}\r\nHost: some"
    absolute = request("http://somehost.net/test")
    for port, said in (
        (site.port, [head.encode(), rest.encode()]),
        (second, [(head + rest).encode()]),
        (second, [absolute]),
    ):
        raw = Raw(site, *said, port=port, until=BODY, filtering=filtering).run()
        assert raw.written == len(said)
        fine(raw)


def test_basic(backend_base: EventBase) -> None:
    """Requests are answered that come in pieces, and by each of several ports."""
    basic(backend_base)


def test_basic_trailing_space(backend_base: EventBase) -> None:
    """A space after the version does no harm."""
    basic(backend_base, line="GET /test HTTP/1.1 ")


def test_delete(backend_base: EventBase) -> None:
    """A DELETE gets an answer with a body."""
    site = Site(backend_base)
    said = request("/deleteit", method="DELETE")
    raw = Raw(site, said, until=BODY).run()
    assert raw.written == 1
    fine(raw)


def test_bad_request(backend_base: EventBase) -> None:
    """Who has asked for nothing gets nothing, and who asked once one answer; a 400 nobody."""
    site = Site(backend_base)
    second = site.bind()
    raw = Raw(site)
    raw.shut()
    raw.run()
    assert (raw.written, raw.received) == (0, b"")

    said = b"GET /badrequest HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
    raw = Raw(site, said, port=second, until=b"Hello, 127.0.0.1!")
    raw.then = raw.shut
    raw.run()
    assert raw.written == 1
    assert raw.ended == BufferEventFlag.READING | BufferEventFlag.EOF
    status, headers, body = raw.answer
    assert status == "HTTP/1.0 200 OK"
    assert headers["Content-Type"] == "text/xml; charset=UTF-8"
    assert body == b"Hello, 127.0.0.1!"


def test_virtual_host(backend_base: EventBase) -> None:
    """Hosts have handlers of their own, by patterns and by other names."""
    site = Site(backend_base)
    second, third = HttpServer(backend_base), HttpServer(backend_base)
    second.set_cb("/funnybunny", site.basic)
    third.set_cb("/blackcoffee", site.basic)
    site.server.add_virtual_host("foo.com", second)
    site.server.add_virtual_host("bar.*.foo.com", third)
    second.add_server_alias("manolito.info")
    third.add_server_alias("bonkers.org")
    with connection(site) as evcon:
        assert ask(evcon, "/funnybunny").code != 200
        for uri, host in (
            ("/funnybunny", "foo.com"),
            ("/blackcoffee", "bar.magic.foo.com"),
            ("/funnybunny", "manolito.info"),
            ("/blackcoffee", "bonkers.org:8000"),
        ):
            funny(ask(evcon, uri, Host=host))
    said = request("http://manolito.info/funnybunny")
    raw = Raw(site, said, until=BODY).run()
    assert raw.written == 1
    fine(raw)


def test_allowed_methods(backend_base: EventBase) -> None:
    """A method that isn't allowed gets 501, as does one that nobody knows."""
    site = Site(backend_base)
    site.server.allowed_methods = HttpCommand.PATCH
    for method, path, code in (
        ("GET", "/index.html", 501),
        ("PATCH", "/test", 200),
        ("FLOOP", "/test", 501),
    ):
        raw = Raw(site, request(path, method=method)).run()
        assert raw.ended
        assert raw.answer[0].startswith(f"HTTP/1.1 {code} ")


def test_failure(backend_base: EventBase) -> None:
    """A malformed request gets 400."""
    site = Site(backend_base)
    until = b"400 Bad Request"
    raw = Raw(site, b"illegal request\r\n", until=until).run()
    assert until in raw.received


def incomplete(base: EventBase, contexts: Contexts | None = None, *, timeout: bool) -> None:
    """Ask for half a thing, and say no more, or stay silent."""
    site = Site(base, contexts)
    site.server.timeout = 0.3 if timeout else 1000
    said = b"GET /test HTTP/1.1\r\nHost: somehost\r\n"
    raw = Raw(site, said)
    if not timeout:
        raw.after = raw.shut
    begun = time.monotonic()
    raw.run()
    assert raw.written == 1
    assert raw.received == b""
    assert raw.ended == BufferEventFlag.READING | BufferEventFlag.EOF
    if timeout:
        assert time.monotonic() - begun >= 0.2


def test_incomplete(backend_base: EventBase) -> None:
    """A connection that ends within a request is closed without an answer."""
    incomplete(backend_base, timeout=False)


def test_incomplete_timeout(backend_base: EventBase) -> None:
    """A connection that is silent within a request is closed after a while."""
    incomplete(backend_base, timeout=True)


def terminate_chunked(base: EventBase, *, oneshot: bool) -> None:
    """Have the client close the connection after the first chunk."""
    site = Site(base)
    waiting: list[HttpServerRequest] = []
    closed: list[bool] = []
    raw = Raw(site, b"GET /test HTTP/1.1\r\nHost: some\r\n\r\n", until=b"a chunk")
    raw.then = raw.close

    def on_close(_connection: object) -> None:
        closed.append(True)
        if oneshot:
            waiting.clear()
            base.loopexit()

    def trickle(_fd: int, _what: int) -> None:
        if waiting[0].connection is None:
            waiting.pop().send_reply_end()
            base.loopexit()
            return
        waiting[0].send_reply_chunk(b"a chunk")
        if not oneshot:
            base.once(trickle, timeout=0.003)

    def begin(request: HttpServerRequest) -> None:
        assert request.connection is not None
        request.connection.on_close = on_close
        waiting.append(request)
        request.send_reply_start(200, "OK")
        base.once(trickle, timeout=0.003)

    site.server.del_cb("/test")
    site.server.set_cb("/test", begin)
    assert base.dispatch()
    assert closed == [True]
    assert waiting == []


def test_terminate_chunked(backend_base: EventBase) -> None:
    """A request without a connection can still be ended."""
    terminate_chunked(backend_base, oneshot=False)


def test_terminate_chunked_oneshot(backend_base: EventBase) -> None:
    """The same when nothing more would have been sent, and the request is dropped."""
    terminate_chunked(backend_base, oneshot=True)


def test_on_complete(backend_base: EventBase) -> None:
    """A handler can be told when its reply has been written."""
    site = Site(backend_base)
    raw = Raw(site, request("/oncomplete"), until=BODY).run()
    assert raw.written == 1
    fine(raw)
    assert site.completed == 1


def test_highport(backend_base: EventBase) -> None:
    """A server can listen on one of the highest ports."""
    for port in range(65535, 65485, -1):
        server = HttpServer(backend_base)
        with contextlib.suppress(OSError), server:
            assert server.bind_socket("127.0.0.1", port).port == port
            return
    pytest.fail("no high port could be had")


def test_dispatcher(backend_base: EventBase) -> None:
    """The path that a handler is found by is decoded, and has no query."""
    site = Site(backend_base)
    with connection(site) as evcon:
        evcon.local_address = "127.0.0.1"
        funny(ask(evcon, "/?arg=val"), DISPATCHED)
        funny(ask(evcon, "/%74est?arg=val"))


def test_multi_line_header(backend_base: EventBase) -> None:
    """A header on several lines is joined to one, though such can't be sent (CVE-2026-63385)."""
    site = Site(backend_base)
    folded = ["X-Multi-Extra-WS:  libevent  ", "\t\t\t2.1 ", "X-Multi:  aaaaaaaa", " a", "\tEND"]
    said = request("/test", *folded, "X-Last: last")
    raw = Raw(site, said, until=BODY).run()
    assert raw.written == 1
    fine(raw)
    assert site.headers["X-Multi-Extra-WS"] == "libevent 2.1"
    assert site.headers["X-Multi"] == "aaaaaaaa a END"
    assert site.headers["X-Last"] == "last"


def test_negative_content_length(backend_base: EventBase) -> None:
    """A client refuses a reply with a negative length."""
    site = Site(backend_base)
    with connection(site) as evcon:
        failed(ask(evcon, "/test", X_Negative="makeitso"))


def chunk_out(
    base: EventBase, contexts: Contexts | None = None, *, filtering: bool = False
) -> None:
    """Get an answer in chunks, by hand and then twice as a client on one connection."""
    site = Site(base, contexts)
    raw = Raw(site, request("/chunked"), filtering=filtering).run()
    assert raw.written == 1
    assert raw.ended
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*CHUNKS, b""))
    fine(raw, chunks)
    headers = raw.answer[1]
    assert headers["Transfer-Encoding"] == "chunked"
    assert headers["Connection"] == "close"

    bev = bufferevent(base, -1, site.client_context, filtering)
    if (
        filtering
    ):  # O11: when it ends, libevent leaves the descriptor that it closes in what is below
        with bev, pytest.raises(ValueError, match="must not stand on another one"):
            connection(site, bev)
        return
    with connection(site, bev) as evcon:
        for _ in range(2):
            asked = ask(evcon, "/chunked")
            funny(asked, b"".join(CHUNKS))
            assert dict(asked.headers)["Transfer-Encoding"] == "chunked"


def test_chunk_out(backend_base: EventBase) -> None:
    """A client of HTTP/1.1 gets an answer of unknown length in chunks."""
    chunk_out(backend_base)


def stream_out(base: EventBase, contexts: Contexts | None = None) -> None:
    """Get an answer piece by piece whose length is known."""
    site = Site(base, contexts)
    with connection(site, bufferevent(base, -1, site.client_context)) as evcon:
        asked = ask(evcon, "/streamed")
        funny(asked, b"".join(CHUNKS))
        assert "Transfer-Encoding" not in dict(asked.headers)


def test_stream_out(backend_base: EventBase) -> None:
    """An answer whose length is known is sent as it is, though piece by piece."""
    stream_out(backend_base)


def test_data_length_constraints(backend_base: EventBase) -> None:
    """A server refuses headers, lines and bodies that are too long, and an expectation."""
    data_length_constraints(backend_base, read_on_write_error=False)


def lingering_close(base: EventBase, *, lingering: bool) -> None:
    """Send more than the server takes."""
    site = Site(base)
    if lingering:
        site.server.flags = HttpServerFlag.LINGERING_CLOSE
    site.server.max_body_size = LONG // 2
    with connection(site) as evcon:
        evcon.local_address = "127.0.0.1"
        asked = ask(evcon, "/", HttpCommand.POST, b"a" * LONG)
        (refused(413) if lingering else failed)(asked)


def test_non_lingering_close(backend_base: EventBase) -> None:
    """A server that has had enough closes at once, and the client doesn't hear why."""
    lingering_close(backend_base, lingering=False)


def test_lingering_close(backend_base: EventBase) -> None:
    """A server that throws the rest away first is heard."""
    lingering_close(backend_base, lingering=True)


def test_get_addr(backend_base: EventBase) -> None:
    """A client's connection knows whom it has connected to, also when that has ended."""
    site = Site(backend_base)
    where = ("127.0.0.1", site.port)
    seen: list[object] = []
    with connection(site) as evcon:
        evcon.on_close = lambda evcon: seen.append(evcon.address)
        assert evcon.address is None
        funny(ask(evcon, "/test"))
        assert evcon.address == where
        funny(ask(evcon, "/test", Connection="close"))
        run_until(backend_base, lambda: seen)
        assert seen == [where]
        assert evcon.address == where


def test_https_basic(backend_base: EventBase, contexts: Contexts) -> None:
    basic(backend_base, contexts)


def test_https_filter_basic(backend_base: EventBase, contexts: Contexts) -> None:
    basic(backend_base, contexts, filtering=True)


def test_https_incomplete(backend_base: EventBase, contexts: Contexts) -> None:
    incomplete(backend_base, contexts, timeout=False)


def test_https_incomplete_timeout(backend_base: EventBase, contexts: Contexts) -> None:
    incomplete(backend_base, contexts, timeout=True)


def test_https_chunk_out(backend_base: EventBase, contexts: Contexts) -> None:
    chunk_out(backend_base, contexts)


def test_https_filter_chunk_out(backend_base: EventBase, contexts: Contexts) -> None:
    chunk_out(backend_base, contexts, filtering=True)


def test_https_stream_out(backend_base: EventBase, contexts: Contexts) -> None:
    stream_out(backend_base, contexts)
