"""What `util` adds to libevent's functions: Python's values, and refusals before C sees them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import gc
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta, timezone
from types import FunctionType
from typing import Any

import pytest

from libevent_py import (
    AddrInfoError,
    AddrInfoFlag,
    DnsError,
    LibeventError,
    MonotonicFlag,
    util,
)
from libevent_py._core import addrinfo, convert
from libevent_py._ffi import ffi, lib
from libevent_py.errors import ClosedError
from tests.kit.support import PATIENCE, run_python

ON_DESCRIPTORS = [
    util.make_socket_nonblocking,
    util.make_socket_closeonexec,
    util.make_listen_socket_reuseable,
    util.make_listen_socket_reuseable_port,
    util.make_listen_socket_ipv6only,
    util.make_tcp_listen_socket_deferred,
    util.closesocket,
]


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """A TCP socket that is bound to nothing."""
    with socket.socket() as sock:
        yield sock


def replace(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    """Have `util` call *function* instead of libevent's of that name."""

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return function if name == function.__name__ else getattr(lib, name)

    monkeypatch.setattr(util, "lib", Lib())


# Descriptors.


def test_a_socketpair_is_two_python_sockets_connected_to_each_other() -> None:
    left, right = util.socketpair()
    with left, right:
        assert (left.family, left.type, left.proto) == (socket.AF_UNIX, socket.SOCK_STREAM, 0)
        left.sendall(b"over")
        assert right.recv(4) == b"over"
        right.sendall(b"back")
        assert left.recv(4) == b"back"


def test_a_socketpair_can_be_of_another_type() -> None:
    left, right = util.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        assert left.type == right.type == socket.SOCK_DGRAM
        left.send(b"one")
        left.send(b"two")
        assert (right.recv(99), right.recv(99)) == (b"one", b"two")


def test_a_socketpair_is_not_inherited() -> None:
    left, right = util.socketpair()
    with left, right:
        assert not os.get_inheritable(left.fileno())
        assert not os.get_inheritable(right.fileno())


def test_a_socketpair_of_a_family_that_has_none_is_an_error() -> None:
    with pytest.raises(OSError, match="evutil_socketpair: ") as caught:
        util.socketpair(socket.AF_INET)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("name", ["family", "type", "proto"])
