"""Group ``util``: addresses, text, random bytes, name lookups, clocks and dates."""

from __future__ import annotations

import ctypes
import datetime
import ipaddress
import itertools
import os
import random
import socket
import statistics
import time
from typing import Any

import pytest

from libevent_py import AddrInfoError, AddrInfoFlag, DnsError, MonotonicFlag, _ffi, util
from libevent_py._ffi import ffi, lib
from libevent_py.util import MonotonicTimer

INET, INET6, UNSPEC = socket.AF_INET, socket.AF_INET6, socket.AF_UNSPEC
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("1.2.3.4", "01020304"),
        ("255.255.255.255", "ffffffff"),
        ("176.192.208.244", "b0c0d0f4"),
        ("256.0.0.0", None),
        ("ABC", None),
        ("1.2.3.4.5", None),
    ],
)
def test_ipv4_parse(text: str, packed: str | None) -> None:
    """IPv4 addresses are read, written again as they were, and others refused."""
    if packed is None:
        with pytest.raises(ValueError, match="text must be an IPv4 address"):
            util.inet_pton(INET, text)
    else:
        assert util.inet_pton(INET, text).hex() == packed
        assert util.inet_ntop(INET, bytes.fromhex(packed)) == text


CANONICAL_IPV6 = {
    "::": "00000000 00000000 00000000 00000000",
    "::1": "00000000 00000000 00000000 00000001",
    "::1.2.3.4": "00000000 00000000 00000000 01020304",
    "ffff:1::": "ffff0001 00000000 00000000 00000000",
    "ffff::1234": "ffff0000 00000000 00000000 00001234",
    "::9:c0a8:1:1": "00000000 00000000 0009c0a8 00010001",
    "::ffff:1.2.3.4": "00000000 00000000 0000ffff 01020304",
}
OTHER_IPV6 = {
    "0:0:0:0:0:0:0:0": "00000000 00000000 00000000 00000000",
    "ffff:0000::": "ffff0000 00000000 00000000 00000000",
    "0102::1.2.3.4": "01020000 00000000 00000000 01020304",
    "FFFF::": "ffff0000 00000000 00000000 00000000",
}
NOT_IPV6 = ["foobar.", "foobar", "fo:obar", "ffff", "fffff::", "::1.0.1.1000", "1:2:33333:4::"]
NOT_IPV6 += ["1:2:3:4:5:6:7:8:9", "1::2::3", ":::1"]


@pytest.mark.parametrize(("text", "packed"), [*CANONICAL_IPV6.items(), *OTHER_IPV6.items()])
def test_ipv6_parse(text: str, packed: str) -> None:
    """IPv6 addresses are read, and those in the usual form are written again as they were."""
    assert util.inet_pton(INET6, text) == bytes.fromhex(packed)
    if text in CANONICAL_IPV6:
        assert util.inet_ntop(INET6, bytes.fromhex(packed)) == text


@pytest.mark.parametrize("text", NOT_IPV6)
def test_ipv6_parse_of_what_is_none(text: str) -> None:
    """The second half of ipv6_parse: what is no IPv6 address is refused."""
    with pytest.raises(ValueError, match="text must be an IPv6 address"):
        util.inet_pton(INET6, text)


def test_ipv6_parse_scope() -> None:
    """IPv6 addresses are read with the number of their scope, and unknown scopes refused."""
    packed = bytes.fromhex("20010db8").ljust(16, b"\0")
    for text, scope in {"2001:DB8::": 0, "2001:DB8::%0": 0, "2001:DB8::%1": 1}.items():
        assert util.inet_pton_scope(INET6, text) == (packed, scope)
    for text in ("foobar.", "2001:DB8::%does-not-exist"):
        with pytest.raises(ValueError, match="text must be an IPv6 address"):
            util.inet_pton_scope(INET6, text)


