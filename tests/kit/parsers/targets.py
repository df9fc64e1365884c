"""All targets by name, each with the inputs to begin with."""

from __future__ import annotations

from typing import NamedTuple

from tests.kit.dns_packets import AAAA, CNAME, PTR, QR, RA, RD, A, encoded, header, query, record
from tests.kit.parsers import names, texts, web
from tests.kit.parsers.checked import Target
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg

#: Of the first bytes: no options, and all that follows in one piece.
PLAIN = b"\0\0"

#: A pointer to the name of the question.
HERE = b"\xc0\x0c"


class Aim(NamedTuple):
    """A target, and inputs that get somewhere."""

    target: Target
    seeds: list[bytes]


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /one?a=b%20c HTTP/1.1\r\nHost: www.example:80\r\nX: y\r\n z\r\nCookie: q=1\r\n\r\n",
    b"GET http://u@other:8080/two#f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloHEAD / HTTP/1.1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"5\r\nhello\r\n1a;b=c\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n"
    + CHUNKED
    + b"5\r\nhello\r\n0\r\nTrailer: v\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nContent-Length: 0\r\n\r\nTRACE / HTTP/1.1\r\n\r\n"
    b"PATCH / HTTP/1.1\r\n\r\n",
]

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nServer: a\r\n\r\nto the end",
    b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nTrailer: v\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\nA: b\r\n c\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nL nk: 1\r\n 2\r3\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nmore",
    b"HTTP/1.1 302\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n",
]

ANSWER = header(0, QR | RD | RA, questions=1, answers=1)
ANSWERS = [
    ANSWER + record(HERE, A, b"\xc0\0\2\1"),
    header(0, QR | RD | RA, answers=2)
    + record(HERE, CNAME, encoded(b"b.example"))
    + record(HERE, A, b"\xc0\0\2\1\xc0\0\2\2"),
    ANSWER + record(HERE, AAAA, bytes(15) + b"\1"),
    ANSWER + record(HERE, PTR, encoded(b"b.example")),
    header(0, QR | RD | RA | 3, more=(1, 0))
    + record(HERE, 6, encoded(b"ns.example") + HERE + bytes(16) + b"\0\0\0\x3c"),
    header(0, QR | RD | RA | 2),
    header(0, QR | RD | 0x0200),
]

QUERIES = [
    query(b"www.a.example"),
    query(b"www.a.example", AAAA),
    query(b"1.2.0.192.in-addr.arpa", PTR),
    header(1, questions=2) + encoded(b"a.b") + b"\0\1\0\1" + b"\xc0\x0e\0\1\0\1",
    query(b"a" * 63 + b"." + b"b" * 63),
]

RESOLV_CONFS = [
    b"nameserver 127.0.0.2\nsearch a.example b.example\noptions ndots:2 timeout:1 attempts:2\n",
    b"# none\ndomain c.example\noptions max-timeouts:2 max-inflight:3 bind-to:127.0.0.1\n"
    b"nameserver [::1]:53\nnameserver 127.0.0.3:5353\n",
    b"options getaddrinfo-allow-skew:3 initial-probe-timeout:5 so-rcvbuf:100 randomize-case:0\n",
]

HOSTS = [
    b"192.0.2.1 www.a.example www # one\n2001:db8::1 six\n",
    b"127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\nfe80::1%lo scoped\n",
]

MESSAGES = [
    bytes(REQUEST),
    bytes(Msg(from_name="a", to_name="b", attack=REPLY)),
]

REPLIES = [bytes(REPLY), bytes(Kill(weapon="", action="b", how_often=[1, 2**32 - 1]))]

ITEMS = [
    b"\0\0\0\0\0\0\1\x13abc\2\x01\3\4\x11\x10",
    b"\0\3\4\5\6\0\1\x22\x10\2\x11\1",
    b"\4\1\2\7\x0a\2\x81\1\x14abcd\xff\xff\xff\xff\x0f\0",
]

LINES = [
    b"\0\1\0\0a line\r\nanother\n\nthe third\r\r\n\0and the rest",
    b"\x21\3\2\5ab\r\nabab\r\nab\r\n",
    b"\x5b\2\1\2\r\r\n\r\n\n\0\0a",
]

URIS = [
    b"\0http://user:pw@a.example:8080/b/c;d?e=f&g=%20h#i",
    b"\0//[2001:db8::1]:1/?",
    b"\1/a b?c d#e f",
    b"\0mailto:a@b.example",
    b"\0a=1&b=%2B+c&a=",
    b"\0http://[v1.a:b]/",
]

FIELDS = [b"Host: a\nX-Long:" + b"v" * 70 + b"\nhost: b", b"A:\n:b\nSet-Cookie: c=d; e\nA: 2"]

ADDRESSES = [
    b"192.0.2.1\n192.0.2.1:80\n::1\n[::1]:65535\n::ffff:192.0.2.1\nfe80::1%lo\n[fe80::1%1]:2",
    b"1:2:3:4:5:6:7:8\n1::8\n0.0.0.0:0\n255.255.255.255\n[::]\n2001:db8::192.0.2.1",
]

TARGETS: dict[str, Aim] = {
    "requests": Aim(web.requests, [PLAIN + one for one in REQUESTS]),
    "responses": Aim(web.responses, [b"\x18\0" + one for one in RESPONSES]),
    "answers": Aim(
        names.answers,
        [bytes([16 + n % 8, 0]) + one for n in range(8) for one in ANSWERS],
    ),
    "questions": Aim(
        names.questions, [bytes([n, 0]) + one for n in (0, 1, 2, 3, 8) for one in QUERIES]
    ),
    "calls": Aim(web.calls, [PLAIN + one for one in MESSAGES]),
    "replies": Aim(web.replies, [PLAIN + one for one in REPLIES]),
    "messages": Aim(texts.messages, [PLAIN + one for one in MESSAGES]),
    "tags": Aim(texts.tags, ITEMS),
    "uris": Aim(texts.uris, URIS),
    "headers": Aim(texts.headers, FIELDS),
    "addresses": Aim(texts.addresses, ADDRESSES),
    "resolv_conf": Aim(names.resolv_conf, [b"\1" + one for one in RESOLV_CONFS]),
    "hosts": Aim(names.hosts, [b"\0" + one for one in HOSTS]),
    "buffers": Aim(texts.buffers, LINES),
}
