"""Malformed HTTP requests, by what evhttp makes of them; another engine may make something else."""

from __future__ import annotations

import re
from typing import NamedTuple

#: What the server takes at most, in bytes.
HEADERS, BODY = 8192, 65536

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
END = b"0\r\n\r\n"
STATUS = re.compile(rb"HTTP/\S+ (\d{3}) ")


class Served(NamedTuple):
    """A request that is served: what becomes of the connection, and what the first handler got."""

    raw: bytes
    #: The answers' statuses, and whether the server then closes.
    outcome: str = "200"
    uri: str = "/"
    body: bytes = b""


def line(text: bytes) -> bytes:
    """Return a request with a request line of *text*."""
    return text + b"\r\nHost: a\r\n\r\n"


def header(text: bytes) -> bytes:
    """Return a request with a first header of *text*."""
    return b"GET / HTTP/1.1\r\n" + text + b"\r\nHost: a\r\n\r\n"


def length(text: bytes, body: bytes = b"hello") -> bytes:
    """Return a request whose Content-Length is *text*."""
    return POST + b"Content-Length: " + text + b"\r\n\r\n" + body


def coded(headers: bytes, body: bytes = b"5\r\nhello\r\n" + END) -> bytes:
    """Return a request with *headers*, and by default a body in chunks."""
    return POST + headers + b"\r\n\r\n" + body


def chunks(body: bytes) -> bytes:
    """Return a request in chunks, which *body* is said to be."""
    return CHUNKED + body


def expect(text: bytes, body: bytes = b"hello") -> bytes:
    """Return a request that expects *text*."""
    return POST + b"Expect: " + text + b"\r\n\r\n" + body