def test_sockaddr_port_parse() -> None:
    """An address is read with its port, if it has one, and refused with one that can't be."""
    assert util.parse_sockaddr_port("[ffff::1]:1000") == ("ffff::1", 1000, 0, 0)
    assert util.parse_sockaddr_port("[ffff::1]") == ("ffff::1", 0, 0, 0)
    assert util.parse_sockaddr_port("::1") == ("::1", 0, 0, 0)
    assert util.parse_sockaddr_port("1:2::1") == ("1:2::1", 0, 0, 0)
    assert util.parse_sockaddr_port("192.168.0.1:50") == ("192.168.0.1", 50)
    assert util.parse_sockaddr_port("1.2.3.4") == ("1.2.3.4", 0)
    for text in ("[ffff::1", "[ffff::1]:65599", "[ffff::1]:0", "[ffff::1]:-1"):
        with pytest.raises(ValueError, match="text must be an address"):
            util.parse_sockaddr_port(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.3.2", True),
        ("128.1.2.3", False),
        ("18.0.0.1", False),
        ("129.168.1.1", False),
        ("::1", True),
        ("::0", False),
        ("f::1", False),
        ("::501", False),
    ],
)
def test_sockaddr_predicates(text: str, loopback: bool) -> None:
    """libevent knows the addresses of loopback, by a function that no header declares."""
    address = ffi.new("struct sockaddr_storage *")
    size = ffi.new("int *", ffi.sizeof(address[0]))
    pointer = ffi.cast("struct sockaddr *", address)
    assert lib.evutil_parse_sockaddr_port(text.encode(), pointer, size) == 0
    is_loopback = ctypes.CDLL(_ffi.__file__).evutil_sockaddr_is_loopback_
    assert bool(is_loopback(ctypes.c_void_p(int(ffi.cast("intptr_t", pointer))))) is loopback
    host = util.parse_sockaddr_port(text)[0]
    assert ipaddress.ip_address(host).is_loopback is loopback


def test_evutil_snprintf() -> None:
    """Text is formatted with as much as there is room for, and a NUL; the whole length is told."""
    room = ffi.new("char[16]")

    def printed(form: bytes, *values: Any) -> tuple[int, bytes]:
        return lib.evutil_snprintf(room, 16, form, *values), ffi.string(room)

    fifty, hundred = ffi.cast("int", 50), ffi.cast("int", 100)
    assert printed(b"%d %d", fifty, hundred) == (6, b"50 100")
    assert printed(b"longish %d", ffi.cast("int", 1234567890)) == (18, b"longish 1234567")
    big = 1_000_000_000 * 200
    assert printed(b"%llu", ffi.cast("unsigned long long", big)) == (12, b"200000000000")
    assert printed(b"%lld", ffi.cast("long long", -big)) == (13, b"-200000000000")
    sizes = ffi.cast("size_t", 8000), ffi.cast("ssize_t", -9000)
    assert printed(b"%zu %zd", *sizes) == (10, b"8000 -9000")
    assert lib.evutil_snprintf(room, 0, b"x") == 0


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [
        *[("", ""), ("a", "a"), ("abcdef ghi", "abcdef ghi"), (" ", ""), ("  ", ""), ("a ", "a")],
        *[("abcdef  gH       ", "abcdef  gH"), ("\t\t", ""), (" \t", ""), ("\t", "")],
        *[("a \t", "a"), ("a\t ", "a"), ("a\t", "a"), ("abcdef  gH    \t  ", "abcdef  gH")],
    ],
)
def test_rtrim(text: str, trimmed: str) -> None:
    """Space at the end is cut off, by a function that no header declares."""
    memory = ctypes.create_string_buffer(text.encode())
    ctypes.CDLL(_ffi.__file__).evutil_rtrim_lws_(memory)
    assert memory.value.decode() == trimmed


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_socketpair(family: int) -> None:
    """evutil_socketpair() makes two connected sockets, which don't block once they are told to."""
    fds = ffi.new("evutil_socket_t[2]")
    assert lib.evutil_socketpair(family, socket.SOCK_STREAM, 0, fds) == (
        0 if family == socket.AF_UNIX else -1
    )
    if family != socket.AF_UNIX:
        return
    with socket.socket(fileno=fds[0]) as one, socket.socket(fileno=fds[1]) as other:
        assert one.family == other.family == socket.AF_UNIX
        one.send(b"hello")
        assert other.recv(10) == b"hello"
        for sock in one, other:
            fd = sock.fileno()
            assert lib.evutil_make_socket_nonblocking(fd) == 0
            assert os.get_blocking(fd) is False
            os.set_inheritable(fd, True)
            assert lib.evutil_make_socket_closeonexec(fd) == 0
            assert os.get_inheritable(fd) is False
        with pytest.raises(BlockingIOError):
            other.recv(10)
        os.dup2(one.fileno(), other.fileno())
    assert lib.evutil_socketpair(socket.AF_UNIX, socket.SOCK_STREAM, 12345, fds) == -1


