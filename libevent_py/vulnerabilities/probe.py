"""Probes that try, in another process, which published vulnerabilities libevent has.

Each probe looks at what libevent does, never at its version, because distributions fix bugs without
changing the version. Even on a vulnerable library, no probe reads or writes memory that isn't its
own. If the vulnerability is such an access, either the memory there belongs to the probe
(``_c/doctor.c``); or it belongs to nobody, and the access ends a process made for it; or the probe
tries something else that came with the same fix. Each probe runs in a fork, which an alarm kills if
it doesn't end by itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from libevent_py import errors, log
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._ffi import CData

State = Literal["vulnerable", "fixed", "unknown"]

#: How long one probe may take, in seconds; they run side by side.
PATIENCE = 10

EVENT_ERR_ABORT = 0xDEADDEAD  # the exit code after a failed assertion


class Probe(NamedTuple):
    """A vulnerability: its id, a summary, and the function that tries it."""

    id: str
    summary: str
    run: Callable[[], tuple[State, str]]


PROBES: list[Probe] = []


def probe(
    id: str, summary: str
) -> Callable[[Callable[[], tuple[State, str]]], Callable[[], tuple[State, str]]]:
    """Register the decorated function as the probe of a vulnerability."""

    def add(run: Callable[[], tuple[State, str]]) -> Callable[[], tuple[State, str]]:
        PROBES.append(Probe(id, summary, run))
        return run

    return add


# Where code was loaded from.

PARTS = ("extension", "event_core", "event_extra", "event_pthreads", "event_openssl", "ssl")


def files() -> dict[str, str]:
    """Return the file that each part was loaded from; parts that aren't loaded are left out."""
    found = {part: lib.evpy_file_of(part.encode()) for part in PARTS}
    return {part: os.fsdecode(ffi.string(name)) for part, name in found.items() if name}


# HTTP.

#: The headers of each request by name; None for those that it didn't have.
_requests: list[dict[bytes, bytes | None]] = []
_headers: tuple[bytes, ...] = ()


# Not `from_c`: a probe's server is C's alone, with no object and no base in Python.
@ffi.def_extern(onerror=errors.kept)
def evpy_probed_http(request: CData, _: CData) -> None:
    headers = lib.evhttp_request_get_input_headers(request)
    values = {name: lib.evhttp_find_header(headers, name) for name in _headers}
    _requests.append({name: ffi.string(at) if at else None for name, at in values.items()})
    lib.evhttp_send_reply(request, 200, b"OK", ffi.NULL)