def test_an_argument_of_socketpair_that_is_no_int_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer"):
        util.socketpair(**{name: "1"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{name} must be from "):
        util.socketpair(**{name: 2**31})


def test_a_socket_made_nonblocking_does_not_block(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left, _ = pair
    os.set_blocking(left.fileno(), True)
    util.make_socket_nonblocking(left)
    assert not os.get_blocking(left.fileno())
    util.make_socket_nonblocking(left.fileno())
    with pytest.raises(BlockingIOError):
        left.recv(1)


def test_a_socket_made_closeonexec_is_not_inherited(tcp: socket.socket) -> None:
    tcp.set_inheritable(True)
    util.make_socket_closeonexec(tcp)
    assert not tcp.get_inheritable()


def test_listen_sockets_made_reuseable_can_share_an_address(tcp: socket.socket) -> None:
    util.make_listen_socket_reuseable(tcp)
    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    tcp.bind(("127.0.0.1", 0))
    with socket.socket() as other:
        util.make_listen_socket_reuseable(other)
        other.bind(tcp.getsockname())


# Where the option is missing, so is what libevent could set.
@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system has no SO_REUSEPORT")
def test_listen_sockets_made_reuseable_by_port_can_listen_on_one_address(
    tcp: socket.socket,
) -> None:
    util.make_listen_socket_reuseable_port(tcp)
    tcp.bind(("127.0.0.1", 0))
    tcp.listen()
    with socket.socket() as other:
        util.make_listen_socket_reuseable_port(other)
        other.bind(tcp.getsockname())
        other.listen()


def test_a_listen_socket_made_ipv6only_leaves_the_port_to_ipv4() -> None:
    for attempt in range(20):
        with socket.socket(socket.AF_INET6) as six, socket.socket() as tcp:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            util.make_listen_socket_ipv6only(six)
            six.bind(("::", 0))
            try:
                tcp.bind(("0.0.0.0", six.getsockname()[1]))
            except OSError:  # another process may have just that port
                if attempt == 19:
                    raise
            else:
                break


def test_an_ipv4_socket_can_not_be_made_ipv6only(tcp: socket.socket) -> None:
    with pytest.raises(OSError, match="evutil_make_listen_socket_ipv6only: "):
        util.make_listen_socket_ipv6only(tcp)


# Linux has it alone; elsewhere libevent does nothing, and there is nothing to see.
@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="the system can't defer")
def test_a_deferred_listen_socket_accepts_when_there_is_data(tcp: socket.socket) -> None:
    tcp.bind(("127.0.0.1", 0))
    util.make_tcp_listen_socket_deferred(tcp)
    assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
    tcp.listen()
    with socket.create_connection(tcp.getsockname()) as client:
        client.sendall(b"data")
        assert select.select([tcp], [], [], PATIENCE)[0]
        accepted, _ = tcp.accept()
        with accepted:
            assert accepted.recv(4) == b"data"


def test_a_pipe_is_no_socket() -> None:
    reader, writer = os.pipe()
    try:
        for function in (
            util.make_listen_socket_reuseable,
            util.make_listen_socket_reuseable_port,
            util.make_listen_socket_ipv6only,
            util.make_tcp_listen_socket_deferred,
        ):
            with pytest.raises(OSError, match=f"evutil_{function.__name__}: ") as caught:
                function(reader)
            assert caught.value.errno == errno.ENOTSOCK
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("function", ON_DESCRIPTORS)
def test_what_is_no_open_descriptor_is_refused_by_name(function: Callable[[Any], None]) -> None:
    with socket.socket() as sock:
        closed = os.dup(sock.fileno())
    os.close(closed)
    with pytest.raises(OSError, match=f"fd {closed}: Bad file descriptor"):
        function(closed)
    with pytest.raises(ValueError, match="fd must be an open file descriptor, not -1"):
        function(sock)
    with pytest.raises(TypeError, match="fd must be a file descriptor"):
        function("3")


def test_closing_a_descriptor_closes_it() -> None:
    reader, writer = os.pipe()
    util.closesocket(writer)
    assert os.read(reader, 1) == b""
    util.closesocket(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


def test_closing_a_python_socket_closes_it_once_for_python_too() -> None:
    left, right = util.socketpair()
    with right:
        number = left.fileno()
        util.closesocket(left)
        assert left.fileno() == -1
        assert right.recv(1) == b""
        again = os.open(os.devnull, os.O_RDONLY)
        left.close()
        del left
        gc.collect()
        assert again == number
        os.close(again)


def test_a_file_is_not_closed_behind_its_back() -> None:
    with open(os.devnull) as file:
        with pytest.raises(TypeError, match="fd must be a descriptor or a socket"):
            util.closesocket(file)  # type: ignore[arg-type]
        assert file.read() == ""


# Addresses.


@pytest.mark.parametrize(
    ("family", "packed", "text"),
    [
        (socket.AF_INET, b"\x7f\0\0\1", "127.0.0.1"),
        (socket.AF_INET, bytearray(b"\xff\xff\xff\xff"), "255.255.255.255"),
        (socket.AF_INET6, memoryview(bytes(15) + b"\1"), "::1"),
        (socket.AF_INET6, b"\xff" * 16, ":".join(["ffff"] * 8)),
    ],
)
def test_a_packed_address_becomes_text_and_back(
    family: socket.AddressFamily, packed: bytes, text: str
) -> None:
    assert util.inet_ntop(family, packed) == text == socket.inet_ntop(family, packed)
    assert util.inet_pton(family, text) == packed


def test_the_longest_text_of_an_address_fits() -> None:
    mapped = bytes(10) + b"\xff" * 6
    assert util.inet_ntop(socket.AF_INET6, mapped) == "::ffff:255.255.255.255"


@pytest.mark.parametrize("size", [0, 3, 5, 15, 17])
def test_a_packed_address_of_the_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"packed must be 4 bytes for this family, not {size}"):
        util.inet_ntop(socket.AF_INET, bytes(size))
    with pytest.raises(ValueError, match=f"packed must be 16 bytes for this family, not {size}"):
        util.inet_ntop(socket.AF_INET6, bytes(size))


def test_a_packed_address_in_text_is_refused() -> None:
    with pytest.raises(TypeError, match="packed must be bytes"):
        util.inet_ntop(socket.AF_INET, "\x7f\0\0\1")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [util.inet_ntop, util.inet_pton, util.inet_pton_scope])
def test_addresses_are_of_two_families_only(function: Callable[[Any, Any], Any]) -> None:
    for family in (socket.AF_UNSPEC, socket.AF_UNIX, -1):
        with pytest.raises(ValueError, match=f"family must be AF_INET or AF_INET6, not {family:d}"):
            function(family, b"1.2.3.4")
    with pytest.raises(TypeError, match="family must be an integer, not None"):
        function(None, b"1.2.3.4")


@pytest.mark.parametrize(
    "parse",
    [
        lambda text: util.inet_pton(socket.AF_INET, text),
        lambda text: util.inet_pton_scope(socket.AF_INET6, text),
        util.parse_sockaddr_port,
    ],
)
def test_text_that_c_would_cut_short_or_can_not_read_is_refused(
    parse: Callable[[Any], Any],
) -> None:
    with pytest.raises(ValueError, match="text must not contain a NUL"):
        parse("1.2.3.4\0")
    with pytest.raises(ValueError, match="text must be text that UTF-8 can encode"):
        parse("\ud800")
    with pytest.raises(TypeError, match="text must be str or bytes, not 1"):
        parse(1)


def test_what_is_no_address_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="text must be an IPv4 address, not '::1'"):
        util.inet_pton(socket.AF_INET, "::1")
    with pytest.raises(ValueError, match=r"text must be an IPv6 address, not '1\.2\.3\.4'"):
        util.inet_pton(socket.AF_INET6, "1.2.3.4")
    with pytest.raises(ValueError, match="text must be an address, with or without a port"):
        util.parse_sockaddr_port("localhost:80")
    with pytest.raises(ValueError, match="text must be an address, with or without a port"):
        util.parse_sockaddr_port("1.2.3.4:65536")


