"""DnsServer: a UDP socket that answers DNS queries."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    DnsClass,
    DnsFlag,
    DnsQuestion,
    DnsResult,
    DnsSection,
    DnsServer,
    DnsServerRequest,
    DnsType,
    EventBase,
)
from tests.kit.dns_packets import (
    AA,
    AAAA,
    CD,
    CNAME,
    IN,
    MX,
    NAME,
    NS,
    PTR,
    QR,
    RA,
    RD,
    TC,
    TXT,
    A,
    Client,
    Reply,
    encoded,
    header,
    query,
    question,
    read,
)
from tests.kit.dns_uses import EVERYTHING, Answer
from tests.kit.interposing import Within
from tests.kit.peers import ANYWHERE, is_open, run_until, settle
from tests.kit.support import PATIENCE, run_python

ANSWER = DnsSection.ANSWER


def asked(base: EventBase, answer: Answer, packet: bytes = query(NAME)) -> bytes:
    """Return what a server whose callback is *answer* sends for *packet*."""
    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.send(packet)
        return client.answer()


def told(base: EventBase, add: Answer, packet: bytes = query(NAME)) -> Reply:
    """Return the answer to *packet* that has what *add* adds to it."""

    def answer(request: DnsServerRequest) -> None:
        add(request)
        request.respond()

    return read(asked(base, answer, packet))


@pytest.fixture
def held(base: EventBase) -> Iterator[DnsServerRequest]:
    """A request that is to be answered."""
    requests: list[DnsServerRequest] = []
    with DnsServer(base, ANYWHERE, requests.append) as server, Client(server) as client:
        client.send(query(NAME))
        run_until(base, lambda: requests)
        yield requests.pop()


# What is asked.


def test_a_query_reaches_the_callback(base: EventBase) -> None:
    seen: list[Any] = []

    def answer(request: DnsServerRequest) -> None:
        seen.extend((request.server, request.base, request.questions, request.address))
        request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.ask(NAME)
        asker = client.sock.getsockname()
    expected = DnsQuestion(NAME.decode(), DnsType.A, DnsClass.INET)
    assert seen == [server, base, [expected], asker]
    (found,) = seen[2]
    assert isinstance(found.type, DnsType) and isinstance(found.class_, DnsClass)


def test_types_and_classes_that_libevent_has_no_name_for_are_numbers(base: EventBase) -> None:
    seen: list[DnsQuestion] = []
    packet = header(1) + question(NAME, 64, 3)
    told(base, lambda request: seen.extend(request.questions), packet)
    assert seen == [(NAME.decode(), 64, 3)]


def test_all_questions_of_a_query_are_there_and_come_back(base: EventBase) -> None:
    seen: list[DnsQuestion] = []
    packet = header(1, questions=2) + question(b"a.example") + question(b"b.example", AAAA)
    reply = told(base, lambda request: seen.extend(request.questions), packet)
    assert seen == [("a.example", A, IN), ("b.example", AAAA, IN)]
    assert reply.questions == [(b"a.example", A, IN), (b"b.example", AAAA, IN)]


def test_the_root_is_a_dot(base: EventBase) -> None:
    def add(request: DnsServerRequest) -> None:
        (found,) = request.questions
        assert found.name == "."
        request.add_reply(ANSWER, found.name, NS, IN, 60, "a.root-servers.net", is_name=True)
        request.add_reply(ANSWER, "nowhere", CNAME, IN, 60, ".", is_name=True)

    reply = told(base, add, query(b".", NS))
    assert [record[:2] for record in reply.sections[0]] == [(b"", NS), (b"nowhere", CNAME)]
    assert reply.data == [b"a.root-servers.net", b""]


def test_bytes_that_are_not_ascii_come_back_as_they_came(base: EventBase) -> None:
    name = b"caf\xc3\xa9.\xff.example"

    def add(request: DnsServerRequest) -> None:
        request.add_a_reply(request.questions[0].name, "192.0.2.1", 60)

    reply = told(base, add, query(name))
    assert reply.questions == [(name, A, IN)]
    assert [record.name for record in reply.sections[0]] == [name]


@pytest.mark.parametrize(
    "wire",
    [
        b"\x02a.\x07example\0",
        b"\x02.a\x07example\0",
        b"\x01.\0",
        b"\x07example\x01.\0",
        b"\x07example\x02a.\0",
        b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 2 + b"\x3e" + b"x" * 62 + b"\0",
    ],
    ids=lambda wire: str(wire[:16]),
)
def test_a_query_whose_name_no_answer_could_repeat_is_ignored(base: EventBase, wire: bytes) -> None:
    calls: list[DnsServerRequest] = []

    def answer(request: DnsServerRequest) -> None:
        calls.append(request)
        request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.send(header(1) + wire + b"\0\1\0\1")
        client.send(query(NAME))
        assert read(client.answer()).number == 4711
    assert len(calls) == 1


def test_the_longest_name_is_answered(base: EventBase) -> None:
    name = b".".join([b"x" * 63] * 3 + [b"x" * 61])
    assert len(encoded(name)) == 255

    def add(request: DnsServerRequest) -> None:
        request.add_cname_reply(request.questions[0].name, name, 60)

    reply = told(base, add, query(name))
    assert reply.sections[0][0].name == reply.data[0] == name


def test_questions_too_long_for_any_answer_are_ignored(base: EventBase) -> None:
    """In full their names are 1500 bytes or more, though the query refers to the first by two."""
    long = b".".join([b"x" * 63] * 3 + [b"y" * 50])
    first = question(long)
    pointers = b"\xc0\x0c\0\1\0\1"
    calls: list[DnsServerRequest] = []

    def answer(request: DnsServerRequest) -> None:
        calls.append(request)
        request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.send(header(1, questions=200) + first + pointers * 199)
        client.send(header(2, questions=5) + first + pointers * 4)
        assert read(client.answer()).questions == [(long, A, IN)] * 5
    assert len(calls) == 1


# What is answered.


def test_addresses_are_answered_each_by_a_record(base: EventBase) -> None:
    def add(request: DnsServerRequest) -> None:
        request.add_a_reply("www.example.com", ["192.0.2.1", "192.0.2.2"], 100)
        request.add_a_reply(b"other.example.com", "192.0.2.3", 0)
        request.add_aaaa_reply("www.example.com", ["2001:db8::1", "::"], 2**31 - 1)
        request.add_aaaa_reply("www.example.com", "::1", 7)

    reply = told(base, add)
    assert reply[:3] == (4711, QR | RD, [(NAME, A, IN)])
    assert reply.sections == [
        [
            (NAME, A, IN, 100, bytes([192, 0, 2, 1])),
            (NAME, A, IN, 100, bytes([192, 0, 2, 2])),
            (b"other.example.com", A, IN, 0, bytes([192, 0, 2, 3])),
            (NAME, AAAA, IN, 2**31 - 1, bytes.fromhex("20010db8000000000000000000000001")),
            (NAME, AAAA, IN, 2**31 - 1, bytes(16)),
            (NAME, AAAA, IN, 7, bytes(15) + b"\1"),
        ],
        [],
        [],
    ]


def test_names_are_answered(base: EventBase) -> None:
    def add(request: DnsServerRequest) -> None:
        request.add_ptr_reply("192.0.2.1", "www.example.com", 1)
        request.add_ptr_reply("2001:db8::1", b"www.example.com.", 2)
        request.add_ptr_reply("1.0.0.127.in-addr.arpa", "localhost", 3)
        request.add_cname_reply("web.example.com", "www.example.com", 4)
        request.add_cname_reply("b\u00fccher.example", "stra\u00dfe.example", 5)

    (answers, _, _) = told(base, add, query(NAME, PTR)).sections
    nibbles = b"1" + b".0" * 23 + b".8.b.d.0.1.0.0.2.ip6.arpa"
    assert answers == [
        (b"1.2.0.192.in-addr.arpa", PTR, IN, 1, NAME),
        (nibbles, PTR, IN, 2, NAME),
        (b"1.0.0.127.in-addr.arpa", PTR, IN, 3, b"localhost"),
        (b"web.example.com", CNAME, IN, 4, NAME),
        (b"xn--bcher-kva.example", CNAME, IN, 5, b"strasse.example"),
    ]


def test_any_record_is_answered_in_each_section(base: EventBase) -> None:
    exchange = b"\0\12" + encoded(b"mail.example.com")

    def add(request: DnsServerRequest) -> None:
        add = request.add_reply
        add(DnsSection.ADDITIONAL, "mail.example.com", A, IN, 1, memoryview(b"\1\2\3\4"))
        add(DnsSection.AUTHORITY, "example.com", DnsType.NS, IN, 2, "ns.example.com", is_name=True)
        add(ANSWER, "example.com", DnsType.MX, DnsClass.INET, 3, exchange)
        add(ANSWER, "example.com", TXT, 3, 4, b"")
        add(ANSWER, "example.com", 65535, 65535, 5, bytearray(b"\0\1"))
        add(ANSWER, "example.com", AAAA, IN, 6, bytes(16))

    reply = told(base, add)
    assert reply.sections == [
        [
            (b"example.com", MX, IN, 3, exchange),
            (b"example.com", TXT, 3, 4, b""),
            (b"example.com", 65535, 65535, 5, b"\0\1"),
            (b"example.com", AAAA, IN, 6, bytes(16)),
        ],
        [(b"example.com", NS, IN, 2, b"ns.example.com")],
        [(b"mail.example.com", A, IN, 1, b"\1\2\3\4")],
    ]


def test_the_flags_of_the_answer_can_be_set(base: EventBase) -> None:
    def add(request: DnsServerRequest) -> None:
        assert request.flags == RD | CD
        request.flags |= DnsFlag.AA
        assert request.flags == RD | CD | AA
        request.flags = DnsFlag.RD
        assert request.flags == RD | CD | RA
        request.flags |= DnsFlag.AA

    assert told(base, add, query(NAME, flags=RD | CD)).flags == QR | RD | CD | AA | RA
    assert told(base, lambda request: None, query(NAME, flags=0)).flags == QR


@pytest.mark.parametrize("flags", [1, QR, TC, "AA", True, None])
def test_other_flags_are_refused(held: DnsServerRequest, flags: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="flags"):
        held.flags = flags


@pytest.mark.parametrize("code", [*range(6), 15])
def test_the_answer_has_the_code(base: EventBase, code: int) -> None:
    assert read(asked(base, lambda request: request.respond(code))).code == code


def test_an_answer_may_come_later(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []
    with DnsServer(base, ANYWHERE, requests.append) as server, Client(server) as client:
        client.send(query(b"one.example", number=1))
        client.send(query(b"two.example", number=2))
        run_until(base, lambda: len(requests) == 2)
        assert not client.ready()
        for request in reversed(requests):
            request.add_a_reply(request.questions[0].name, "192.0.2.1", 60)
            request.respond(DnsResult.NONE)
        assert [read(client.answer()).number for _ in requests] == [2, 1]


def test_of_too_many_queries_at_once_some_are_dropped_and_the_next_are_answered(
    base: EventBase,
) -> None:
    calls: list[int] = []

    def answer(request: DnsServerRequest) -> None:
        calls.append(len(request.questions))
        request.questions.clear()  # the list is the user's
        request.add_a_reply(NAME, "192.0.2.1", 60)
        request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        for number in range(400):  # what the kernel doesn't drop
            client.send(query(NAME, number=number))
        settle(base)
        assert 1 <= len(calls) <= 256
        client.ready()
        assert len(client.received) == len(calls)
        client.received.clear()
        assert client.ask(NAME).data == [bytes([192, 0, 2, 1])]
    assert set(calls) == {1}


# Exactly one answer.


def test_once_answered_a_request_is_dead(held: DnsServerRequest) -> None:
    held.respond()
    assert held.closed
    for use in EVERYTHING:
        with pytest.raises(ClosedError, match=r"DnsServerRequest has been answered or dropped"):
            use(held)
    held.close()
    assert held.questions == [(NAME.decode(), A, IN)]


def test_once_dropped_a_request_is_dead_and_not_answered(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        if request.questions[0].name == "drop":
            request.drop()
            for use in EVERYTHING:
                with pytest.raises(ClosedError):
                    use(request)
        else:
            request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.send(query(b"drop", number=1))
        client.send(query(b"answer", number=2))
        assert read(client.answer()).number == 2
        settle(base)
        assert not client.ready()


def test_a_request_that_nobody_holds_is_answered_that_the_server_failed(base: EventBase) -> None:
    seen: list[Any] = []
    reply = read(asked(base, lambda request: seen.append(request.questions)))
    assert reply.code == DnsResult.SERVERFAILED
    assert reply.questions == [(NAME, A, IN)]
    assert seen


def test_so_is_one_that_is_let_go_later(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []
    with DnsServer(base, ANYWHERE, requests.append) as server, Client(server) as client:
        client.send(query(NAME))
        run_until(base, lambda: requests)
        cycle: list[Any] = [requests.pop()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        assert read(client.answer()).code == DnsResult.SERVERFAILED


def test_what_the_callback_raises_comes_out_and_the_server_failed(base: EventBase) -> None:
    held: list[DnsServerRequest] = []

    def answer(request: DnsServerRequest) -> None:
        held.append(request)
        request.add_a_reply(NAME, "192.0.2.1", 60)
        raise ZeroDivisionError

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        with pytest.raises(ZeroDivisionError):
            client.ask(NAME)
        reply = read(client.answer())
        assert reply.code == DnsResult.SERVERFAILED
        with pytest.raises(ClosedError):
            held[0].respond()


def test_what_it_raises_after_the_answer_changes_no_answer(base: EventBase) -> None:
    taken: list[tuple[Exception, Any]] = []
    base.on_error = lambda error, source: taken.append((error, source))
    asked: list[DnsServerRequest] = []

    def answer(request: DnsServerRequest) -> None:
        asked.append(request)
        request.respond(DnsResult.REFUSED)
        raise ZeroDivisionError

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        assert client.ask(NAME).code == DnsResult.REFUSED
        assert client.ask(NAME).code == DnsResult.REFUSED
    assert [type(error) for error, _ in taken] == [ZeroDivisionError] * 2
    assert [source for _, source in taken] == asked


def test_on_error_gets_the_request_and_may_answer_it(base: EventBase) -> None:
    told = []

    def on_error(error: Exception, request: DnsServerRequest) -> None:
        told.append((type(error), request.questions[0].name, request.server))
        request.respond(DnsResult.REFUSED)

    def answer(request: DnsServerRequest) -> None:
        raise ZeroDivisionError

    base.on_error = on_error
    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        assert client.ask(NAME).code == DnsResult.REFUSED
        assert told == [(ZeroDivisionError, NAME.decode(), server)]


def test_the_callback_can_be_replaced(base: EventBase) -> None:
    with DnsServer(base, ANYWHERE, print) as server, Client(server) as client:
        assert server.callback is print
        server.callback = lambda request: request.respond(DnsResult.NOTIMPL)
        assert client.ask(NAME).code == DnsResult.NOTIMPL
        with pytest.raises(TypeError, match="callback"):
            server.callback = None  # type: ignore[assignment]


def test_a_request_can_not_be_made_by_hand_or_twice(held: DnsServerRequest) -> None:
    with pytest.raises(TypeError, match="a DnsServer makes its requests"):
        DnsServerRequest.__init__(held)
    assert not held.closed
    with pytest.raises(RuntimeError, match="made already"):
        DnsServer.__init__(held.server, held.base, ANYWHERE, print)


# What is refused.

BAD_NAMES: list[Any] = [
    "",
    "..",
    ".a",
    "a..",
    "a..b",
    "a\0b",
    b"a\0",
    "x" * 64,
    b"x" * 64 + b".example",
    "x.example." + "y" * 64,
    ".".join(["x" * 63] * 3 + ["x" * 62]),
    "x" * 254,
    "x" * 100_000,
    "\u00fc" * 64,
    "\ud800",
    "a\u3002\u3002b",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
def test_what_is_no_name_is_refused(held: DnsServerRequest, name: Any) -> None:
    with pytest.raises(ValueError, match=r"^name must"):
        held.add_a_reply(name, "192.0.2.1", 1)
    with pytest.raises(ValueError, match=r"^name must"):
        held.add_cname_reply(name, "a", 1)
    with pytest.raises(ValueError, match=r"^cname must"):
        held.add_cname_reply("a", name, 1)
    with pytest.raises(ValueError, match=r"^address must"):
        held.add_ptr_reply(name, "a", 1)
    with pytest.raises(ValueError, match=r"^hostname must"):
        held.add_ptr_reply("a", name, 1)
    with pytest.raises(ValueError, match=r"^name must"):
        held.add_reply(ANSWER, name, TXT, IN, 1, b"")
    with pytest.raises(ValueError, match=r"^data must"):
        held.add_reply(ANSWER, "a", NS, IN, 1, name, is_name=True)


@pytest.mark.parametrize("name", [None, 1, ["a"], memoryview(b"a")])
def test_what_is_no_text_is_refused(held: DnsServerRequest, name: Any) -> None:
    with pytest.raises(TypeError, match=r"^cname must be str or bytes"):
        held.add_cname_reply("a", name, 1)
    with pytest.raises(TypeError, match=r"^hostname must be str or bytes"):
        held.add_ptr_reply("192.0.2.1", name, 1)
    with pytest.raises(TypeError, match=r"^data must be str or bytes"):
        held.add_reply(ANSWER, "a", NS, IN, 1, name, is_name=True)
    with pytest.raises(TypeError, match=r"^name must be str or bytes"):
        held.add_aaaa_reply(name, "::1", 1)


@pytest.mark.parametrize("ttl", [-1, 2**31, 2**64])
def test_a_time_to_live_beyond_31_bits_is_refused(held: DnsServerRequest, ttl: int) -> None:
    for add in (
        lambda: held.add_a_reply("a", "192.0.2.1", ttl),
        lambda: held.add_aaaa_reply("a", "::1", ttl),
        lambda: held.add_ptr_reply("192.0.2.1", "a", ttl),
        lambda: held.add_cname_reply("a", "b", ttl),
        lambda: held.add_reply(ANSWER, "a", A, IN, ttl, b"1234"),
    ):
        with pytest.raises(ValueError, match=r"^ttl must be from 0 to 2147483647"):
            add()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((3, "a", A, IN, 1, b"1234"), "section"),
        ((-1, "a", A, IN, 1, b"1234"), "section"),
        ((ANSWER, "a", -1, IN, 1, b"1234"), "type"),
        ((ANSWER, "a", 65536, IN, 1, b"1234"), "type"),
        ((ANSWER, "a", A, 65536, 1, b"1234"), "dns_class"),
        ((ANSWER, "a", A, IN, 1, b"12345678"), "data must be 4 bytes for type 1, not 8"),
        ((ANSWER, "a", A, IN, 1, b""), "data must be 4 bytes"),
        ((ANSWER, "a", AAAA, IN, 1, b"1234"), "data must be 16 bytes"),
        ((ANSWER, "a", TXT, IN, 1, bytes(70_000)), "must stay below 1500 bytes"),
    ],
)
def test_what_is_no_record_is_refused(
    held: DnsServerRequest, arguments: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        held.add_reply(*arguments)


@pytest.mark.parametrize(
    "addresses", ["", "::1", "1.2.3", "192.0.2.1\0", [], ["192.0.2.1", "x"], [b"1234"]]
)
def test_what_is_no_ipv4_address_is_refused(base: EventBase, addresses: Any) -> None:
    def add(request: DnsServerRequest) -> None:
        with pytest.raises((ValueError, TypeError), match=r"address"):
            request.add_a_reply("a", addresses, 1)

    assert told(base, add).sections == [[], [], []]


@pytest.mark.parametrize("addresses", ["", "192.0.2.1", "::g", [], ["::1", "fe80::1%lo"]])
def test_what_is_no_ipv6_address_is_refused(held: DnsServerRequest, addresses: Any) -> None:
    with pytest.raises(ValueError, match=r"addresses must"):
        held.add_aaaa_reply("a", addresses, 1)


@pytest.mark.parametrize("code", [-1, 16, DnsResult.TRUNCATED, DnsResult.TIMEOUT])
def test_a_code_that_no_answer_can_have_is_refused(held: DnsServerRequest, code: int) -> None:
    with pytest.raises(ValueError, match=r"^err must be from 0 to 15"):
        held.respond(code)
    held.respond()


# How long an answer may be.


def test_an_answer_of_more_than_512_bytes_is_marked_as_truncated(base: EventBase) -> None:
    def add(count: int) -> Answer:
        addresses = [f"192.0.2.{n}" for n in range(count)]
        return lambda request: request.add_a_reply(NAME, addresses, 60)

    whole = asked(base, lambda request: (add(29)(request), request.respond()))
    assert len(whole) == 12 + len(question(NAME)) + 29 * 16 <= 512
    assert len(read(whole).data) == 29
    truncated = asked(base, lambda request: (add(31)(request), request.respond()))
    assert len(truncated) == 512
    assert read(truncated).flags & TC


def test_what_does_not_fit_is_refused_and_the_rest_is_sent(base: EventBase) -> None:
    def add(request: DnsServerRequest) -> None:
        request.add_reply(ANSWER, NAME, TXT, IN, 60, bytes(100))
        with pytest.raises(ValueError, match="must stay below 1500 bytes"):
            request.add_reply(ANSWER, NAME, TXT, IN, 60, bytes(1400))
        with pytest.raises(ValueError, match="must stay below 1500 bytes"):
            request.add_a_reply(NAME, ["192.0.2.1"] * 100, 60)

    assert told(base, add).data[0] == bytes(100)


@pytest.mark.parametrize("section", list(DnsSection))
def test_no_answer_ends_where_libevent_has_no_room_for_the_end(
    base: EventBase, section: DnsSection
) -> None:
    """Each name that would end at the last of 1500 bytes, or one of those beside it, is safe."""
    target = ".".join(["x" * 60] * 4)
    for filler in range(1490 - 12 - 21 - 12 - 12 - 246, 1500):
        refused: list[Any] = []

        def add(request: DnsServerRequest, filler: int = filler, refused: Any = refused) -> None:
            try:
                request.add_reply(ANSWER, NAME, TXT, IN, 60, bytes(filler))
                request.add_reply(section, NAME, CNAME, IN, 60, target, is_name=True)
            except ValueError:
                refused.append(filler)

        reply = told(base, add)
        assert reply.flags & TC or refused
        if refused:
            break
    assert 1150 < filler < 1250


def test_what_libevent_writes_in_two_bytes_takes_two(base: EventBase) -> None:
    tail = "1" + ".0" * 31 + ".ip6.arpa"
    owners = [f"{number % 4:02}.{tail}" for number in range(28)]

    def add(request: DnsServerRequest) -> None:
        for owner in owners:
            request.add_ptr_reply(owner, "a", 60)

    answers = told(base, add).sections[0]
    assert [record.name.decode() for record in answers] == owners


def test_what_libevent_does_not_remember_takes_all(base: EventBase) -> None:
    """It remembers 128 labels."""
    long = ".".join("a" * 50)

    def add(request: DnsServerRequest) -> None:
        for number in range(18):
            request.add_cname_reply("x", f"{number}.b.c.d.e.f.{number}", 60)
        with pytest.raises(ValueError, match="must stay below 1500 bytes"):
            for _ in range(10):
                request.add_a_reply(long, "192.0.2.1", 60)

    assert told(base, add).flags & TC


# The socket.


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_can_be_given_a_bound_socket(base: EventBase, family: socket.AddressFamily) -> None:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    fd, address = sock.fileno(), sock.getsockname()
    with DnsServer(base, sock, lambda request: request.respond()) as server:
        assert sock.fileno() == -1
        assert (server.fd, server.address) == (fd, address)
        assert not os.get_blocking(fd)
        with Client(server) as client:
            assert client.ask(NAME).code == 0
    assert not is_open(fd)
    for attribute in ("fd", "address", "pointer"):
        with pytest.raises(ClosedError):
            getattr(server, attribute)


def test_it_can_be_given_a_descriptor(base: EventBase) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(ANYWHERE)
    fd = sock.detach()
    with DnsServer(base, fd, lambda request: request.respond()) as server, Client(server) as client:
        assert server.fd == fd
        assert client.ask(NAME).code == 0
        assert not os.get_inheritable(fd)
    assert not is_open(fd)


def test_it_can_be_bound_to_ipv6(base: EventBase) -> None:
    seen: list[Any] = []

    def answer(request: DnsServerRequest) -> None:
        seen.append(request.address)
        request.respond()

    with DnsServer(base, ("::1", 0), answer) as server, Client(server) as client:
        client.ask(NAME)
        assert seen == [client.sock.getsockname()]


def test_descriptor_0_is_moved_and_closed_with_the_server() -> None:
    run_python(
        """
        import os, socket
        from libevent_py import DnsServer, EventBase
        from tests.kit.dns_packets import Client
        os.close(0)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert sock.fileno() == 0
        sock.bind(("127.0.0.1", 0))
        with EventBase() as base:
            before = set(os.listdir("/proc/self/fd"))
            server = DnsServer(base, sock.detach(), lambda request: request.respond())
            moved = server.fd
            assert moved > 0
            try:
                os.fstat(0)
            except OSError:
                pass
            else:
                raise AssertionError("0 is still open")
            with Client(server) as client:
                assert client.ask(b"a").code == 0
            server.close()
            assert str(moved) not in os.listdir("/proc/self/fd")
        """
    )


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_datagram_without_a_whole_header_never_reaches_libevent(
    base: EventBase, family: socket.AddressFamily
) -> None:
    """It would end the process, and might have come before there is a server."""
    asked: list[DnsServerRequest] = []
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair(family, socket.SOCK_DGRAM)
    else:
        ours, theirs = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        ours.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        theirs.connect(ours.getsockname())
    packet = query(NAME)
    with theirs:
        for size in (0, 1, 11):
            theirs.send(packet[:size])
        theirs.send(packet)
        with DnsServer(base, ours, asked.append):
            settle(base)
            assert not asked
            for size in range(len(packet) + 1):
                theirs.send(packet[:size])
                settle(base)
            assert [request.questions[0].name for request in asked] == [NAME.decode()]


def test_an_address_in_use_is_refused_by_name(base: EventBase) -> None:
    pattern = r"address \('127.0.0.1', \d+\): "
    with (
        DnsServer(base, ANYWHERE, print) as server,
        pytest.raises(OSError, match=pattern) as caught,
    ):
        DnsServer(base, server.address, print)
    assert caught.value.errno == errno.EADDRINUSE


def test_what_is_no_bound_udp_socket_is_refused_and_stays_its_owner_s(base: EventBase) -> None:
    reader, writer = os.pipe()
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as unbound,
        socket.create_server(ANYWHERE) as stream,
    ):
        for fd, complaint in (
            (reader, "must be a socket"),
            (unbound, "must be a bound socket"),
            (unbound.fileno(), "must be a bound socket"),
            (stream, "must be a UDP socket"),
            (-1, "must be an open file descriptor"),
        ):
            with pytest.raises(ValueError, match=f"^address {complaint}"):
                DnsServer(base, fd, print)
        wrong: list[Any] = [None, True, "127.0.0.1", ["127.0.0.1", 0], open]
        for fd in wrong:
            with pytest.raises((TypeError, ValueError), match=r"^address"):
                DnsServer(base, fd, print)
        with pytest.raises(ValueError, match="numeric"):
            DnsServer(base, ("localhost", 0), print)
        assert is_open(reader) and is_open(unbound.fileno()) and is_open(stream.fileno())
    for fd in (reader, writer):
        os.close(fd)
    with pytest.raises(OSError, match=f"address {reader}"):
        DnsServer(base, reader, print)


def test_what_is_no_base_or_callback_is_refused(base: EventBase) -> None:
    with pytest.raises(TypeError, match="callback must be callable"):
        DnsServer(base, ANYWHERE, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="base must be an EventBase"):
        DnsServer(None, ANYWHERE, print)  # type: ignore[arg-type]


# What the network doesn't take.


def unix_pair(base: EventBase, answer: Answer) -> tuple[DnsServer, socket.socket]:
    """Return a server on one end of a pair, and the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)
    return DnsServer(base, ours, answer), theirs