def request(text: bytes, *headers: bytes) -> dict[bytes, bytes | None] | None:
    """Send a request to a server; return its values of *headers*, or None if it refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listener.getsockname()) as client:
        return exchange(listener, client, text, *headers)


def exchange(
    listener: socket.socket, client: socket.socket, text: bytes, *headers: bytes
) -> dict[bytes, bytes | None] | None:
    """Send *text* by *client* to a server on *listener*; return what `request` returns."""
    global _headers
    _headers = headers
    listener.setblocking(False)
    base = errors.new(lib.event_base_new)
    server = errors.new(lib.evhttp_new, base)
    lib.evhttp_set_gencb(server, lib.evpy_probed_http, ffi.NULL)
    errors.call(lib.evhttp_accept_socket, server, listener.detach())
    client.sendall(text)
    client.setblocking(False)
    reply = b""
    for _ in turns(base):
        try:
            received = client.recv(4096)
        except BlockingIOError:
            continue
        except ConnectionError:
            received = b""
        reply += received
        if not received or b"\r\n\r\n" in reply:
            break
    return _requests.pop() if _requests else None


def turns(base: CData) -> Iterator[None]:
    """Turn the loop of *base* for as long as the probe may take."""
    end = time.monotonic() + PATIENCE / 2
    while time.monotonic() < end:
        errors.call(lib.event_base_loop, base, lib.EVLOOP_NONBLOCK)
        yield
        time.sleep(0.001)
    raise TimeoutError("libevent did not answer")


@probe("CVE-2026-63379", "HTTP: trailers become headers of the request")
def trailers() -> tuple[State, str]:
    text = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = request(text + b"1\r\na\r\n0\r\nX-Trailer: late\r\n\r\n", b"X-Trailer")
    if got is None:
        return "unknown", "a request with a trailer was refused"
    if got[b"X-Trailer"] is not None:
        return "vulnerable", "a trailer was found among the headers"
    return "fixed", "a trailer was left out"


@probe("CVE-2026-63382", "HTTP: Content-Length beside Transfer-Encoding lets requests be smuggled")
def both_lengths() -> tuple[State, str]:
    text = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    if request(text + b"\r\n0\r\n\r\n") is None:
        return "unknown", "a chunked request was refused"
    if request(text + b"Content-Length: 5\r\n\r\n0\r\n\r\n") is not None:
        return "vulnerable", "a request with both was served"
    # The fix is meant to refuse this, too, but checks it only beside Transfer-Encoding.
    twice = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\na"
    more = "" if request(twice) is None else ", but one with two Content-Lengths was served"
    return "fixed", "a request with both was refused" + more


@probe("CVE-2026-63385", "HTTP: a header's value may have line breaks, and so become two headers")
def folding() -> tuple[State, str]:
    headers = ffi.new("struct evkeyvalq *")
    errors.call(lib.evhttp_parse_query_str, b"", headers)  # initializes them
    if lib.evhttp_add_header(headers, b"X-Plain", b"a b") != 0:
        return "unknown", "a plain value was refused"
    if lib.evhttp_add_header(headers, b"X-Folded", b"a\r\n b") != 0:
        return "fixed", "a value of two lines was refused"
    return "vulnerable", "a value of two lines was accepted"


@probe("GHSA-jcwh-pvf2-73p2", "HTTP: a chunk's size may end in a bare LF, unlike elsewhere")
def bare_lf() -> tuple[State, str]:
    text = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1"
    if request(text + b"\r\na\r\n0\r\n\r\n") is None:
        return "unknown", "a chunked request was refused"
    if request(text + b"\na\r\n0\r\n\r\n") is None:
        return "fixed", "a chunk whose size ended in a bare LF was refused"
    return "vulnerable", "a chunk whose size ended in a bare LF was accepted"


@probe("CVE-2026-63388", "HTTP on AF_UNIX: a client's long address overflows the connection's")
def long_address() -> tuple[State, str]:
    if sys.platform != "linux":
        return "unknown", "can be tried on Linux only"
    # The address is longer than the memory that it may overflow, and zero there: so the pointer
    # behind it, which is NULL, stays NULL. The memory after that belongs to this probe.
    lib.evpy_memory_keep()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\0" + os.urandom(16))
    listener.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.bind((b"\0" + os.urandom(16)).ljust(62, b"\0"))
        client.connect(listener.getsockname())
        exchange(listener, client, b"GET / HTTP/1.0\r\n\r\n")
    if lib.evpy_memory_overrun():
        return "vulnerable", "an address of 64 bytes was written beyond the connection"
    return "fixed", "an address of 64 bytes did no harm"


# Buffers and tags.


@probe("CVE-2026-63381", "Buffers: a reference to a buffer is added to memory that was freed")
def dangling_chain() -> tuple[State, str]:
    lib.evpy_memory_keep()
    data, empty = (errors.new(lib.evbuffer_new) for _ in range(2))
    errors.call(lib.evbuffer_add, data, b"data", 4)
    errors.call(lib.evbuffer_add_reference, empty, b"", 0, ffi.NULL, ffi.NULL)
    errors.call(lib.evbuffer_add_buffer_reference, empty, data)
    if lib.evpy_memory_freed_twice():
        return "vulnerable", "memory was freed twice"
    return "fixed", "memory was freed once"


@probe("CVE-2026-63383", "Tags: a tag that doesn't end is read beyond the buffer's memory")
def endless_tag() -> tuple[State, str]:
    # The tag is at the end of a page. If the next byte is read, the kernel makes the next page.
    size = mmap.PAGESIZE
    pages = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    pages[size - 5 : size] = b"\xff\xff\xff\xff\x8f"
    memory = ffi.from_buffer(pages)
    buffer = errors.new(lib.evbuffer_new)
    errors.call(lib.evbuffer_add_reference, buffer, memory + (size - 5), 5, ffi.NULL, ffi.NULL)
    errors.call(lib.evbuffer_add, buffer, b"more", 4)
    before = lib.evpy_page_is_touched(memory + size, size)
    lib.evtag_peek(buffer, ffi.new("ev_uint32_t *"))
    after = lib.evpy_page_is_touched(memory + size, size)
    pages[size]  # reads the next page, to check that the method works
    if before != 0 or lib.evpy_page_is_touched(memory + size, size) != 1:
        return "unknown", "the system doesn't say which memory is read"
    if after:
        return "vulnerable", "the byte after an endless tag was read"
    return "fixed", "the byte after an endless tag was not read"


@probe("CVE-2026-63384", "Tags: a payload's length beyond INT_MAX becomes a negative number")
def huge_length() -> tuple[State, str]:
    buffer = errors.new(lib.evbuffer_new)
    errors.call(lib.evbuffer_add, buffer, b"\1", 1)
    lib.evtag_encode_int(buffer, 1 << 31)
    # The payload has to be there: it is the same memory, many times.
    block = ffi.new("char[]", 1 << 24)
    for _ in range((1 << 31) // len(block)):
        errors.call(lib.evbuffer_add_reference, buffer, block, len(block), ffi.NULL, ffi.NULL)
    length = lib.evtag_unmarshal_header(buffer, ffi.new("ev_uint32_t *"))
    if length == -1:
        return "fixed", "a length of 2 GiB was refused"
    return "vulnerable", f"a length of 2 GiB was taken for {length}"


# DNS.

_answers: list[int] = []


# Not `from_c`: as above.
@ffi.def_extern(onerror=errors.kept)
def evpy_probed_dns(request: CData, _: CData) -> None:
    result = lib.evdns_server_request_respond(request, 0)
    _answers.append(result)
    if result < 0:
        lib.evdns_server_request_drop(request)


@contextlib.contextmanager
def dns() -> Iterator[tuple[socket.socket, Iterator[None]]]:
    """Yield a socket that is connected to a DNS server, and the turns of the server's loop."""
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.setblocking(False)
    base = errors.new(lib.event_base_new)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect(server.getsockname())
        errors.new(
            lib.evdns_add_server_port_with_base,
            *(base, server.detach(), 0, lib.evpy_probed_dns, ffi.NULL),
        )
        yield client, turns(base)