def test_a_scope_is_an_interfaces_name_or_number() -> None:
    index, name = socket.if_nameindex()[0]
    packed = util.inet_pton(socket.AF_INET6, "fe80::1")
    assert util.inet_pton_scope(socket.AF_INET6, f"fe80::1%{name}") == (packed, index)
    assert util.inet_pton_scope(socket.AF_INET6, "fe80::1%4711") == (packed, 4711)
    assert util.inet_pton_scope(socket.AF_INET6, "fe80::1") == (packed, 0)
    assert util.inet_pton_scope(socket.AF_INET, "1.2.3.4") == (b"\1\2\3\4", 0)


def test_an_address_with_a_port_comes_in_the_form_that_sockets_take() -> None:
    assert util.parse_sockaddr_port("127.0.0.1:80") == ("127.0.0.1", 80)
    assert util.parse_sockaddr_port("[::1]:80") == ("::1", 80, 0, 0)
    assert util.parse_sockaddr_port(b"::1") == ("::1", 0, 0, 0)
    assert util.parse_sockaddr_port("[fe80::1%3]:80") == ("fe80::1", 80, 0, 3)
    with socket.socket() as server:
        server.bind(util.parse_sockaddr_port("127.0.0.1"))


def test_addresses_are_ordered() -> None:
    one, other = ("1.2.3.4", 80), ("1.2.3.4", 81)
    assert util.sockaddr_cmp(one, one) == 0
    assert util.sockaddr_cmp(one, other) < 0 < util.sockaddr_cmp(other, one)
    assert util.sockaddr_cmp(one, other, include_port=False) == 0
    assert util.sockaddr_cmp(("::1", 80), ("::2", 80)) < 0
    assert util.sockaddr_cmp(("::1", 80, 1, 2), ("::1", 80, 3, 4)) == 0
    assert util.sockaddr_cmp(one, ("::1", 80)) < 0 < util.sockaddr_cmp(("::1", 80), one)


def test_paths_are_never_equal_as_in_c() -> None:
    assert util.sockaddr_cmp("/tmp/s", "/tmp/s") == 1


def test_what_is_no_address_is_not_compared() -> None:
    with pytest.raises(TypeError, match="address must be"):
        util.sockaddr_cmp(("::1", 80), None)  # type: ignore[arg-type]


# Name lookups.


