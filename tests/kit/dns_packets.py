"""DNS packets, written and read by hand: what tests of DNS send and get."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

from libevent_py import DnsServer, EventBase
from tests.kit.peers import run_until

A, NS, CNAME, PTR, MX, TXT, AAAA = 1, 2, 5, 12, 15, 16, 28
IN = 1

#: The name that is asked for where none is named.
NAME = b"www.example.com"

QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010


def encoded(name: bytes) -> bytes:
    """Return a name with dots as DNS writes it."""
    labels = name.rstrip(b".").split(b".") if name.rstrip(b".") else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def header(
    number: int,
    flags: int = RD,
    questions: int = 1,
    answers: int = 0,
    more: tuple[int, int] = (0, 0),
) -> bytes:
    """Return the first twelve bytes of a packet."""
    return struct.pack("!6H", number, flags, questions, answers, *more)


def question(name: bytes, type: int = A, dns_class: int = IN) -> bytes:
    """Return a question for *name*."""
    return encoded(name) + struct.pack("!2H", type, dns_class)


def query(name: bytes, type: int = A, number: int = 4711, flags: int = RD) -> bytes:
    """Return a query for *name*."""
    return header(number, flags) + question(name, type)


def record(name: bytes, type: int, data: bytes, ttl: int = 60) -> bytes:
    """Return a record of an answer; *name* is already encoded."""
    return name + struct.pack("!2HIH", type, IN, ttl, len(data)) + data


class Record(NamedTuple):
    """A record as it was received; in *data*, names are spelt out."""

    name: bytes
    type: int
    dns_class: int
    ttl: int
    data: bytes


class Reply(NamedTuple):
    """What was received."""

    number: int
    flags: int
    questions: list[tuple[bytes, int, int]]
    #: The records of the three sections: answer, authority, additional.
    sections: list[list[Record]]

    @property
    def code(self) -> int:
        """How the query went: DNS_ERR_NONE, …"""
        return self.flags & 15

    @property
    def data(self) -> list[bytes]:
        """The data of the answers."""
        return [record.data for record in self.sections[0]]


def read_name(packet: bytes, at: int) -> tuple[bytes, int]:
    """Return the name at *at*, with dots, and where it ends."""
    labels, end = [], None
    while packet[at]:
        if packet[at] & 0xC0:
            end = end or at + 2
            at = int.from_bytes(packet[at : at + 2], "big") & 0x3FFF
            continue
        labels.append(packet[at + 1 : at + 1 + packet[at]])
        at += 1 + packet[at]
    return b".".join(labels), end or at + 1


def read(packet: bytes) -> Reply:
    """Return what *packet* says; of a truncated one only the questions."""
    number, flags, asked, *counts = struct.unpack("!6H", packet[:12])
    at = 12
    questions = []
    for _ in range(asked):
        name, at = read_name(packet, at)
        questions.append((name, *struct.unpack("!2H", packet[at : at + 4])))
        at += 4
    sections: list[list[Record]] = []
    if flags & TC:
        return Reply(number, flags, questions, sections)
    for count in counts:
        sections.append([])
        for _ in range(count):
            name, at = read_name(packet, at)
            type, dns_class, ttl, length = struct.unpack("!2HIH", packet[at : at + 10])
            at += 10
            data = packet[at : at + length]
            assert len(data) == length
            if type in (NS, CNAME, PTR):
                data, end = read_name(packet, at)
                assert end == at + length
            at += length
            sections[-1].append(Record(name, type, dns_class, ttl, data))
    assert at == len(packet)
    return Reply(number, flags, questions, sections)


class Client:
    """A UDP socket that asks a `DnsServer`; it can be used in ``with``."""

    def __init__(self, server: DnsServer) -> None:
        self.base: EventBase = server.base
        self.received: list[bytes] = []
        family = socket.AF_INET6 if ":" in server.address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(server.address)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.sock.close()

    def send(self, packet: bytes) -> None:
        """Send a packet, and wait for nothing."""
        self.sock.send(packet)

    def ready(self) -> bool:
        """Take what has come, and tell whether anything has."""
        try:
            while True:
                self.received.append(self.sock.recv(65536))
        except BlockingIOError:
            return bool(self.received)

    def answer(self) -> bytes:
        """Run the loop until an answer has come, and return it."""
        run_until(self.base, self.ready)
        return self.received.pop(0)

    def ask(self, name: bytes, type: int = A, flags: int = RD) -> Reply:
        """Send a query and return the answer to it."""
        self.send(query(name, type, flags=flags))
        return read(self.answer())
