"""What Python says reaches C as it was meant, and what C could misread is refused by name."""

from __future__ import annotations

import os
import socket
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from libevent_py import EventFlag, MonotonicFlag
from libevent_py._core import convert
from libevent_py._ffi import ffi, lib

PATH_ROOM = ffi.sizeof(ffi.new("struct sockaddr_un *").sun_path)


class Index:
    """Something that is an integer without being an int."""

    def __index__(self) -> int:
        return 7


class File:
    """Something that has a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def round_trip(address: Any) -> Any:
    sockaddr = convert.sockaddr(address)
    return convert.unpack_address(sockaddr.pointer, sockaddr.length)


# Seconds.


@pytest.mark.parametrize(
    "value", [2.5, Decimal("2.5"), Fraction(5, 2)], ids=["float", "Decimal", "Fraction"]
)
def test_every_kind_of_number_can_be_seconds(value: Any) -> None:
    seconds = convert.seconds(value)
    assert (type(seconds), seconds) == (float, 2.5)


def test_an_integer_can_be_seconds() -> None:
    assert convert.seconds(0) == 0.0
    assert convert.seconds(Index()) == 7.0
    assert convert.seconds(convert.MAX_SECONDS) == convert.MAX_SECONDS


@pytest.mark.parametrize("value", ["5", b"5", bytearray(b"5"), None, 1j, [1]])
def test_what_is_no_number_is_refused_as_seconds(value: Any) -> None:
    with pytest.raises(TypeError, match="pause must be a number of seconds, not "):
        convert.seconds(value, "pause")


@pytest.mark.parametrize(
    "value", [-1, -1e-9, convert.MAX_SECONDS + 1, float("inf"), float("nan"), 10**400, -(10**400)]
)
def test_seconds_that_no_timeval_holds_are_refused(value: Any) -> None:
    with pytest.raises(
        ValueError, match=f"pause must be from 0 to {convert.MAX_SECONDS} seconds, not "
    ):
        convert.seconds(value, "pause")


def test_no_timeout_is_a_negative_number_for_our_c() -> None:
    assert convert.optional_seconds(None) == -1.0
    assert convert.optional_seconds(0) == 0.0
    with pytest.raises(ValueError, match="timeout must be from 0"):
        convert.optional_seconds(-1)


@pytest.mark.parametrize(
    ("seconds", "fields"),
    [
        (0, (0, 0)),
        (1.5, (1, 500_000)),
        (0.000001, (0, 1)),
        (0.0000004, (0, 0)),
        (0.9999999, (1, 0)),
        (2.9999996, (3, 0)),
        (convert.MAX_SECONDS, (convert.MAX_SECONDS, 0)),
    ],
)
def test_a_timeval_is_rounded_to_microseconds_and_never_has_a_million(
    seconds: float, fields: tuple[int, int]
) -> None:
    tv = convert.timeval(seconds)
    assert (tv.tv_sec, tv.tv_usec) == fields
    assert convert.from_timeval(tv) == pytest.approx(seconds, abs=5e-7)


def test_a_timeval_holds_the_time_of_day_to_the_microsecond() -> None:
    tv = ffi.new("struct timeval *", (1_700_000_000, 123_457))
    assert f"{convert.from_timeval(tv):.6f}" == "1700000000.123457"


# Flags and integers.


def test_flags_become_members_of_their_enumeration() -> None:
    flags = convert.flags(EventFlag, lib.EV_READ | lib.EV_PERSIST, "what")
    assert flags == EventFlag.READ | EventFlag.PERSIST
    assert isinstance(flags, EventFlag)
    assert convert.flags(EventFlag, 0, "what") == EventFlag(0)


@pytest.mark.parametrize("value", [-1, 0x1000, 0x1002, 2**40])
def test_bits_that_an_enumeration_does_not_know_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"what has bits that EventFlag does not know: -?0x"):
        convert.flags(EventFlag, value, "what")


@pytest.mark.parametrize("value", [True, False, None, 2.0, "READ", Index()])
def test_what_is_no_int_is_refused_as_flags(value: Any) -> None:
    with pytest.raises(TypeError, match="what must be of EventFlag, not "):
        convert.flags(EventFlag, value, "what")


def test_another_enumerations_flags_count_by_their_bits() -> None:
    assert convert.flags(EventFlag, MonotonicFlag.FALLBACK, "what") is EventFlag.READ


def test_integers_keep_to_their_range() -> None:
    assert [convert.integer(number, "n", 3, 7) for number in (3, 7, Index())] == [3, 7, 7]
    for number in (2, 8, -(10**30), 10**30):
        with pytest.raises(ValueError, match=f"n must be from 3 to 7, not {number}"):
            convert.integer(number, "n", 3, 7)


@pytest.mark.parametrize("value", [3.0, "3", b"3", None, int, Index])
def test_what_is_no_integer_is_refused_as_one(value: Any) -> None:
    with pytest.raises(TypeError, match="n must be an integer, not "):
        convert.integer(value, "n", 0, 9)


# Callbacks.


def test_a_callback_is_anything_that_can_be_called() -> None:
    assert convert.callback(print) is print
    with pytest.raises(TypeError, match="on_read must be callable, not 'print'"):
        convert.callback("print", "on_read")


# Octets.


@pytest.mark.parametrize(
    "data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xabcx")[1:4]]
)
def test_octets_are_any_objects_memory_and_its_length(data: Any) -> None:
    memory, length = convert.octets(data)
    taken = ffi.new("char[]", length)
    ffi.memmove(taken, memory, length)
    assert (bytes(ffi.buffer(taken)), length) == (b"abc", 3)


def test_octets_of_wide_items_are_counted_in_bytes() -> None:
    assert convert.octets(memoryview(bytes(12)).cast("i"))[1] == 12


@pytest.mark.parametrize("data", ["abc", 3, None, [1, 2]])
def test_what_has_no_memory_is_refused_as_octets(data: Any) -> None:
    with pytest.raises(TypeError, match="chunk must be bytes or have the buffer protocol, not "):
        convert.octets(data, "chunk")


def test_scattered_memory_is_refused_as_octets() -> None:
    with pytest.raises(ValueError, match="chunk must be contiguous"):
        convert.octets(memoryview(b"abcdef")[::2], "chunk")


# Descriptors.


def test_a_descriptor_is_a_number_or_has_one(pair: tuple[socket.socket, socket.socket]) -> None:
    left, _ = pair
    assert convert.descriptor(left.fileno()) == left.fileno()
    assert convert.descriptor(left) == left.fileno()
    assert convert.descriptor(File(left.fileno())) == left.fileno()


@pytest.mark.parametrize("value", [None, "1", 1.0, True, Index()])
def test_what_has_no_descriptor_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="sock must be a file descriptor or have a fileno"):
        convert.descriptor(value, "sock")


@pytest.mark.parametrize("value", [-1, -(2**31), convert.MAX_FD + 1, File(-1), File(2**63)])
def test_a_number_that_is_no_descriptor_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="sock must be an open file descriptor, not "):
        convert.descriptor(value, "sock")


def test_a_closed_socket_is_refused() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match="fd must be an open file descriptor, not -1"):
        convert.descriptor(sock)


def test_a_closed_descriptor_is_refused_by_errno_and_name() -> None:
    with tempfile.TemporaryFile() as file:
        fd = os.dup(file.fileno())
    os.close(fd)
    with pytest.raises(OSError, match=f"sock {fd}: Bad file descriptor"):
        convert.descriptor(fd, "sock")


# Addresses.


def test_an_ipv4_address_is_in_network_order() -> None:
    sockaddr = convert.sockaddr(("1.2.3.4", 0x1234))
    sin = ffi.cast("struct sockaddr_in *", sockaddr.pointer)
    assert sin.sin_family == socket.AF_INET
    assert bytes(ffi.buffer(ffi.addressof(sin, "sin_port"))) == b"\x12\x34"
    assert bytes(ffi.buffer(ffi.addressof(sin, "sin_addr"))) == b"\1\2\3\4"
    assert sockaddr.length == ffi.sizeof("struct sockaddr_in")


def test_an_ipv6_address_has_flow_and_scope() -> None:
    sockaddr = convert.sockaddr(("1:2::ff", 80, 0x12345, 9))
    sin6 = ffi.cast("struct sockaddr_in6 *", sockaddr.pointer)
    assert sin6.sin6_family == socket.AF_INET6
    assert bytes(ffi.buffer(ffi.addressof(sin6, "sin6_port"))) == b"\0\x50"
    assert bytes(ffi.buffer(ffi.addressof(sin6, "sin6_flowinfo"))) == b"\0\1\x23\x45"
    assert bytes(ffi.buffer(ffi.addressof(sin6, "sin6_addr"))) == bytes.fromhex(
        "00010002000000000000000000" + "0000ff"
    )
    assert sin6.sin6_scope_id == 9
    assert sockaddr.length == ffi.sizeof("struct sockaddr_in6")


@pytest.mark.parametrize(
    ("address", "same"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("0.0.0.0", 0), ("0.0.0.0", 0)),
        (("", 65535), ("0.0.0.0", 65535)),
        (("::1", 80), ("::1", 80, 0, 0)),
        (("1:0:0::ABCD", 80, 5), ("1::abcd", 80, 5, 0)),
        (("fe80::1", 80, 2**20 - 1, 2**32 - 1), ("fe80::1", 80, 2**20 - 1, 2**32 - 1)),
        (("::ffff:1.2.3.4", 1), ("::ffff:1.2.3.4", 1, 0, 0)),
        ("/tmp/socket", "/tmp/socket"),
        (b"/tmp/socket", "/tmp/socket"),
        (Path("/tmp/socket"), "/tmp/socket"),
        ("/tmp/\N{SNOWMAN}", "/tmp/\N{SNOWMAN}"),
        (b"/tmp/\xff", "/tmp/\udcff"),
        (b"\0abstract", b"\0abstract"),
        ("\0abstract", b"\0abstract"),
        (b"\0with\0more", b"\0with\0more"),
        ("x" * (PATH_ROOM - 1), "x" * (PATH_ROOM - 1)),
        (b"\0" + b"x" * (PATH_ROOM - 1), b"\0" + b"x" * (PATH_ROOM - 1)),
    ],
)
def test_an_address_comes_back_from_c_as_python_writes_it(address: Any, same: Any) -> None:
    assert round_trip(address) == same


def test_a_scope_may_be_an_interfaces_name_in_the_host() -> None:
    index, name = socket.if_nameindex()[0]
    assert round_trip((f"fe80::1%{name}", 80)) == ("fe80::1", 80, 0, index)
    assert round_trip((f"fe80::1%{name}", 80, 0, 77)) == ("fe80::1", 80, 0, 77)


def test_addresses_are_those_that_the_system_takes_and_gives(tmp_path: Path) -> None:
    kinds: list[tuple[socket.AddressFamily, Any]] = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, str(tmp_path / "s")),
    ]
    for family, address in kinds:
        with socket.socket(family) as server:
            server.bind(address)
            name = server.getsockname()
            assert round_trip(name) == name


@pytest.mark.parametrize(
    "address",
    [None, 80, ["127.0.0.1", 80], (), ("127.0.0.1",), ("::1", 80, 0, 0, 0), bytearray(b"/tmp/s")],
)
def test_what_has_not_the_form_of_an_address_is_refused(address: Any) -> None:
    with pytest.raises(TypeError, match=r"address must be \(host, port\) or a path, not "):
        convert.sockaddr(address)


@pytest.mark.parametrize(
    ("address", "error", "complaint"),
    [
        ((None, 80), TypeError, "address must begin with a host in text, not None"),
        ((b"::1", 80), TypeError, "address must begin with a host in text, not b'::1'"),
        (("::1", "80"), TypeError, "address's port must be an integer, not '80'"),
        (("::1", -1), ValueError, "address's port must be from 0 to 65535, not -1"),
        (("::1", 65536), ValueError, "address's port must be from 0 to 65535, not 65536"),
        (("::1", 80, 2**20), ValueError, "address's flowinfo must be from 0 to 1048575"),
        (("::1", 80, 0, -1), ValueError, "address's scope id must be from 0 to 4294967295"),
    ],
)
def test_the_part_of_an_address_that_is_wrong_is_named(
    address: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        convert.sockaddr(address)


NO_HOSTS = ["localhost", "1.2.3", "256.0.0.1", "1.2.3.4 ", "::1::", "fe80::1%nowhere", "ü"]


@pytest.mark.parametrize("host", [*NO_HOSTS, "\0", "1.2.3.4\0", "\ud800", "x" * 10_000])
def test_a_host_that_would_have_to_be_looked_up_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="address must have a numeric IPv4 or IPv6 host, not "):
        convert.sockaddr((host, 80))


@pytest.mark.parametrize("path", ["", b"", "a\0b", "x" * PATH_ROOM, b"\0" + b"x" * PATH_ROOM])
def test_a_path_that_no_socket_can_have_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match=f"address must be a path of 1 to {PATH_ROOM - 1} bytes"):
        convert.sockaddr(path)


LOOK_LIKE_HOSTS = [
    ("127.0.0.1:8080", "('127.0.0.1', 8080)"),
    (b"127.0.0.1:8080", "('127.0.0.1', 8080)"),
    ("[::1]:8080", "('::1', 8080)"),
    ("::1", "('::1', port)"),
    ("[::1]", "('::1', port)"),
    ("fe80::1%eth0", "('fe80::1%eth0', port)"),
    ("fe80::1%eth0:80", "('fe80::1%eth0', 80)"),
    ("127.0.0.1", "('127.0.0.1', port)"),
    ("localhost:80", "('localhost', 80)"),
    (":80", "('', 80)"),
    ("*:80", "('*', 80)"),
]


@pytest.mark.parametrize(("address", "instead"), LOOK_LIKE_HOSTS)
def test_a_path_that_looks_like_a_host_is_refused_with_what_to_write(
    address: Any, instead: str
) -> None:
    """Or a listener would make a file of that name, and wait there for ever."""
    with pytest.raises(ValueError, match="looks like a host: give ") as caught:
        convert.sockaddr(address)
    text = os.fsdecode(address)
    assert f"give {instead}, or for a file of that name {'./' + text!r}" in str(caught.value)
    assert round_trip("./" + text) == "./" + text
    assert round_trip(Path(text)) == text
    assert round_trip("\0" + text) == b"\0" + text.encode()


@pytest.mark.parametrize(
    "path", ["s", "a.sock", "a:b", "a:", "80", "a:123456", "localhost", "a:1b"]
)
def test_any_other_name_is_a_path(path: str) -> None:
    assert round_trip(path) == path


@pytest.mark.parametrize("host", ["127.0.0.1:80", "[::1]:80", "example.com:80", b"a:1", ":80"])
def test_a_host_with_a_port_in_it_is_refused_where_the_port_comes_beside_it(host: Any) -> None:
    with pytest.raises(ValueError, match=r"host must have no port in it, not .*: give .* as port"):
        convert.host_alone(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "::1:80", "example.com", "a"])
def test_a_host_without_one_is_taken_as_it_is(host: str) -> None:
    assert convert.host_alone(host) == host.encode()


def test_the_address_of_a_socket_without_one_is_an_empty_path() -> None:
    sockaddr = convert.sockaddr("/tmp/s")
    length = ffi.offsetof("struct sockaddr_un", "sun_path")
    assert convert.unpack_address(sockaddr.pointer, length) == ""


@pytest.mark.parametrize("family", [socket.AF_UNSPEC, 250])
def test_an_address_of_another_family_is_refused(family: int) -> None:
    storage = ffi.new("struct sockaddr_storage *")
    storage.ss_family = family
    pointer = ffi.cast("struct sockaddr *", storage)
    with pytest.raises(ValueError, match=f"not of family {int(family)}"):
        convert.unpack_address(pointer, ffi.sizeof(storage[0]))


def test_an_address_of_no_length_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="not of family 0"):
        convert.unpack_address(ffi.NULL, 0)


# Text.


def test_text_from_c_is_utf_8_with_other_bytes_escaped() -> None:
    assert convert.text(ffi.new("char[]", b"caf\xc3\xa9 \xff")) == "café \\xff"


class Lying(int):
    """A number that says it is another one."""

    def __int__(self) -> int:
        return 1


def test_a_number_that_lies_is_taken_for_what_it_is() -> None:
    """Its int() was looked at, or was used, though C would get, or had been asked of, another."""
    with pytest.raises(ValueError, match="0x1001"):
        convert.flags(EventFlag, Lying(0x1001), "what")
    assert convert.flags(EventFlag, Lying(2), "what") is EventFlag.READ
    reader, writer = os.pipe()
    try:
        assert convert.descriptor(Lying(reader)) == reader
    finally:
        os.close(reader)
        os.close(writer)