@pytest.mark.parametrize(
    "arguments",
    [
        ("127.0.0.1", 80),
        ("127.0.0.1", "80", socket.AF_INET, socket.SOCK_STREAM),
        ("::1", None, socket.AF_INET6, 0, socket.IPPROTO_UDP),
        (b"::1", b"80"),
        ("1.2.3.4", 0, 0, socket.SOCK_DGRAM, 0, socket.AI_CANONNAME | socket.AI_NUMERICHOST),
        ("localhost", 80, socket.AF_INET, socket.SOCK_STREAM),
        (None, 80),
        (None, 80, 0, 0, 0, socket.AI_PASSIVE),
    ],
)
def test_a_lookup_gives_what_pythons_own_gives(arguments: tuple[Any, ...]) -> None:
    found, expected = util.getaddrinfo(*arguments), socket.getaddrinfo(*arguments)
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert [type(part) for part in one] == [type(part) for part in other]


@pytest.mark.parametrize(
    "call", ["inet_pton_scope(10, 'fe80::1%1')", "parse_sockaddr_port('[fe80::1%1]:80')"]
)
def test_an_address_with_a_scope_is_parsed_without_memory_or_refused(call: str) -> None:
    told = run_python(
        f"""
        from libevent_py import debug, util
        debug.count_memory()
        usual = util.{call}
        with debug.FailingMemory(1) as failing:
            assert util.{call} == usual
        assert failing.refused == 1
        with debug.FailingMemory(1, put_aside=False, onwards=True):
            try:
                util.{call}
            except MemoryError:
                print("refused")
        """
    )
    assert told == "refused\n"


def test_a_lookup_can_be_told_a_scope() -> None:
    index, name = socket.if_nameindex()[0]
    found = util.getaddrinfo(f"fe80::1%{name}", 80, type=socket.SOCK_STREAM)
    assert [address for *_, address in found] == [("fe80::1", 80, 0, index)]


def test_a_canonical_name_comes_with_the_first_address() -> None:
    found = util.getaddrinfo(
        "127.0.0.1", None, type=socket.SOCK_STREAM, flags=AddrInfoFlag.CANONNAME
    )
    assert [name for _, _, _, name, _ in found] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"host": "no-number", "port": 80, "flags": AddrInfoFlag.NUMERICHOST}, "NONAME"),
        ({"host": None, "port": None}, "NONAME"),
        ({"host": "::1", "port": 80, "family": socket.AF_INET}, "ADDRFAMILY"),
        ({"host": "::1", "port": 80, "family": 99}, "FAMILY"),
        ({"host": "::1", "port": 80, "type": 99}, "SOCKTYPE"),
        ({"host": "::1", "port": "no-service", "type": socket.SOCK_STREAM}, "SERVICE"),
        ({"host": None, "port": 80, "flags": AddrInfoFlag.CANONNAME}, "BADFLAGS"),
    ],
)
def test_a_failed_lookup_says_why_by_libevents_code(arguments: dict[str, Any], code: str) -> None:
    error = AddrInfoError[code]
    with pytest.raises(DnsError) as caught:
        util.getaddrinfo(**arguments)
    assert caught.value.errno == error
    assert caught.value.strerror == (
        f"evutil_getaddrinfo: {arguments['host']!r}: {util.gai_strerror(error)}"
    )
    assert isinstance(caught.value, LibeventError)
    assert isinstance(caught.value, socket.gaierror)