def test_evutil_strtoll() -> None:
    """64-bit integers are read, as far as they go. Adapted: through the raw layer."""
    assert lib.evutil_strtoll(b"5000000000", ffi.NULL, 10) == 5_000_000_000
    assert lib.evutil_strtoll(b"-5000000000", ffi.NULL, 10) == -5_000_000_000
    assert lib.evutil_strtoll(b"foo", ffi.NULL, 10) == 0
    text, end = ffi.new("char[]", b" 99999stuff"), ffi.new("char **")
    assert lib.evutil_strtoll(text, end, 10) == 99999
    assert ffi.string(end[0]) == b"stuff"


def test_evutil_casecmp() -> None:
    """Text is compared without regard to ASCII case, up to a length or to its end."""
    for other, result in {"ABC": 0, "abc": 0, "abcd": -1, "abb": 1}.items():
        assert util.ascii_strcasecmp("ABC", other) == result
    assert util.ascii_strcasecmp("ABCd", "abc") == 1
    for other, n in (("LibEvEnT", 100), ("LibEvEnT", 4), ("LibEXXXX", 4), ("LibE", 4)):
        assert util.ascii_strncasecmp("Libevent", other, n) == 0
    assert util.ascii_strncasecmp("Libe", "LibEvEnT", 4) == 0
    assert util.ascii_strncasecmp("Lib", "LibEvEnT", 4) == -1
    assert util.ascii_strncasecmp("abc", "def", 99) == -1
    assert util.ascii_strncasecmp("Z", "qrst", 1) == 1


def test_rand() -> None:
    """Each byte asked for is random, and none beside. Adapted: only the secure generator is public.

    A byte that is 0 in eight runs, by chance, fails one run of this test in 2**54.
    """
    generator = random.Random(12346789)
    for _ in range(32):
        start, end = generator.randrange(4), 32 - generator.randrange(4)
        seen = bytearray(32)
        for _ in range(8):
            memory = ffi.new("unsigned char[32]")
            lib.evutil_secure_rng_get_bytes(memory + start, end - start)
            drawn = bytes(memory)
            assert not any(drawn[:start]) and not any(drawn[end:])
            seen = bytearray(one | other for one, other in zip(seen, drawn, strict=True))
        assert all(seen[start:end])
    drawn = b"".join(util.secure_rng_get_bytes(n) for n in range(26, 33) for _ in range(8))
    assert len(set(drawn)) > 240


def lookup(*arguments: Any, **hints: Any) -> list[tuple[int, int, Any]]:
    found = util.getaddrinfo(*arguments, **hints)
    return [(kind, proto, address) for _, kind, proto, _, address in found]


