"""``struct evutil_addrinfo``: what a lookup is asked, and what it answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from libevent_py._core import convert
from libevent_py._core.convert import Address
from libevent_py._ffi import ffi
from libevent_py.enums import AddrInfoFlag

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: One of what `getaddrinfo` finds: family, type, protocol, canonical name and address.
AddrInfo: TypeAlias = tuple[int, int, int, str, Address]


def question(
    host: str | bytes | None,
    service: int | str | bytes | None,
    name: str,
    family: int,
    type: int,
    proto: int,
    flags: int,
) -> tuple[bytes | CData, bytes | CData, CData]:
    """Return the arguments of `getaddrinfo` for C; errors call the second one *name*."""
    hints = ffi.new("struct evutil_addrinfo *")
    hints.ai_flags = convert.flags(AddrInfoFlag, flags, "flags")
    hints.ai_family = convert.c_int(family, "family")
    hints.ai_socktype = convert.c_int(type, "type")
    hints.ai_protocol = convert.c_int(proto, "proto")
    node = ffi.NULL if host is None else convert.host_alone(host)
    if service is None:
        return node, ffi.NULL, hints
    if isinstance(service, (str, bytes)):
        return node, convert.string(service, name), hints
    return node, b"%d" % convert.integer(service, name, 0, 65535), hints


def unpacked(ai: CData) -> list[AddrInfo]:
    """Return the list in C's ``struct evutil_addrinfo *``, which may be NULL, in Python's form."""
    found = []
    while ai != ffi.NULL:
        name = "" if ai.ai_canonname == ffi.NULL else convert.text(ai.ai_canonname)
        address = convert.unpack_address(ai.ai_addr, ai.ai_addrlen)
        family = _member(socket.AddressFamily, ai.ai_family)
        kind = _member(socket.SocketKind, ai.ai_socktype)
        found.append((family, kind, int(ai.ai_protocol), name, address))
        ai = ai.ai_next
    return found


def _member(kind: Callable[[int], int], number: int) -> int:
    """Return *number* as a member of *kind*, or as it is where Python has no name for it."""
    try:
        return kind(number)
    except ValueError:
        return number