def test_a_lookup_that_the_system_failed_raises_its_errno(monkeypatch: pytest.MonkeyPatch) -> None:
    def evutil_getaddrinfo(*_arguments: Any) -> int:
        ffi.errno = errno.EMFILE
        return int(AddrInfoError.SYSTEM)

    replace(monkeypatch, evutil_getaddrinfo)
    with pytest.raises(OSError, match="evutil_getaddrinfo: 'host': Too many open files") as caught:
        util.getaddrinfo("host", 80)
    assert caught.value.errno == errno.EMFILE
    assert not isinstance(caught.value, DnsError)


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ((1, 80), TypeError, "host must be str or bytes, not 1"),
        (("127.0.0.1:80", 80), ValueError, "host must have no port in it, not '127.0.0.1:80'"),
        (("a\0b", 80), ValueError, "host must not contain a NUL"),
        (("a..ü", 80), ValueError, r"host must be a name for IDNA, not 'a\.\.ü'"),
        (("\ud800", 80), ValueError, "host must be a name for IDNA"),
        (("::1", 8.0), TypeError, "port must be an integer"),
        (("::1", 65536), ValueError, "port must be from 0 to 65535, not 65536"),
        (("::1", "80\0"), ValueError, "port must not contain a NUL"),
        (("::1", 80, 2**31), ValueError, "family must be from "),
        (("::1", 80, 0, "1"), TypeError, "type must be an integer"),
        (("::1", 80, 0, 0, -(2**31) - 1), ValueError, "proto must be from "),
        (("::1", 80, 0, 0, 0, 0x10000), ValueError, "flags has bits that AddrInfoFlag"),
        (("::1", 80, 0, 0, 0, None), TypeError, "flags must be of AddrInfoFlag"),
    ],
)
def test_an_argument_of_a_lookup_that_is_wrong_is_named(
    arguments: tuple[Any, ...], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        util.getaddrinfo(*arguments)


def test_a_name_outside_ascii_is_looked_up_as_idna_has_it() -> None:
    with pytest.raises(DnsError, match="nodename nor servname provided") as caught:
        util.getaddrinfo("bücher.invalid", 80, flags=AddrInfoFlag.NUMERICHOST)
    assert caught.value.errno == AddrInfoError.NONAME


def test_the_list_that_c_makes_is_freed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[Any] = []

    def evutil_freeaddrinfo(ai: Any) -> None:
        freed.append(ai)
        lib.evutil_freeaddrinfo(ai)

    replace(monkeypatch, evutil_freeaddrinfo)
    util.getaddrinfo("127.0.0.1", 80)
    assert len(freed) == 1
    monkeypatch.setattr(util, "unpacked", lambda ai: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        util.getaddrinfo("127.0.0.1", 80)
    assert len(freed) == 2
    with pytest.raises(DnsError):
        util.getaddrinfo(None, None)
    assert len(freed) == 2


def test_no_addresses_are_an_empty_list() -> None:
    assert addrinfo.unpacked(ffi.NULL) == []


def test_a_kind_of_socket_that_python_has_no_name_for_stays_a_number() -> None:
    ai = ffi.new("struct evutil_addrinfo *")
    sockaddr = convert.sockaddr(("1.2.3.4", 5))
    ai.ai_family, ai.ai_socktype, ai.ai_protocol = socket.AF_INET, 4711, 4712
    ai.ai_addr, ai.ai_addrlen = sockaddr.pointer, sockaddr.length
    assert addrinfo.unpacked(ai) == [(socket.AF_INET, 4711, 4712, "", ("1.2.3.4", 5))]


def test_every_code_of_a_lookup_has_a_meaning() -> None:
    meanings = {util.gai_strerror(code) for code in AddrInfoError}
    assert len(meanings) == len(AddrInfoError)
    assert util.gai_strerror(AddrInfoError.CANCEL) == "Request canceled"
    assert util.gai_strerror(4711)
    with pytest.raises(ValueError, match="code must be from "):
        util.gai_strerror(2**31)


# Text.


def test_ascii_case_does_not_count() -> None:
    assert util.ascii_strcasecmp("Content-Length", b"content-LENGTH") == 0
    assert util.ascii_strcasecmp("a", "b") == -1
    assert util.ascii_strcasecmp("b", "a") == 1
    assert util.ascii_strcasecmp("", "") == 0
    assert util.ascii_strncasecmp("Content-Length", "CONTENT-TYPE", 8) == 0
    assert util.ascii_strncasecmp("a", "b", 0) == 0
    assert util.ascii_strncasecmp("a", "a", 2**64 - 1) == 0


def test_the_case_of_other_letters_counts() -> None:
    assert util.ascii_strcasecmp("ä", "Ä") != 0


def test_an_argument_of_a_comparison_that_is_wrong_is_named() -> None:
    with pytest.raises(TypeError, match="str1 must be str or bytes, not None"):
        util.ascii_strcasecmp(None, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="str2 must not contain a NUL"):
        util.ascii_strncasecmp("a", "a\0", 2)
    for n in (-1, 2**64):
        with pytest.raises(ValueError, match=f"n must be from 0 to {2**64 - 1}, not {n}"):
            util.ascii_strncasecmp("a", "b", n)


# Dates.


def test_a_date_in_any_time_zone_is_written_in_gmt() -> None:
    moment = datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    assert util.date_rfc1123(moment) == "Wed, 28 Feb 2024 23:02:03 GMT"


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_and_day_of_the_week_has_its_name(month: int) -> None:
    for day in range(1, 8):
        moment = datetime.datetime(2023, month, day, tzinfo=timezone.utc)
        assert util.date_rfc1123(moment) == moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_without_a_date_it_is_now() -> None:
    before = datetime.datetime.now(timezone.utc).replace(microsecond=0)
    written = datetime.datetime.strptime(util.date_rfc1123(), "%a, %d %b %Y %H:%M:%S GMT")
    after = datetime.datetime.now(timezone.utc)
    # C rounds down the coarse clock, which may be a tick behind.
    assert before - timedelta(seconds=1) <= written.replace(tzinfo=timezone.utc) <= after


def test_the_first_and_the_last_year_can_be_written() -> None:
    first = datetime.datetime.min.replace(tzinfo=timezone.utc)
    last = datetime.datetime.max.replace(tzinfo=timezone.utc)
    assert util.date_rfc1123(first) == "Mon, 01 Jan    1 00:00:00 GMT"
    assert util.date_rfc1123(last) == "Fri, 31 Dec 9999 23:59:59 GMT"


def test_a_date_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="moment must have a time zone"):
        util.date_rfc1123(datetime.datetime(2024, 1, 1))


def test_a_date_outside_the_years_in_gmt_is_refused() -> None:
    moment = datetime.datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    with pytest.raises(ValueError, match="moment must be from year 1 to 9999 in UTC"):
        util.date_rfc1123(moment)


@pytest.mark.parametrize("value", [0, 1.5, "now", datetime.date(2024, 1, 1), time.gmtime(0)])
def test_what_is_no_datetime_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="moment must be a datetime, not "):
        util.date_rfc1123(value)