def test_getaddrinfo() -> None:
    """Numeric hosts, no host, services by number and name, and the errors for what there isn't."""
    assert lookup("1.2.3.4", "8080", type=STREAM) == [(STREAM, TCP, ("1.2.3.4", 8080))]
    six = ("1001:b0b::f00f", 4321, 0, 0)
    assert lookup("1001:b0b::f00f", "4321", proto=UDP) == [(DGRAM, UDP, six)]

    bind = AddrInfoFlag.PASSIVE
    assert lookup(None, "9999", INET, 0, TCP, bind) == [(STREAM, TCP, ("0.0.0.0", 9999))]
    assert lookup(None, "9998", INET, 0, TCP) == [(STREAM, TCP, ("127.0.0.1", 9998))]
    assert lookup(None, "9997", INET6, 0, TCP) == [(STREAM, TCP, ("::1", 9997, 0, 0))]
    assert lookup(None, "9996", INET6, 0, TCP, bind) == [(STREAM, TCP, ("::", 9996, 0, 0))]
    both = lookup(None, "9996", UNSPEC, 0, TCP, bind)
    assert (STREAM, TCP, ("::", 9996, 0, 0)) in both
    assert (STREAM, TCP, ("0.0.0.0", 9996)) in both

    either = lookup("1.2.3.4", None, flags=AddrInfoFlag.NUMERICHOST)
    assert (STREAM, TCP, ("1.2.3.4", 0)) in either
    assert (DGRAM, UDP, ("1.2.3.4", 0)) in either

    with pytest.raises(DnsError) as caught:
        lookup("www.google.com", "80", flags=AddrInfoFlag.NUMERICHOST)
    assert caught.value.errno == AddrInfoError.NONAME
    with pytest.raises(DnsError) as caught:
        lookup("1.2.3.4", "http", type=STREAM, flags=AddrInfoFlag.NUMERICSERV)
    assert caught.value.errno == AddrInfoError.NONAME


def test_getaddrinfo_of_a_service() -> None:
    """The last part of getaddrinfo: a service by its name; an error where it isn't known."""
    try:
        port = socket.getservbyname("http", "tcp")
    except OSError:
        with pytest.raises(DnsError):
            lookup("1.2.3.4", "http", type=STREAM)
        return
    assert lookup("1.2.3.4", "http", type=STREAM) == [(STREAM, TCP, ("1.2.3.4", port))]


def test_getaddrinfo_live() -> None:
    """A name is looked up. Adapted: one that needs no network."""
    found = util.getaddrinfo("localhost", "80", INET, STREAM, TCP)
    assert (INET, STREAM, TCP, "", ("127.0.0.1", 80)) in found


def test_getaddrinfo_AI_ADDRCONFIG() -> None:
    """ADDRCONFIG takes nothing from loopback addresses, where the machine has the family at all."""
    flags = AddrInfoFlag.PASSIVE | AddrInfoFlag.ADDRCONFIG
    assert lookup("127.0.0.1", "80", type=STREAM, flags=flags) == [
        (STREAM, TCP, ("127.0.0.1", 80)),
    ]
    try:
        expected = socket.getaddrinfo("::1", "80", type=STREAM, flags=flags)
    except socket.gaierror:  # a machine whose IPv6 is not configured
        with pytest.raises(DnsError):
            util.getaddrinfo("::1", "80", type=STREAM, flags=flags)
        return
    assert util.getaddrinfo("::1", "80", type=STREAM, flags=flags) == expected


#: For how long to sleep, and how far off the clock may be, in seconds.
RESOLUTIONS = {"": (0.04, 0.02), "precise": (0.001, 0.0003), "fallback": (0.001, 0.0003)}
FLAGS = {
    "": MonotonicFlag(0),
    "precise": MonotonicFlag.PRECISE,
    "fallback": MonotonicFlag.FALLBACK,
}


def clock_and_sleep_agree(kind: str) -> None:
    """Sleep nine times, and compare: a busy machine is late, and Python's clock says how late."""
    pause, resolution = RESOLUTIONS[kind]
    with MonotonicTimer(FLAGS[kind]) as timer:
        began = time.monotonic()
        times = [timer.time()]
        for _ in range(9):
            time.sleep(pause)
            times.append(timer.time())
        took = time.monotonic() - began
    assert all(before < after for before, after in itertools.pairwise(times))
    assert times[-1] - times[0] >= 9 * pause - resolution
    assert times[-1] - times[0] <= took + resolution