#: By the status of the answer: what is no request to libevent. Nobody is asked.
REFUSED: dict[int, dict[str, bytes]] = {
    400: {
        "the same Content-Length twice": POST
        + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "two Content-Lengths that differ": POST
        + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        "chunked with letters behind": coded(b"Transfer-Encoding: chunkedx"),
        "chunked with a vertical tab before": coded(b"Transfer-Encoding: \x0bchunked"),
        "chunked in quotes": coded(b'Transfer-Encoding: "chunked"'),
        "an empty Transfer-Encoding": coded(b"Transfer-Encoding:"),
        "an unknown coding": coded(b"Transfer-Encoding: wombat"),
        "chunked by HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
        "nothing but an empty line": b"\r\n",
        "two empty lines before the request": b"\r\n\r\n" + NEXT,
        "a hundred empty lines": b"\r\n" * 100,
        "a NUL": b"\0\r\n\r\n",
        "all bytes there are": bytes(range(256)) * 4 + b"\r\n\r\n",
        "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        + b"\x7f" * 64
        + b"\r\n\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a line of mail": b"EHLO example.org\r\n",
        "a method alone": line(b"GET"),
        "a method and a space": line(b"GET "),
        "no method": line(b" / HTTP/1.1"),
        "no URI": line(b"GET HTTP/1.1"),
        "no URI between spaces": line(b"GET  HTTP/1.1"),
        "tabs between": line(b"GET\t/\tHTTP/1.1"),
        "words after the version": line(b"GET / HTTP/1.1 and more"),
        "a version alone": line(b"HTTP/1.1"),
        "a response": line(b"HTTP/1.1 200 OK"),
        "a method cut short": line(b"GE / HTTP/1.1"),
        "a method with a NUL": line(b"GET\0 / HTTP/1.1"),
        "HTTP/0.9 with a path alone": line(b"GET /"),
        "HTTP/2.0": line(b"GET / HTTP/2.0"),
        "HTTP/9.9": line(b"GET / HTTP/9.9"),
        "HTTP/1": line(b"GET / HTTP/1"),
        "HTTP/1.": line(b"GET / HTTP/1."),
        "HTTP/.1": line(b"GET / HTTP/.1"),
        "HTTP/1.1.1": line(b"GET / HTTP/1.1.1"),
        "HTTP/1,1": line(b"GET / HTTP/1,1"),
        "HTTP/ and nothing": line(b"GET / HTTP/"),
        "HTTP/1.1 in lower case": line(b"GET / http/1.1"),
        "another protocol": line(b"GET / ICAP/1.0"),
        "a version with letters behind": line(b"GET / HTTP/1.1x"),
        "a version with a NUL": line(b"GET / HTTP/1.\x001"),
        "a URI with a NUL": line(b"GET /a\0b HTTP/1.1"),
        "an absolute URI with a port beyond all": line(
            b"GET http://example.org:99999999999/ HTTP/1.1"
        ),
        "an absolute URI with a port that is none": line(b"GET http://example.org:-1/ HTTP/1.1"),
        "an absolute URI with half an IPv6 address": line(b"GET http://[::1/ HTTP/1.1"),
        "a URI too long": line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"),
        "a request line without end": b"GET /" + b"a" * 9000,
        "CR CR LF throughout": b"GET / HTTP/1.1\r\r\nHost: a\r\r\n\r\r\n",
        "a header without a colon": header(b"Name value"),
        "a space before the name": header(b" Name: value"),
        "a NUL in the name": header(b"Na\0me: value"),
        "a NUL before the colon": header(b"Name\0: value"),
        "a bare CR in the value": header(b"Name: va\rX-Injected: yes"),
        "a bare CR in the name": header(b"Na\rme: value"),
        "headers too long in sum": header(
            b"\r\n".join(b"N%d: %s" % (i, b"v" * 100) for i in range(100))
        ),
        "a hundred thousand short headers": header(b"\r\n".join([b"a:b"] * 100000)),
        "a header line without end": header(b"Name: " + b"v" * 20000),
        "a fold before any header": b"GET / HTTP/1.1\r\n folded: yes\r\nHost: a\r\n\r\n",
        "a negative Content-Length": length(b"-1"),
        "a Content-Length with a space within": length(b"5 5"),
        "a hexadecimal Content-Length": length(b"0x5"),
        "a Content-Length with letters behind": length(b"5abc"),
        "a Content-Length of letters": length(b"five"),
        "an empty Content-Length": length(b"", b""),
        "a fractional Content-Length": length(b"5.0"),
        "a Content-Length with a comma": length(b"5, 5"),
        "two requests of which the first has a bad length": POST
        + b"Content-Length: x\r\n\r\n"
        + NEXT,
    },
    413: {
        "a Content-Length of 2**31": length(b"2147483648"),
        "a Content-Length of 2**32 and 5": length(b"4294967301"),
        "a Content-Length of 2**63 - 1": length(b"9223372036854775807"),
        "a Content-Length of 2**63": length(b"9223372036854775808"),
        "a Content-Length of 2**64 and 5": length(b"18446744073709551621"),
        "a Content-Length of a hundred digits": length(b"9" * 100),
        "a Content-Length just too much": length(b"65537", b""),
        "a Content-Length that is too much, with the body": length(b"70000", b"x" * 70000),
        "a negative chunk size": chunks(b"-5\r\nhello\r\n" + END),
        "a chunk size of letters": chunks(b"xyz\r\nhello\r\n" + END),
        "no chunk size": chunks(b"\r\nhello\r\n" + END),
        "a chunk size with letters behind": chunks(b"5x\r\nhello\r\n" + END),
        "a chunk size of 2**31": chunks(b"80000000\r\nhello"),
        "a chunk size of 2**32 and 5": chunks(b"100000005\r\nhello\r\n" + END),
        "a chunk size of 2**63 - 1": chunks(b"7fffffffffffffff\r\nhello"),
        "a chunk size of 2**63": chunks(b"8000000000000000\r\nhello"),
        "a chunk size of 2**64 - 1": chunks(b"ffffffffffffffff\r\nhello"),
        "a chunk size of 2**64 and 5": chunks(b"10000000000000005\r\nhello\r\n" + END),
        "a chunk size of a hundred digits": chunks(b"f" * 100 + b"\r\nhello"),
        "a chunk size that ends in CR": chunks(b"5\rhello\r\n" + END),
        "a chunk longer than its size": chunks(b"2\r\nhello\r\n" + END),
        "a chunk extension": chunks(b'5;name="value\\""\r\nhello\r\n' + END),
        "chunks too many in sum": chunks(
            b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 20 + END
        ),
        "a trailer without a colon": chunks(b"0\r\nnonsense\r\n\r\n"),
        "a trailer without end": chunks(b"0\r\nX: " + b"x" * 20000),
        "trailers too many": chunks(b"0\r\n" + b"X: y\r\n" * 10000 + b"\r\n"),
        "100-continue of too much": expect(b"100-continue\r\nContent-Length: 999999", b""),
    },
    417: {
        "an unknown expectation": expect(b"200-ok\r\nContent-Length: 5"),
        "an empty expectation": expect(b"\r\nContent-Length: 5"),
    },
    501: {
        "a space before the method": line(b" GET / HTTP/1.1"),
        "a method in lower case": line(b"get / HTTP/1.1"),
        "a method in both cases": line(b"Get / HTTP/1.1"),
        "an unknown method": line(b"BREW / HTTP/1.1"),
        "a method with a digit": line(b"GET1 / HTTP/1.1"),
        "a method too long": line(b"GETGET / HTTP/1.1"),
        "a method of 8000 letters": line(b"G" * 8000 + b" / HTTP/1.1"),
        "a method with a control character": line(b"G\x01ET / HTTP/1.1"),
        "a method that is not allowed": line(b"TRACE / HTTP/1.1"),
        "CONNECT to a path": line(b"CONNECT / HTTP/1.1"),
        "CONNECT to an authority": line(b"CONNECT example.org:443 HTTP/1.1"),
        "PATCH, which is not allowed at first": line(b"PATCH / HTTP/1.1"),
    },
}