# Random bytes.


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same() -> None:
    util.secure_rng_init()
    assert util.secure_rng_get_bytes(0) == b""
    for n in (1, 7, 32, 100_000):
        assert len(util.secure_rng_get_bytes(n)) == n
    assert util.secure_rng_get_bytes(16) != util.secure_rng_get_bytes(16)


def test_random_bytes_differ_in_a_forked_child() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, util.secure_rng_get_bytes(16))
        os._exit(0)
    ours = util.secure_rng_get_bytes(16)
    with open(reader, "rb") as theirs:
        os.close(writer)
        assert theirs.read(16) != ours
    assert os.waitpid(child, 0)[1] == 0


def test_a_number_of_random_bytes_that_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be from 0 to "):
        util.secure_rng_get_bytes(-1)
    with pytest.raises(ValueError, match="n must be from 0 to "):
        util.secure_rng_get_bytes(2**63)
    with pytest.raises(TypeError, match=r"n must be an integer, not 1\.5"):
        util.secure_rng_get_bytes(1.5)  # type: ignore[arg-type]


# Clocks.


@pytest.mark.parametrize(
    "flags", [0, *MonotonicFlag, MonotonicFlag.PRECISE | MonotonicFlag.FALLBACK]
)
def test_a_clock_goes_on_and_never_back(flags: int) -> None:
    with util.MonotonicTimer(flags) as timer:
        before = timer.time()
        time.sleep(0.05)
        assert 0.02 < timer.time() - before < PATIENCE


def test_a_clock_of_the_wall_tells_the_time_of_day() -> None:
    with util.MonotonicTimer(MonotonicFlag.FALLBACK) as timer:
        assert abs(timer.time() - time.time()) < 1


def test_a_precise_clock_is_the_systems_monotonic_one() -> None:
    with util.MonotonicTimer(MonotonicFlag.PRECISE) as timer:
        before = time.monotonic()
        assert before - 1e-6 <= timer.time() <= time.monotonic()


def test_flags_that_no_clock_has_are_refused() -> None:
    with pytest.raises(ValueError, match="flags has bits that MonotonicFlag does not know: 0x4"):
        util.MonotonicTimer(4)
    with pytest.raises(TypeError, match="flags must be of MonotonicFlag, not None"):
        util.MonotonicTimer(None)  # type: ignore[arg-type]