def test_monotonic_res() -> None:
    """The cheap clock agrees with sleep. Adapted: it may last longer if Python agrees."""
    clock_and_sleep_agree("")


def test_monotonic_res_precise() -> None:
    """The precise clock agrees with sleep. Adapted as monotonic_res is."""
    clock_and_sleep_agree("precise")


def test_monotonic_res_fallback() -> None:
    """The wall clock agrees with sleep. Adapted as monotonic_res is."""
    clock_and_sleep_agree("fallback")


def clock_steps(kind: str) -> list[float]:
    """Return the nine steps in which the clock goes on; it must not go back."""
    with MonotonicTimer(FLAGS[kind]) as timer:
        times = [timer.time()]
        while len(times) < 10:
            now = timer.time()
            assert now >= times[-1]
            if now > times[-1]:
                times.append(now)
    return [after - before for before, after in itertools.pairwise(times)]


def fewest_steps(kind: str) -> list[float]:
    """Return the shortest steps of three tries: a busy machine stops for longer than a step."""
    return min((clock_steps(kind) for _ in range(3)), key=sum)


def test_monotonic_prc() -> None:
    """The cheap clock never goes back, and on in steps of less than 25 ms."""
    assert statistics.mean(fewest_steps("")) < 0.025


def test_monotonic_prc_precise() -> None:
    """The precise clock never goes back, and on in steps of less than half a millisecond."""
    assert statistics.mean(fewest_steps("precise")) < 0.0005


def test_monotonic_prc_fallback() -> None:
    """The wall clock never goes back, and on in steps of less than 25 ms."""
    assert statistics.mean(fewest_steps("fallback")) < 0.025


DATES = {
    0: "Thu, 01 Jan 1970 00:00:00 GMT",
    946684799: "Fri, 31 Dec 1999 23:59:59 GMT",
    946684800: "Sat, 01 Jan 2000 00:00:00 GMT",
    981072000: "Fri, 02 Feb 2001 00:00:00 GMT",
    1015113600: "Sun, 03 Mar 2002 00:00:00 GMT",
    1049414400: "Fri, 04 Apr 2003 00:00:00 GMT",
    1083715200: "Wed, 05 May 2004 00:00:00 GMT",
    1118016000: "Mon, 06 Jun 2005 00:00:00 GMT",
    1152230400: "Fri, 07 Jul 2006 00:00:00 GMT",
    1186531200: "Wed, 08 Aug 2007 00:00:00 GMT",
    1220918400: "Tue, 09 Sep 2008 00:00:00 GMT",
    1255132800: "Sat, 10 Oct 2009 00:00:00 GMT",
    1289433600: "Thu, 11 Nov 2010 00:00:00 GMT",
    1323648000: "Mon, 12 Dec 2011 00:00:00 GMT",
    1435708800: "Wed, 01 Jul 2015 00:00:00 GMT",
    1456704000: "Mon, 29 Feb 2016 00:00:00 GMT",
    1481866376: "Fri, 16 Dec 2016 05:32:56 GMT",
    4294967296: "Sun, 07 Feb 2106 06:28:16 GMT",
    253402300799: "Fri, 31 Dec 9999 23:59:59 GMT",
}


def test_date_rfc1123() -> None:
    """Dates are written as HTTP wants them, each month and day of the week by its name."""
    for seconds, written in DATES.items():
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        assert util.date_rfc1123(moment) == written


def test_date_rfc1123_cut_short() -> None:
    """The first part of date_rfc1123: a short room is not overrun. Through the raw layer."""
    memory = ffi.new("char[16]", b"\xff" * 16)
    tm = ffi.new("struct tm *", {"tm_year": 70, "tm_mday": 1, "tm_wday": 4})
    lib.evutil_date_rfc1123(memory, 8, tm)
    assert bytes(ffi.buffer(memory)) == b"Thu, 01\0" + b"\xff" * 8