#: What libevent takes for a request.
SERVED: dict[str, Served] = {
    "three spaces between": Served(line(b"GET   /   HTTP/1.1"), uri="  /  "),
    "a space after the version": Served(line(b"GET / HTTP/1.1 ")),
    "a URI with a space": Served(line(b"GET /a b HTTP/1.1"), uri="/a b"),
    "HTTP/0.9 by name": Served(line(b"GET / HTTP/0.9"), outcome="200 closed"),
    "HTTP/1.10": Served(line(b"GET / HTTP/1.10")),
    "HTTP/1.99999999999": Served(line(b"GET / HTTP/1.99999999999"), outcome="200 closed"),
    "HTTP/4294967297.1": Served(line(b"GET / HTTP/4294967297.1")),
    "HTTP/-1.1": Served(line(b"GET / HTTP/-1.1"), outcome="200 closed"),
    "HTTP/1.-1": Served(line(b"GET / HTTP/1.-1"), outcome="200 closed"),
    "HTTP/+1.1": Served(line(b"GET / HTTP/+1.1")),
    "a URI with control characters": Served(
        line(b"GET /\x01\x1b\x7f HTTP/1.1"), uri="/\x01\x1b\x7f"
    ),
    "a URI with bytes beyond ASCII": Served(line(b"GET /\xff\xfe HTTP/1.1"), uri="/ÿþ"),
    "a URI with broken escapes": Served(line(b"GET /%zz%%%0 HTTP/1.1"), uri="/%zz%%%0"),
    "a URI with an escaped NUL": Served(line(b"GET /%00 HTTP/1.1"), uri="/%00"),
    "a URI with escaped line breaks": Served(
        line(b"GET /%0d%0aX:%20y HTTP/1.1"), uri="/%0d%0aX:%20y"
    ),
    "a URI that climbs": Served(line(b"GET /../../etc/passwd HTTP/1.1"), uri="/../../etc/passwd"),
    "a URI without a slash": Served(line(b"GET path HTTP/1.1"), uri="path"),
    "an asterisk for GET": Served(line(b"GET * HTTP/1.1"), uri="*"),
    "an authority for GET": Served(line(b"GET example.org:80 HTTP/1.1"), uri="example.org:80"),
    "an absolute URI": Served(
        line(b"GET http://example.org/path HTTP/1.1"),
        outcome="200 closed",
        uri="http://example.org/path",
    ),
    "an absolute URI without a host": Served(
        line(b"GET http:///path HTTP/1.1"), outcome="200 closed", uri="http:///path"
    ),
    "an absolute URI of a strange scheme": Served(
        line(b"GET javascript:alert(1) HTTP/1.1"), uri="javascript:alert(1)"
    ),
    "an absolute URI with a user": Served(
        line(b"GET http://user:password@example.org/ HTTP/1.1"),
        outcome="200 closed",
        uri="http://user:password@example.org/",
    ),
    "two slashes": Served(line(b"GET // HTTP/1.1"), uri="//"),
    "three slashes": Served(line(b"GET /// HTTP/1.1"), uri="///"),
    "a fragment": Served(line(b"GET /#fragment HTTP/1.1"), uri="/#fragment"),
    "a request line with a bare CR within": Served(
        b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", uri="/\r"
    ),
    "bare LF throughout": Served(b"GET / HTTP/1.1\nHost: a\n\n"),
    "a header of a colon alone": Served(header(b":")),
    "a header without a name": Served(header(b": value")),
    "a header without a value": Served(header(b"Name:")),
    "a space before the colon": Served(header(b"Name : value")),
    "a tab before the colon": Served(header(b"Name\t: value")),
    "a space within the name": Served(header(b"Na me: value")),
    "a control character in the name": Served(header(b"Na\x01me: value")),
    "a NUL in the value": Served(header(b"Name: va\0lue")),
    "a control character in the value": Served(header(b"Name: \x01\x1b\x7f")),
    "bytes beyond ASCII in the name": Served(header(b"N\xe4me: value")),
    "bytes beyond ASCII in the value": Served(header(b"Name: \xff\xfe")),
    "a bare LF between headers": Served(header(b"Name: value\nX-Injected: yes")),
    "a folded value": Served(header(b"Name: value\r\n folded")),
    "a value folded by a tab": Served(header(b"Name: value\r\n\tfolded")),
    "a value folded into nothing": Served(header(b"Name: value\r\n \r\n ")),
    "a fold a hundred times over": Served(header(b"Name: value" + b"\r\n x" * 100)),
    "a name of 8000 letters": Served(header(b"N" * 8000 + b": value")),
    "two Hosts": Served(header(b"Host: b")),
    "an empty Host": Served(header(b"Host: ")),
    "a Host with a path": Served(header(b"Host: a/b?c")),
    "a Host with half an IPv6 address": Served(header(b"Host: [::1")),
    "a Host with a port beyond all": Served(header(b"Host: a:99999999")),
    "Connection of nonsense": Served(header(b"Connection: ,,;\x01close;keep-alive")),
    "no Host": Served(b"GET / HTTP/1.1\r\n\r\n"),
    "a Content-Length of minus zero": Served(length(b"-0", b"")),
    "a Content-Length with a plus": Served(length(b"+5"), body=b"hello"),
    "a Content-Length with spaces before": Served(length(b"   5"), body=b"hello"),
    "a Content-Length with a space after": Served(length(b"5 "), body=b"hello"),
    "an octal Content-Length": Served(length(b"010", b"0123456789"), body=b"0123456789"),
    "a Content-Length with a NUL": Served(length(b"5\x005"), body=b"hello"),
    "a Content-Length that is too small": Served(length(b"2"), body=b"he"),
    "Content-Length with a space before the colon": Served(
        POST + b"Content-Length : 5\r\n\r\nhello"
    ),
    "a POST without a length": Served(POST + b"\r\n"),
    "a POST without a length, with a body": Served(POST + b"\r\nhello"),
    "a GET with a body": Served(GET + b"Content-Length: 5\r\n\r\nhello", body=b"hello"),
    "a GET with a request for a body": Served(
        GET + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT,
        body=b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    "a HEAD with a body": Served(
        b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", outcome="200 closed"
    ),
    "chunked in capitals": Served(coded(b"Transfer-Encoding: CHUNKED"), body=b"hello"),
    "chunked with a space before the colon": Served(
        coded(b"Transfer-Encoding : chunked"), outcome="200 400 closed"
    ),
    "chunked with a NUL behind": Served(coded(b"Transfer-Encoding: chunked\0x"), body=b"hello"),
    "chunked by a GET": Served(GET + b"Transfer-Encoding: chunked\r\n\r\n" + END),
    "a chunk size with a plus": Served(chunks(b"+5\r\nhello\r\n" + END), body=b"hello"),
    "a chunk size with 0x": Served(chunks(b"0x5\r\nhello\r\n" + END), body=b"hello"),
    "a chunk size with a space before": Served(chunks(b" 5\r\nhello\r\n" + END), body=b"hello"),
    "a chunk size with a tab before": Served(chunks(b"\t5\r\nhello\r\n" + END), body=b"hello"),
    "a chunk size with a space after": Served(chunks(b"5 \r\nhello\r\n" + END), body=b"hello"),
    "a chunk size with words after": Served(chunks(b"5 words\r\nhello\r\n" + END), body=b"hello"),
    "a chunk size of minus zero": Served(chunks(b"-0\r\n\r\n")),
    "a chunk size of 100000 zeros": Served(
        chunks(b"0" * 100000 + b"5\r\nhello\r\n" + END), body=b"hello"
    ),
    "a chunk size with a NUL": Served(chunks(b"5\0\r\nhello\r\n" + END), body=b"hello"),
    "a chunk that ends in LF": Served(chunks(b"5\r\nhello\n" + END), body=b"hello"),
    "a chunk that does not end": Served(chunks(b"5\r\nhello" + END), body=b"hello"),
    "a chunk extension after a space": Served(
        chunks(b"5 ;name=value\r\nhello\r\n" + END), body=b"hello"
    ),
    "chunks of a byte, ten thousand": Served(
        chunks(b"1\r\nx\r\n" * 10000 + END), body=b"x" * 10000
    ),
    "a last chunk of many zeros": Served(chunks(b"00000000\r\n\r\n")),
    "a trailer": Served(chunks(b"0\r\nX-Trailer: late\r\n\r\n")),
    "a trailer that is a coding": Served(
        chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + END), outcome="200 400 closed"
    ),
    "a trailer that is a host": Served(chunks(b"0\r\nHost: b\r\n\r\n")),
    "100-continue without a length": Served(expect(b"100-continue", b"")),
    "100-continue with the body there": Served(
        expect(b"100-continue\r\nContent-Length: 5"), body=b"hello"
    ),
    "100-continue in capitals": Served(expect(b"100-CONTINUE\r\nContent-Length: 5"), body=b"hello"),
    "100-continue twice": Served(
        expect(b"100-continue\r\nExpect: 100-continue\r\nContent-Length: 5"), body=b"hello"
    ),
    "100-continue by HTTP/1.0": Served(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        outcome="200 closed",
        body=b"hello",
    ),
    "100-continue by GET": Served(GET + b"Expect: 100-continue\r\n\r\n"),
    "garbage after a request": Served(
        NEXT + b"\0\1\2garbage\r\n\r\n", outcome="200 400 closed", uri="/next"
    ),
    "a request in the body's place": Served(
        POST + b"Content-Length: 0\r\n\r\n" + NEXT, outcome="200 200"
    ),
    "a hundred requests at once": Served(NEXT * 100, outcome=" ".join(["200"] * 100), uri="/next"),
    "half a request after a whole one": Served(NEXT + b"GET /ha", uri="/next"),
    "empty lines between requests": Served(
        NEXT + b"\r\n\r\n" + NEXT, outcome="200 400 closed", uri="/next"
    ),
    "garbage after a request to close": Served(
        GET + b"Connection: close\r\n\r\n\0garbage", outcome="200 closed"
    ),
    "a request after one to close": Served(
        GET + b"Connection: close\r\n\r\n" + NEXT, outcome="200 closed"
    ),
    "a request after HTTP/1.0": Served(b"GET / HTTP/1.0\r\n\r\n" + NEXT, outcome="200 closed"),
    "a smuggled request behind a GET": Served(
        GET + b"Content-Length: 0\r\n\r\n" + NEXT, outcome="200 200"
    ),
    "an upgrade to WebSocket": Served(
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x85"
    ),
    "an upgrade to h2c": Served(
        GET
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        + b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ),
}