def test_a_closed_clock_says_so() -> None:
    timer = util.MonotonicTimer()
    assert not timer.closed
    timer.close()
    timer.close()
    assert timer.closed
    with pytest.raises(ClosedError, match="this MonotonicTimer is closed"):
        timer.time()
    with pytest.raises(ClosedError), timer:
        pass


def test_a_clock_is_freed_once_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[Any] = []

    def evutil_monotonic_timer_free(pointer: Any) -> None:
        freed.append(pointer)
        lib.evutil_monotonic_timer_free(pointer)

    replace(monkeypatch, evutil_monotonic_timer_free)
    with util.MonotonicTimer() as timer:
        timer.close()
    del timer
    gc.collect()
    assert len(freed) == 1
    util.MonotonicTimer()
    gc.collect()
    assert len(freed) == 2


def test_a_clock_can_be_read_by_many_threads_and_closed_by_one() -> None:
    for _ in range(20):
        timer = util.MonotonicTimer(MonotonicFlag.FALLBACK)
        ends: list[type[Exception]] = []

        def read(timer: util.MonotonicTimer = timer, ends: list[Any] = ends) -> None:
            last = 0.0
            try:
                while last <= (last := timer.time()):
                    pass
            except ClosedError as error:
                ends.append(type(error))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        timer.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert ends == [ClosedError] * 4


def test_a_clock_can_be_read_by_a_signal_handler_that_comes_between() -> None:
    with util.MonotonicTimer() as timer:
        read: list[float] = []
        before = signal.signal(signal.SIGALRM, lambda *_: read.append(timer.time()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            deadline = time.monotonic() + PATIENCE
            while len(read) < 50 and time.monotonic() < deadline:
                timer.time()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(read) >= 50


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_clock_can_be_read_in_a_forked_child_whatever_the_parents_threads_did() -> None:
    with util.MonotonicTimer() as timer, contextlib.ExitStack() as stack:
        util._reading.acquire()
        stack.callback(util._reading.release)
        pid: list[int] = []

        def fork() -> None:  # another thread than the one that holds the lock
            child = os.fork()
            if child == 0:
                os._exit(timer.time() <= 0)
            pid.append(child)

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid[0], os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        if ended[0] == 0:
            os.kill(pid[0], signal.SIGKILL)
            os.waitpid(pid[0], 0)
        assert ended == (pid[0], 0)


def test_every_function_survives_being_called_under_valgrind() -> None:
    script = """
    import datetime, gc, socket
    from libevent_py import MonotonicFlag, util

    for end in util.socketpair():
        util.make_socket_nonblocking(end)
        util.closesocket(end)
    for family, text in ((socket.AF_INET, "1.2.3.4"), (socket.AF_INET6, "1:2::1.2.3.4")):
        assert util.inet_pton(family, util.inet_ntop(family, util.inet_pton(family, text)))
    assert util.inet_pton_scope(socket.AF_INET6, "fe80::1%1")[1] == 1
    assert util.parse_sockaddr_port("[fe80::1%1]:80") == ("fe80::1", 80, 0, 1)
    assert util.sockaddr_cmp(("1.2.3.4", 1), ("1.2.3.4", 2)) < 0
    assert util.sockaddr_cmp(("::1", 1), ("::1", 1)) == 0
    assert util.sockaddr_cmp("/a", "/b") == 1
    assert len(util.getaddrinfo("localhost", 80)) >= 3
    assert util.ascii_strcasecmp("a", "B") == util.ascii_strncasecmp("a", "B", 1) == -1
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    assert util.date_rfc1123(moment) == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert len(util.secure_rng_get_bytes(100)) == 100
    for flags in (0, *MonotonicFlag):
        timer = util.MonotonicTimer(flags)
        assert timer.time() > 0
        del timer
    gc.collect()
    """
    run_python(script, valgrind=True)


def test_every_function_has_cs_name_without_its_prefix() -> None:
    for name, function in vars(util).items():
        if isinstance(function, FunctionType) and function.__module__ == util.__name__:
            said = " ".join((function.__doc__ or "").split())
            assert name.startswith("_") or said.endswith(f"Wraps ``evutil_{name}``."), name
