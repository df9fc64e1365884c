"""Malformed DNS packets: none harms a server that gets it as a query, or a client as an answer."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from libevent_py import (
    DnsBase,
    DnsBaseFlag,
    DnsQueryFlag,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    EventBase,
)
from tests.kit.dns_packets import (
    AA,
    AAAA,
    CNAME,
    IN,
    PTR,
    QR,
    RA,
    RD,
    TC,
    TXT,
    A,
    Client,
    encoded,
    header,
    query,
    question,
    read,
    record,
)
from tests.kit.dns_peers import NameServer, Question
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python

NAME = b"bad.example"
NUMBER = 1
HERE = b"\xc0\x0c"  # a pointer to the first name
ADDRESS = record(HERE, A, b"\1\2\3\4")
TYPE_AND_CLASS = b"\0\1\0\1"

GOOD_QUERY = query(NAME, number=NUMBER)
GOOD_ANSWER = header(NUMBER, QR | RD | RA, answers=1) + question(NAME) + ADDRESS


def asking(name: bytes, count: int = 1) -> bytes:
    """Return a query for a *name* as it is on the wire."""
    return header(NUMBER, questions=count) + name + TYPE_AND_CLASS


def answering(*records: bytes, count: int | None = None, flags: int = QR | RD | RA) -> bytes:
    """Return an answer with *records*, or one that says it has *count*."""
    answers = len(records) if count is None else count
    return header(NUMBER, flags, answers=answers) + question(NAME) + b"".join(records)


def labels(*lengths: int) -> bytes:
    """Return a name of labels of these lengths."""
    return b"".join(bytes([length]) + b"x" * length for length in lengths) + b"\0"


#: The length of a header and NAME's question: where the first record begins.
RECORD = len(header(0) + question(NAME))

PACKETS: dict[str, bytes] = {
    # Headers.
    "nothing but zeros": bytes(12),
    "more zeros": bytes(512),
    "nothing but ones": b"\xff" * 12,
    "more ones": b"\xff" * 512,
    "a header alone": header(NUMBER),
    "the header of an answer alone": header(NUMBER, QR),
    "no question": header(NUMBER, questions=0),
    "no question, but one there": header(NUMBER, questions=0) + question(NAME),
    "two questions, one there": header(NUMBER, questions=2) + question(NAME),
    "255 questions, one there": header(NUMBER, questions=255) + question(NAME),
    "65535 questions, none there": header(NUMBER, questions=65535),
    "65535 questions, one there": header(NUMBER, questions=65535) + question(NAME),
    "65535 of everything": header(NUMBER, RD, 65535, 65535, (65535, 65535)) + question(NAME),
    "a query with 65535 answers": header(NUMBER, answers=65535) + question(NAME),
    "an answer in a query": header(NUMBER, answers=1) + question(NAME) + ADDRESS,
    "the opcode for inverse queries": query(NAME, number=NUMBER, flags=0x0800),
    "the opcode for status": query(NAME, number=NUMBER, flags=0x1000),
    "the opcode for updates": query(NAME, number=NUMBER, flags=0x2800),
    "an opcode that doesn't exist": query(NAME, number=NUMBER, flags=0x7800),
    "a query that says it is an answer": query(NAME, number=NUMBER, flags=QR),
    "a query with an error": query(NAME, number=NUMBER, flags=0x000F),
    "a query with every flag": query(NAME, number=NUMBER, flags=0x7FFF),
    "a query that is truncated": query(NAME, number=NUMBER, flags=TC),
    # Questions.
    "a question without type": header(NUMBER) + encoded(NAME),
    "a question without class": header(NUMBER) + encoded(NAME) + b"\0\1",
    "a question with half a class": header(NUMBER) + encoded(NAME) + b"\0\1\0",
    "type 0": query(NAME, 0, NUMBER),
    "type 65535": query(NAME, 65535, NUMBER),
    "class 0": header(NUMBER) + question(NAME, A, 0),
    "class 65535": header(NUMBER) + question(NAME, A, 65535),
    "bytes after the question": GOOD_QUERY + b"\xff" * 100,
    "the same question twice": header(NUMBER, questions=2) + question(NAME) + HERE + TYPE_AND_CLASS,
    "the same question 240 times": (
        header(NUMBER, questions=240) + question(NAME) + (HERE + TYPE_AND_CLASS) * 239
    ),
    "seven long questions": (
        header(NUMBER, questions=7) + (labels(63, 63, 63, 13) + TYPE_AND_CLASS) * 7
    ),
    "a long question 200 times": (
        header(NUMBER, questions=200)
        + (labels(63, 63, 63, 60) + TYPE_AND_CLASS)
        + (HERE + TYPE_AND_CLASS) * 199
    ),
    # Names.
    "the root": asking(b"\0"),
    "no name at all": header(NUMBER) + TYPE_AND_CLASS,
    "a name without an end": header(NUMBER) + encoded(NAME)[:-1],
    "a label longer than the packet": header(NUMBER) + b"\x3fabc",
    "a label's length and no more": header(NUMBER) + b"\x3f",
    "a label of 63 bytes": asking(labels(63)),
    "a label of 64 bytes": asking(b"\x40" + b"x" * 64 + b"\0"),
    "a label of 127 bytes": asking(b"\x7f" + b"x" * 127 + b"\0"),
    "a label of 128 bytes": asking(b"\x80" + b"x" * 128 + b"\0"),
    "a label of 191 bytes": asking(b"\xbf" + b"x" * 191 + b"\0"),
    "a label of 255 bytes": asking(b"\xff" + b"x" * 255 + b"\0"),
    "a name of 253 bytes": asking(labels(63, 63, 63, 59)),
    "a name of 255 bytes": asking(labels(63, 63, 63, 61)),
    "a name of 256 bytes": asking(labels(63, 63, 63, 62)),
    "a name of 257 bytes": asking(labels(63, 63, 63, 63)),
    "a name of 320 bytes": asking(labels(*[63] * 5)),
    "a name of 1400 bytes": asking(labels(*[63] * 22)),
    "a name of 127 labels": asking(labels(*[1] * 127)),
    "a name of 128 labels": asking(labels(*[1] * 128)),
    "a name of 700 labels": asking(labels(*[1] * 700)),
    "a NUL in a name": asking(b"\x03b\0d\7example\0"),
    "a name of NULs": asking(b"\x03\0\0\0\x03\0\0\0\0"),
    "a dot in a label": asking(b"\x03b.d\7example\0"),
    "a dot alone as a label": asking(b"\x01.\0"),
    "a name of dots": asking(b"\x3f" + b"." * 63 + b"\0"),
    "a name that isn't ASCII": asking(b"\x04b\xc3\xa4d\7example\0"),
    "a name that isn't UTF-8": asking(b"\x03\xff\xfe\x80\0"),
    "control characters in a name": asking(b"\x05\x01\n\r\x1b\x7f\0"),
    "what formats in C": asking(b"\x08%s%n%s%n\0"),
    # Pointers.
    "a pointer to itself": asking(HERE),
    "a pointer to the label before it": asking(b"\x03bad" + HERE),
    "two pointers to each other": asking(b"\xc0\x0e\xc0\x0c"),
    "a pointer forward": asking(b"\xc0\x12" + TYPE_AND_CLASS + encoded(NAME)),
    "a pointer into the header": asking(b"\xc0\x00"),
    "a pointer to the last byte": header(NUMBER) + b"\xc0\x0d",
    "a pointer beyond the packet": asking(b"\xc0\xff"),
    "a pointer as far as there are": asking(b"\xff\xff"),
    "half a pointer": header(NUMBER) + b"\xc0",
    "half a pointer after a label": header(NUMBER) + b"\x03bad\xc0",
    "a pointer with the bits 01": asking(b"\x40\x0c"),
    "a pointer with the bits 10": asking(b"\x80\x0c"),
    "a hundred pointers in a row": asking(
        b"".join(struct.pack("!H", 0xC000 + 14 + 2 * n) for n in range(100)) + encoded(NAME)
    ),
    "seven hundred pointers backwards": (
        header(NUMBER)
        + b"\xc0\x00"
        + b"".join(struct.pack("!H", 0xC000 + 12 + 2 * n) for n in range(700))
    ),
    "a name that doubles by a pointer": asking(labels(63, 63)[:-1] + HERE),
    # What belongs to other protocols.
    "an EDNS record": header(NUMBER, more=(0, 1))
    + question(NAME)
    + b"\0\0\x29\x10\0\0\0\x80\0\0\0",
    "an EDNS record of no end": header(NUMBER, more=(0, 1))
    + question(NAME)
    + b"\0\0\x29\x10\0\0\0\0\0\xff\xff",
    "an EDNS version that isn't": header(NUMBER, more=(0, 1))
    + question(NAME)
    + b"\0\0\x29\xff\xff\xff\xff\xff\xff\0\4abcd",
    "a length before it, as over TCP": struct.pack("!H", len(GOOD_QUERY)) + GOOD_QUERY,
    "a request of HTTP": b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "1500 bytes": (GOOD_QUERY + bytes(1500))[:1500],
    "1501 bytes": (GOOD_QUERY + b"\xff" * 1501)[:1501],
    "more than fits an Ethernet frame": GOOD_QUERY + b"\xc0" * 8000,
    # Answers.
    "65535 answers, none there": answering(count=65535),
    "65535 answers, one there": answering(ADDRESS, count=65535),
    "65535 answers, ninety there": answering(*[ADDRESS] * 90, count=65535),
    "an answer without a question": header(NUMBER, QR, 0, 1) + record(encoded(NAME), A, b"1234"),
    "an answer to two questions": (
        header(NUMBER, QR | RD | RA, 2, 1) + question(NAME) + question(b"other") + ADDRESS
    ),
    "an answer to another question": (
        header(NUMBER, QR | RD | RA, answers=1) + question(b"other.example") + ADDRESS
    ),
    "an answer that is truncated": answering(ADDRESS, flags=QR | RD | RA | TC),
    "an answer with an error and addresses": answering(ADDRESS, flags=QR | RD | RA | 3),
    "an answer with an error that isn't": answering(flags=QR | RD | RA | 15),
    "an answer with an opcode": answering(ADDRESS, flags=QR | RD | RA | 0x7800),
    "an answer with every flag": answering(ADDRESS, flags=0xFFF0),
    "a record whose data is longer than the packet": answering(
        HERE + struct.pack("!2HIH", A, IN, 60, 65535) + b"1234"
    ),
    "a record whose data is one byte longer": answering(
        HERE + struct.pack("!2HIH", A, IN, 60, 5) + b"1234"
    ),
    "an address of no bytes": answering(record(HERE, A, b"")),
    "an address of three bytes": answering(record(HERE, A, b"123")),
    "an address of five bytes": answering(record(HERE, A, b"12345")),
    "an address of 1200 bytes": answering(record(HERE, A, b"1234" * 300)),
    "an address of IPv6 in one of IPv4": answering(record(HERE, AAAA, bytes(16))),
    "an address of IPv6 of 15 bytes": answering(record(HERE, AAAA, bytes(15))),
    "forty addresses of one record": answering(record(HERE, A, b"1234" * 40)),
    "eighty addresses": answering(*[ADDRESS] * 80),
    "a time to live of all bits": answering(record(HERE, A, b"1234", ttl=2**32 - 1)),
    "a time to live of 31 bits and one": answering(record(HERE, A, b"1234", ttl=2**31)),
    "a record of another name": answering(record(encoded(b"other.example"), A, b"1234")),
    "a record of a class that isn't": answering(
        HERE + struct.pack("!2HIH", A, 255, 1, 4) + b"1234"
    ),
    "a record of a type that isn't": answering(record(HERE, 65535, b"1234")),
    "a record whose name is a loop": answering(
        record(struct.pack("!H", 0xC000 + RECORD), A, b"1234")
    ),
    "a record whose name is beyond": answering(record(b"\xff\xff", A, b"1234")),
    "a record whose name is its address": answering(
        record(struct.pack("!H", 0xC000 + RECORD + 12), A, b"\3ab\0")
    ),
    "an alias of itself": answering(record(HERE, CNAME, HERE)),
    "an alias that is a loop": answering(
        record(HERE, CNAME, struct.pack("!H", 0xC000 + RECORD + 12))
    ),
    "an alias of no bytes": answering(record(HERE, CNAME, b"")),
    "an alias longer than its length": answering(
        HERE + struct.pack("!2HIH", CNAME, IN, 60, 1) + encoded(b"other.example")
    ),
    "an alias shorter than its length": answering(record(HERE, CNAME, b"\1x\0" + bytes(50))),
    "an alias too long for a name": answering(record(HERE, CNAME, labels(*[63] * 5))),
    "a hundred aliases": answering(*[record(HERE, CNAME, HERE)] * 100),
    "a pointer record that is a loop": answering(
        record(HERE, PTR, struct.pack("!H", 0xC000 + RECORD + 12))
    ),
    "a text longer than its record": answering(record(HERE, TXT, b"\xffabc")),
    "an authority of no end": header(NUMBER, QR | AA | 3, more=(65535, 0)) + question(NAME) + HERE,
    "an authority cut": (
        header(NUMBER, QR | AA | 3, more=(1, 0))
        + question(NAME)
        + (HERE + struct.pack("!2HIH", 6, IN, 60, 40) + HERE + HERE + bytes(10))
    ),
    "an authority whose names are loops": (
        header(NUMBER, QR | AA | 3, more=(1, 0))
        + question(NAME)
        + record(HERE, 6, struct.pack("!H", 0xC000 + RECORD + 12) * 2 + bytes(20))
    ),
    **{f"a good query cut to {n} bytes": GOOD_QUERY[:n] for n in range(len(GOOD_QUERY))},
    **{f"a good answer cut to {n} bytes": GOOD_ANSWER[:n] for n in range(len(GOOD_ANSWER))},
}

all_packets = pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)


def answer(request: DnsServerRequest) -> None:
    """Answer whatever is asked by an address."""
    for asked in request.questions[:3]:
        request.add_a_reply(asked.name, "192.0.2.1", 60)
    request.respond()


def send_to_server(base: EventBase, packet: bytes) -> None:
    """Send *packet* to a server, and see that it answers another."""
    with DnsServer(base, ("127.0.0.1", 0), answer) as server, Client(server) as client:
        client.send(packet)
        for _ in range(2):
            client.send(query(b"good.example", number=4711))
            replies = [client.answer()]
            while replies[-1][:2] != b"\x12\x67":
                replies.append(client.answer())
            assert read(replies[-1]).data == [bytes([192, 0, 2, 1])]
            assert len(replies) <= 2
        assert list(base._live.values()) == [server]
        assert len(base._ledger) == 1


def send_to_client(base: EventBase, packet: bytes) -> DnsResult:
    """Answer a lookup by *packet*, and then as one should; see that it and another end once."""
    results: list[Any] = []

    def bad(question: Question) -> Any:
        if not sent:
            sent.append(packet)
            names.socket.sendto(question.packet[:2] + packet[2:], question.client)
        return ["192.0.2.1"]

    def told(_lookup: Any, result: DnsResult, _ttl: int, addresses: list[str]) -> None:
        results.append((result, addresses))

    sent: list[bytes] = []
    with (
        NameServer(base, {"bad.example": bad, "good.example": ["192.0.2.2"]}) as names,
        DnsBase(base, DnsBaseFlag(0)) as resolver,
    ):
        resolver.set_option("randomize-case", 0)
        resolver.nameserver_sockaddr_add(names.address)
        resolver.resolve_ipv4("bad.example", told, flags=DnsQueryFlag.NO_SEARCH)
        run_until(base, lambda: results)
        resolver.resolve_ipv4("good.example", told, flags=DnsQueryFlag.NO_SEARCH)
        run_until(base, lambda: len(results) > 1)
        settle(base)
        assert results[1:] == [(DnsResult.NONE, ["192.0.2.2"])]
    result, addresses = results[0]
    assert not addresses or result == DnsResult.NONE
    return DnsResult(result)


def test_there_are_many() -> None:
    assert len(set(PACKETS.values())) > 180


@all_packets
def test_a_server_survives_it_as_a_query(base: EventBase, packet: bytes) -> None:
    send_to_server(base, packet)


@all_packets
def test_a_client_survives_it_as_an_answer(base: EventBase, packet: bytes) -> None:
    send_to_client(base, packet)


@VALGRIND_TAKES_LONG
def test_none_has_libevent_touch_memory_that_is_not_its_own(valgrind: bool) -> None:
    run_python(
        """
        from libevent_py import EventBase
        from tests.hostile.test_dns_packets import PACKETS, send_to_client, send_to_server
        for packet in PACKETS.values():
            with EventBase() as base:
                send_to_server(base, packet)
                send_to_client(base, packet)
        """,
        valgrind=valgrind,
    )
