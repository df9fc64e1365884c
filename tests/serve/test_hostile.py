"""Malformed requests: what an application sees is never ambiguous, and others are served."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.kit import hostile_http as hostile
from tests.kit.hostile_serving import BODIES, EXPECTED, OTHERWISE, RAW, Seen, check
from tests.kit.serving import GET, Site, rest_of, serving, statuses, until


@pytest.fixture
def seen() -> Seen:
    return Seen()


LIMITS = {"max_header_size": hostile.HEADERS, "max_body": hostile.BODY}


@pytest.fixture
def site(seen: Seen) -> Any:
    with serving(seen, **LIMITS) as site:
        yield site


def test_every_exception_is_about_a_request_that_there_is() -> None:
    assert EXPECTED.keys() <= RAW.keys()


def is_late(outcome: str) -> bool:
    """Tell whether it takes a timeout to come to *outcome*."""
    return "408" in outcome


def test_a_request_that_does_not_end_is_refused_in_time(seen: Seen) -> None:
    quick = dict.fromkeys(("header_timeout", "body_timeout"), 0.5)
    names = [name for name in RAW if is_late(EXPECTED.get(name, "400"))]
    with serving(seen, **LIMITS, **quick) as site, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.connect()) for _ in names]
        for name, sock in zip(names, sockets, strict=True):
            sock.sendall(RAW[name])
        for name, sock in zip(names, sockets, strict=True):
            assert " ".join(map(str, statuses(rest_of(sock)))) == EXPECTED[name], name
    assert [scope["path"] for scope, _ in seen.requests] == ["/next"]


@pytest.mark.parametrize("outcome", ["400", *(each for each in OTHERWISE if not is_late(each))])
def test_a_malformed_request_is_refused_or_has_one_meaning(
    outcome: str, site: Site, seen: Seen
) -> None:
    for name, raw in RAW.items():
        if EXPECTED.get(name, "400") != outcome:
            continue
        got = site.talk(raw, end=True)
        assert " ".join(map(str, statuses(got))) == outcome, name
        assert len(seen.requests) == outcome.count("200"), name
        for scope, _ in seen.requests:
            check(scope)
        assert [body for _, body in seen.requests[:1]] in ([], [BODIES.get(name, b"")]), name
        assert not any(body for _, body in seen.requests[1:]), name
        seen.requests.clear()
    assert statuses(site.talk(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) == [200]


def test_a_head_is_refused_in_whatever_pieces_it_comes(site: Site, seen: Seen) -> None:
    seen.requests.clear()
    for raw in (hostile.header(b"Name : value"), hostile.header(b"Name: value\r\n folded")):
        with site.connect() as sock:
            for byte in raw:
                try:
                    sock.sendall(bytes([byte]))
                except ConnectionError:
                    break
            assert statuses(sock.recv(65536)) == [400]
    assert not seen.requests


def test_a_second_request_is_checked_as_the_first_is(site: Site, seen: Seen) -> None:
    """The engine knows the Host of the first again, and looks at less then."""
    first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    for second, status in {
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: \r\nHost: a\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n": 417,
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n": 501,
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n": 400,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi": 200,
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\nConnection: close\r\n\r\nhi": 200,
        b"GET / HTTP/1.0\r\n\r\n": 200,
    }.items():
        seen.requests.clear()
        assert statuses(site.talk(first + second)) == [200, status], second
        with site.connect() as sock:
            sock.sendall(first)
            assert statuses(until(sock, b"fine")) == [200]
            sock.sendall(second)
            assert statuses(rest_of(sock)) == [status], second
        assert len(seen.requests) == (4 if status == 200 else 2)


def test_a_request_is_the_same_in_whatever_pieces_it_comes(site: Site, seen: Seen) -> None:
    seen.requests.clear()
    raw = hostile.POST.replace(b"/", b"/a/b?c=d", 1) + (
        b"Name: a value\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: late\r\n\r\n"
    )
    for pieces in [raw], [bytes([byte]) for byte in raw], [raw[:7], raw[7:40], raw[40:]]:
        with site.connect() as sock:
            for piece in pieces:
                sock.sendall(piece)
            assert statuses(sock.recv(65536)) == [200]
    first, *others = [(scope["raw_path"], scope["headers"], body) for scope, body in seen.requests]
    assert first[0] == b"/a/b" and first[2] == b"hello world"
    assert b"trailer" not in dict(first[1])
    assert others == [first, first]