def test_who_has_no_address_has_an_empty_one(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        assert request.address == ""
        request.respond()

    server, sock = unix_pair(base, answer)
    with server, sock:
        sock.send(query(NAME))
        settle(base)
        assert read(sock.recv(1500)).number == 4711


def test_an_answer_that_would_have_to_wait_fails_and_is_gone(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []
    server, sock = unix_pair(base, requests.append)
    with server, sock:
        failed: list[DnsServerRequest] = []
        for _ in range(1000):
            sock.send(query(NAME))
            settle(base)
            (request,) = requests
            requests.clear()
            try:
                request.respond()
            except BlockingIOError:
                failed.append(request)
                break
        (request,) = failed
        with pytest.raises(ClosedError):
            request.respond()
        assert sock.recv(1500)  # there is room again
        sock.send(query(NAME, number=1))
        settle(base)
        requests.pop().respond()
        received: list[Any] = []
        while not received or received[-1].number != 1:
            received.append(read(sock.recv(1500)))


def test_an_answer_that_the_network_refuses_is_logged_and_gone(
    base: EventBase, caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[DnsServerRequest] = []
    server, sock = unix_pair(base, requests.append)
    with server:
        with sock:
            for _ in range(3):
                sock.send(query(NAME))
            settle(base)
        with caplog.at_level(logging.WARNING, "libevent"):
            requests.pop().respond()
        assert "a DNS answer is dropped: " in caplog.text
        requests.clear()  # SERVERFAILED doesn't go out either
        settle(base)


def test_an_answer_in_the_middle_of_another_method_that_is_refused_is_logged(
    base: EventBase, caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[DnsServerRequest] = []
    server, sock = unix_pair(base, requests.append)
    with server:
        with sock:
            sock.send(query(NAME))
            settle(base)
        request = requests.pop()
        interposer = Within(request.respond, 0)
        interposer.names = ("call",)  # of C, which has the pointer by then
        with caplog.at_level(logging.WARNING, "libevent"):
            interposer.run(request.add_ptr_reply, "127.0.0.1", NAME, 60)
        assert interposer.where is not None
        assert caplog.text.count("a DNS answer is dropped: ") == 1


def test_an_error_of_an_earlier_answer_does_not_keep_the_next_from_going_out(
    base: EventBase,
) -> None:
    requests: list[DnsServerRequest] = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(ANYWHERE)
    sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: so that who is gone is an error
    server = DnsServer(base, sock, requests.append)
    with server, Client(server) as client, Client(server) as gone:
        client.send(query(NAME))
        gone.send(query(NAME))
        run_until(base, lambda: len(requests) == 2)
        asker = client.sock.getsockname()
        gone.sock.close()
        requests.sort(key=lambda request: request.address == asker)
        requests[0].respond()  # refused by its host, as the next call is told
        requests[1].respond()
        assert read(client.answer()).number == 4711


# dig


def dig(base: EventBase, answer: Answer, *arguments: str) -> str:
    """Return what dig says of the answer to its query."""
    said: list[str] = []
    with DnsServer(base, ANYWHERE, answer) as server:
        host, port = server.address
        command = ["dig", f"@{host}", "-p", str(port), "+tries=1", "+time=30", *arguments]

        def run() -> None:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            said.append(done.stdout + done.stderr)

        thread = threading.Thread(target=run)
        thread.start()
        run_until(base, lambda: said)
        thread.join()
    return said[0]


def test_dig_understands_each_kind_of_answer(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        (found,) = request.questions
        request.flags |= DnsFlag.AA | DnsFlag.RD
        if found.type == DnsType.A:
            request.add_cname_reply(found.name, "www.example.com", 10)
            request.add_a_reply("www.example.com", ["192.0.2.1", "192.0.2.2"], 20)
        elif found.type == DnsType.AAAA:
            request.add_aaaa_reply(found.name, ["2001:db8::1", "2001:db8::2"], 30)
        else:
            request.add_ptr_reply("192.0.2.1", "www.example.com", 40)
        request.respond()

    short = "+short"
    assert dig(base, answer, short, "example.com") == "www.example.com.\n192.0.2.1\n192.0.2.2\n"
    assert dig(base, answer, short, "example.com", "AAAA") == "2001:db8::1\n2001:db8::2\n"
    assert dig(base, answer, short, "-x", "192.0.2.1") == "www.example.com.\n"
    long = dig(base, answer, "example.com")
    assert "status: NOERROR" in long
    assert "flags: qr aa rd ra; QUERY: 1, ANSWER: 3" in long
    assert "WARNING" not in long


def test_dig_understands_failures(base: EventBase) -> None:
    for code, status in ((3, "NXDOMAIN"), (2, "SERVFAIL"), (5, "REFUSED"), (4, "NOTIMP")):

        def answer(request: DnsServerRequest, code: int = code) -> None:
            request.respond(code)

        assert f"status: {status}" in dig(base, answer, "example.com")