#: What may become a request: it is waited for.
UNFINISHED: dict[str, bytes] = {
    "a request line that ends in CR": b"GET / HTTP/1.1\rHost: a\r\r",
    "a folded Content-Length": header(b"Content-Length:\r\n 5"),
    "headers that do not end": GET + b"Name: value\r\n",
    "headers cut within a name": GET + b"Na",
    "headers cut after CR": GET + b"\r",
    "a request line cut": b"GET / HT",
    "one byte": b"G",
    "a Content-Length that is too large": length(b"9"),
    "no chunk size many times": chunks(b"\r\n" * 1000),
    "a chunk size without end": chunks(b"1" * 70000),
    "a chunk cut": chunks(b"5\r\nhel"),
    "a chunk size cut": chunks(b"5"),
    "a chunk extension without end": chunks(b"5;" + b"x" * 70000),
    "a last chunk alone": chunks(b"0\r\n"),
    "a trailer cut": chunks(b"0\r\nX-Tra"),
}

#: What a library takes that has one of the published holes, and one without refuses, or takes for
#: something else.
EITHER: dict[str, bytes] = {
    "a trailer that is a length": chunks(b"0\r\nContent-Length: 5\r\n\r\nhello"),
    "both lengths": coded(b"Content-Length: 5\r\nTransfer-Encoding: chunked", END),
    "both lengths the other way round": coded(
        b"Transfer-Encoding: chunked\r\nContent-Length: 5", END
    ),
    "both lengths, and a request behind": coded(
        b"Content-Length: 4\r\nTransfer-Encoding: chunked", END + NEXT
    ),
    "a length and an unknown coding": coded(
        b"Content-Length: 5\r\nTransfer-Encoding: gzip", b"hello"
    ),
    "chunked twice": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "chunked twice in a line": coded(b"Transfer-Encoding: chunked, chunked"),
    "chunked before another coding": coded(b"Transfer-Encoding: chunked, identity"),
    "another coding before chunked": coded(b"Transfer-Encoding: identity, chunked"),
    "chunked with a parameter": coded(b"Transfer-Encoding: chunked;q=1"),
    "chunked with a tab before": coded(b"Transfer-Encoding:\tchunked"),
    "chunked after a fold": coded(b"Transfer-Encoding:\r\n chunked"),
    "a chunk size that ends in LF": chunks(b"5\nhello\r\n" + END),
    "a chunk shorter than its size": chunks(b"9\r\nhello\r\n" + END),
    "a trailer that is folded": chunks(b"0\r\n folded\r\n\r\n"),
}