#: The bytes that libevent has for an answer.
PACKET = 1500


def query(size: int) -> bytes:
    """Return a query whose answer is a packet in which the last name ends after *size* bytes.

    The name ends in a dot, and so in a zero byte, which libevent writes with the last label.
    """
    many = [b"a"] * 127, [b"b", b"c"]  # more labels than libevent remembers to compress others
    long = [b"l" * 62] * 4
    packet = struct.pack(">6H", 1, 0, 7, 0, 0, 0)
    answer = len(packet)
    for labels in (*many, long):
        start = len(packet)
        packet += name(labels) + b"\0\1\0\1"
        answer += len(packet) - start
    for _ in range(3):
        packet += struct.pack(">3H", 0xC000 | start, 1, 1)
        answer += len(name(long)) + 4
    rest = size - answer - 2 * 64 - 3  # without two labels, the lengths of two, and the zero
    last = [b"x" * 63, b"x" * 63, b"x" * (rest // 2), b"x" * (rest - rest // 2) + b"."]
    return packet + name(last) + b"\0\1\0\1"


def name(labels: list[bytes]) -> bytes:
    """Return a name in the encoding of DNS packets."""
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@probe("CVE-2026-63387", "DNS server: a name that fills an answer is ended one byte beyond it")
def full_answer() -> tuple[State, str]:
    # The fix refuses a name that leaves no room for a zero byte, even if none would follow.
    with dns() as (client, loop):
        for size in (PACKET - 1, PACKET + 1, PACKET):
            done = len(_answers)
            client.send(query(size))
            while len(_answers) == done:
                next(loop)
    shorter, longer, full = (answer >= 0 for answer in _answers)
    if not shorter or longer:
        return "unknown", "answers are not as long as expected"
    if full:
        return "vulnerable", "a name that fills an answer was accepted"
    return "fixed", "a name that fills an answer was refused"


@probe("libevent#1231", "DNS server: a datagram of less than 12 bytes ends the process")
def short_datagram() -> tuple[State, str]:
    # A vulnerable libevent reads near address 0 and crashes: so this runs in another fork.
    process = os.fork()
    if not process:
        try:
            status = 1
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            ask_shortly()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status == 0:
        return "fixed", "a query was answered after a datagram of one byte"
    if status == -signal.SIGSEGV:
        return "vulnerable", "a datagram of one byte ended a process"
    return "unknown", f"a process that got a datagram of one byte ended with status {status}"


def ask_shortly() -> None:
    """Send a DNS server a datagram of one byte, then a query; return when that is answered."""
    with dns() as (client, loop):
        client.send(b"?")
        client.send(query(PACKET - 1))
        while not _answers:
            next(loop)


@probe("GHSA-5rgj-2c58-7jrc", "sample/http-server.c: a long path in its arguments overflows memory")
def sample() -> tuple[State, str]:
    return "unknown", "it is in libevent's sample program, and not in the library"


# A process for each.


def start(probe: Probe) -> tuple[int, int]:
    """Run *probe* in a fork; return the fork's process id, and a descriptor for its result."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        assertions: list[str] = []
        log.set_log_callback(lambda severity, text: assertions.append(text))

        def ended(code: int) -> None:
            failed = code & 0xFFFFFFFF == EVENT_ERR_ABORT
            say(writer, "vulnerable" if failed else "unknown", " ".join(assertions))
            os._exit(0)

        log.set_fatal_callback(ended)
        say(writer, *probe.run())
        status = 0
    except BaseException as error:
        say(writer, "unknown", f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def say(writer: int, state: State, detail: str) -> None:
    """Write a result for `collect`."""
    os.write(writer, json.dumps([state, detail]).encode())


def collect(process: int, reader: int) -> tuple[State, str]:
    """Return the result that a fork has written."""
    with open(reader, "rb") as results:
        result = results.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if not result:
        return "unknown", f"the probe ended with status {status}"
    state, detail = json.loads(result)
    return state, detail


def main() -> None:
    """Run all probes, and print the files in use and the results as JSON."""
    # A new process inherits which signals its parent ignores or blocks.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    started = [(probe.id, *start(probe)) for probe in PROBES]
    results = {id: collect(process, reader) for id, process, reader in started}
    print(json.dumps({"files": files(), "results": results}))
