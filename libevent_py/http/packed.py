"""A request as a whole, and the headers of a reply, each in one call of C (`_c/http_packed.c`)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from libevent_py._core.described import described
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import ROOM, spare, spares
from libevent_py.buffer.failure import failure
from libevent_py.enums import HttpCommand
from libevent_py.http.headers import Headers, Pairs, Text, pairs_of
from libevent_py.http.request import COMMANDS

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What C returns for headers that can't be sent.
MISNAMED = lib.EVPY_MISNAMED

#: What comes before the texts of a snapshot: ``struct evpy_http_facts``.
FACTS = struct.Struct("=QIHbb")

#: C's numbers of methods, with what a snapshot says of each.
METHODS = {number: (command, command.name or "") for number, command in COMMANDS.items()}

# Looked up once, for code that runs for every request.
facts_in: Final = FACTS.unpack_from
snapshot: Final = lib.evpy_http_snapshot
BEGIN = FACTS.size


@described(
    command="The method, an `HttpCommand`, or C's number for one that is unknown.",
    method='The method as the client has written it, such as "GET".',
    uri="The URI of the request line, unchanged, as text in Latin-1.",
    version="The version of HTTP: major and minor.",
    headers="Every header's name and value in order, as text in Latin-1.",
    body="The bytes in the input buffer, which keeps them.",
    peer="The client's address as libevent knows it: a numeric host and a port.",
)
class HttpRequestSnapshot(NamedTuple):
    """What a client has asked, as `HttpServerRequest.snapshot` returns it."""

    command: HttpCommand | int
    method: str
    uri: str
    version: tuple[int, int]
    headers: list[tuple[str, str]]
    body: bytes
    peer: tuple[str, int]


def snapshot_of(pointer: CData) -> HttpRequestSnapshot:
    """Return all that C knows of the request *pointer*."""
    memory, octets = kept = spares.pop() if spares else spare()
    end = snapshot(pointer, memory, ROOM)
    while end < -1:  # that much is needed
        memory = ffi.new("char[]", -end)
        octets = ffi.buffer(memory)
        end = snapshot(pointer, memory, -end)
    if end < 0:
        raise failure(lib.evbuffer_copyout)
    size, number, port, major, minor = facts_in(octets)
    uri, host, *texts = str(octets[BEGIN : end - 1], "latin-1").split("\0")
    body = octets[end : end + size] if size else b""
    spares.append(kept)
    command, method = METHODS.get(number) or (number, str(number))
    both = iter(texts)
    return HttpRequestSnapshot(
        command,
        method,
        uri,
        (major, minor),
        list(zip(both, both, strict=True)),
        body,
        (host, port),
    )


def texts_of(headers: Pairs) -> list[Text]:
    """Return every name in *headers*, each with its value after it."""
    texts: list[Text] = []
    if not isinstance(headers, Iterable):
        raise TypeError(f"headers must be a mapping or pairs of name and value, not {headers!r}")
    for pair in headers if type(headers) is list else pairs_of(headers):
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"headers must be pairs of name and value, not {pair!r}") from None
        texts += name, value
    return texts


def packed(texts: list[Text]) -> bytes:
    """Return *texts*, names and values, as C takes them; C says if they can't be sent."""
    kinds = set(map(type, texts))
    if kinds == {bytes}:
        return b"\0".join(texts) + b"\0"  # type: ignore[arg-type]
    if kinds == {str}:
        try:
            return "\0".join(texts).encode("latin-1") + b"\0"  # type: ignore[arg-type]
        except UnicodeEncodeError:
            pass  # below, the error says which
    return b"\0".join(itertools.chain.from_iterable(checked(texts))) + b"\0" if texts else b""


def checked(texts: list[Text]) -> list[tuple[bytes, bytes]]:
    """Return *texts* as names and values for C, or raise the errors of `Headers.add`."""
    headers, both = Headers.__new__(Headers), iter(texts)
    return [
        (headers._name(name), headers._value(name, value))
        for name, value in zip(both, both, strict=True)
    ]
