"""Whatever libevent only warns of in its log, Python tells: the table of all places is complete."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import select
import shlex
import socket
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    FileSegment,
    LibeventError,
    LogSeverity,
    lib,
    log,
    util,
)
from tests.kit.flags import READ, WRITE
from tests.kit.once import once
from tests.kit.peers import run_until
from tests.kit.support import only, run_python
from tests.kit.warnings_of_c import WARNINGS, Told, Warning

# The table.

#: What of libevent is compiled where Python runs; what is for Windows or Solaris alone is not.
BUILT = [
    *("buffer.c", "bufferevent.c", "bufferevent_filter.c", "bufferevent_openssl.c"),
    *("bufferevent_pair.c", "bufferevent_ratelim.c", "bufferevent_sock.c", "epoll.c"),
    *("epoll_sub.c", "evdns.c", "event.c", "event_tagging.c", "evmap.c", "evrpc.c", "evthread.c"),
    *("evthread_pthread.c", "evutil.c", "evutil_rand.c", "evutil_time.c", "http.c", "kqueue.c"),
    *("listener.c", "poll.c", "select.c", "signal.c", "strlcpy.c", "arc4random.c"),
    *("evthread-internal.h", "minheap-internal.h", "evmap-internal.h", "mm-internal.h"),
    *("event-internal.h", "evbuffer-internal.h", "bufferevent-internal.h", "http-internal.h"),
    *("util-internal.h", "ratelim-internal.h", "evrpc-internal.h", "ht-internal.h"),
]
CALL = re.compile(r"\b(?:event_warnx?|event_sock_warn)\s*\(")
FUNCTION = re.compile(r"(?:[A-Za-z_][\w ]*?[ *])?(\w+)\((?!.*;$)")
MACRO = re.compile(r"#define\s+(\w+)\(")
PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|EV_SOCK_FMT|([A-Z_]+)\(')


def calls(source: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the file, the function and the format of each call that warns."""
    for path in source.glob("*.[ch]"):
        if path.name not in BUILT:
            continue
        text = path.read_text()
        lines = text.split("\n")
        macros = {
            match[1]: text[match.end() :].split("\n\n")[0]
            for match in re.finditer(r"#define (PRINT_CHANGES)\(", text)
        }
        for match in CALL.finditer(text):
            number = text.count("\n", 0, match.start())
            yield path.name, enclosing(lines, number), format_of(text[match.end() :], macros)


def enclosing(lines: list[str], number: int) -> str:
    """Return the name of the function or the macro that line *number* is in."""
    in_macro = lines[number].endswith("\\")
    for line in reversed(lines[: number + 1]):
        found = (MACRO if in_macro else FUNCTION).match(line)
        if found:
            return found[1]
    raise AssertionError(f"line {number + 1} is in no function")


def format_of(text: str, macros: dict[str, str]) -> str:
    """Return the string that begins the arguments in *text*, or follows a descriptor."""
    text = re.sub(r"^\s*(?:fd|as->s|-1|evcon->fd),", "", text)
    found, end = "", 0
    for match in PIECE.finditer(text):
        if text[end : match.start()].replace("\\\n", "").strip():
            break
        if match[2]:
            assert match[2] in macros, match[2]
            body = macros[match[2]]
            status = re.search(r'"([^"]*)"\)', text)
            assert status is not None
            found = "".join(re.findall(r'"([^"]*)"', body.replace(" status ", f'"{status[1]}"')))
            break
        found += match[1].replace('\\"', '"') if match[1] is not None else "%d"
        end = match.end()
    assert found, text[:80]
    return " ".join(found.split())


def test_the_table_names_each_call_that_warns_and_no_other(source: Path) -> None:
    found = Counter(calls(source))
    table = Counter({(row.file, row.function, row.format): row.calls for row in WARNINGS})
    assert len(table) == len(WARNINGS)  # no two rows for the same
    assert found - table == Counter()
    assert table - found == Counter()
    assert sum(found.values()) == 128  # as many as `grep` counts there


@pytest.mark.parametrize("row", WARNINGS, ids=lambda row: f"{row.function}-{row.format[:20]}")
def test_each_row_says_what_the_user_gets(row: Warning) -> None:
    assert row.why
    if row.told in (Told.NEVER, Told.LOG):
        assert row.trigger == ""
    if row.trigger.startswith("test_"):
        assert row.trigger in globals()
    elif row.trigger:
        assert f"def {row.trigger}(" in SCENARIOS


# What can be made to happen.


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What libevent logs meanwhile."""
    messages: list[str] = []
    log.set_log_callback(
        lambda severity, text: messages.append(text) if severity == LogSeverity.WARN else None
    )
    yield messages
    log.set_log_callback(None)


def pattern(row: Warning) -> str:
    """Return what a message of *row* looks like, for `fnmatch`."""
    text = re.sub(r"\[", "[[]", row.format)
    function = row.function if row.function.islower() else "*"  # a macro's is where it is used
    if text.startswith("%s:"):
        text = function + text[2:]
    return re.sub(r"%(?:lu|zu|[a-z])", "*", text) + "*"


def check_said(said: list[str], trigger: str) -> None:
    """Hold it that all has been said that the table has *trigger* for."""
    log.flush()
    for row in WARNINGS:
        if row.trigger == trigger:
            spaced = [" ".join(text.split()) for text in said]
            assert fnmatch.filter(spaced, pattern(row)), (row, said)


EPERM = "which can wait for a socket, a pipe or a terminal, but not for a {}"
WAITERS: dict[str, Callable[[EventBase, Any], Any]] = {
    "event": lambda base, file: Event(base, file, READ, print).add(),
    "once": lambda base, file: base.once(lambda fd, what: None, fd=file, what=READ),
    "bufferevent": lambda base, file: BufferEvent(base, file, BufferEventOption(0)),
    "number": lambda base, file: BufferEvent(base, file.fileno(), BufferEventOption(0)),
    "another descriptor": lambda base, file: setattr(BufferEvent(base), "fd", file.fileno()),
}


#: Elsewhere than on Linux there is no epoll, and no other back end refuses a file: nothing to test.
needs_epoll = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="other back ends wait for any file"
)


def require(method: str) -> None:
    """Leave a test out where libevent was built without *method*, as for a system that has none."""
    if method not in EventBase.supported_methods():
        pytest.skip(f"there is no {method}")


@needs_epoll
@pytest.mark.parametrize("flags", [EventBaseFlag(0), EventBaseFlag.EPOLL_USE_CHANGELIST])
@pytest.mark.parametrize("waiter", WAITERS)
def test_a_file_is_refused(said: list[str], waiter: str, flags: EventBaseFlag) -> None:
    with EventConfig(flags=flags, avoid=["poll", "select"]) as config:
        base = EventBase(config)
    with base, tempfile.TemporaryFile("w+b", buffering=0) as file:
        with pytest.raises(PermissionError, match=EPERM.format("regular file")):
            WAITERS[waiter](base, file)
        assert base.dispatch() is False  # nothing waits
        file.write(b"still open")
    if not flags:
        check_said(said, "test_a_file_is_refused")


@needs_epoll
@pytest.mark.parametrize(("path", "kind"), [("/dev/null", "device"), (".", "directory")])
def test_other_files_are_refused_by_their_kind(path: str, kind: str) -> None:
    with only("epoll") as base:
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(PermissionError, match=kind):
            BufferEvent(base, fd, 0)
        os.close(fd)


@pytest.mark.parametrize("method", ["poll", "select"])
def test_a_file_is_written_where_the_back_end_takes_it(method: str) -> None:
    require(method)
    with only(method) as base, tempfile.TemporaryFile("w+b", buffering=0) as file:
        written: list[Any] = []
        bev = BufferEvent(base, file, 0, on_write=written.append)
        bev.write(b"hello\n")
        run_until(base, lambda: written)
        bev.close()
        file.seek(0)
        assert file.read() == b"hello\n"


@pytest.mark.parametrize("make", [socket.socketpair, os.pipe])
def test_sockets_and_pipes_are_not(make: Callable[[], Any]) -> None:
    with EventBase() as base:
        one, other = make()
        numbers = [one if isinstance(one, int) else one.detach()]
        numbers.append(other if isinstance(other, int) else other.detach())
        for number in numbers:
            BufferEvent(base, number).close()


@needs_epoll
def test_a_descriptor_that_has_become_one_of_a_file_is_refused() -> None:
    left, right = socket.socketpair()
    with only("epoll") as base, right, tempfile.TemporaryFile() as file:
        fd = left.detach()
        reading = Event(base, fd, READ, print).add()
        os.dup2(file.fileno(), fd)
        with pytest.raises(PermissionError):
            Event(base, fd, WRITE, print).add()
        reading.close()
        os.close(fd)


#: A regular file that can't be mapped.
UNMAPPED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


# The kernel of a system other than Linux has no such file.
@pytest.mark.skipif(not UNMAPPED.exists(), reason="there is no file that can't be mapped")
def test_a_file_that_can_not_be_mapped_is_read(said: list[str]) -> None:
    content = UNMAPPED.read_bytes()
    with UNMAPPED.open("rb") as file, EventBase() as base:
        segment = FileSegment(file, 0, len(content), 0)
        one, _other = BufferEvent.pair(base)  # which sends no files by itself
        one.output.add_file_segment(segment)
        assert bytes(one.output) == content
        segment.close()
    check_said(said, "test_a_file_that_can_not_be_mapped_is_read")


BREAK = """
    import os, resource, socket, sys
    from libevent_py import *
    from tests.kit.support import only
    method = sys.argv[1]
    left, right = socket.socketpair()
    base = only(method)
    event = Event(base, left, EventFlag.READ, print).add()

    def break_it(fd, what):
        if method == "select":
            os.close(left.detach())
        elif method == "poll":
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
        else:
            for fd in map(int, os.listdir("/proc/self/fd")):
                try:
                    target = os.readlink(f"/proc/self/fd/{fd}")
                except FileNotFoundError:
                    continue
                if "eventpoll" in target:
                    os.dup2(right.fileno(), fd)

    base.once(break_it)
    log.set_log_callback(lambda severity, text: print(text, flush=True))
    try:
        base.dispatch()
    except OSError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("method", "function"),
    [("epoll", "epoll_wait"), ("poll", "poll"), ("select", "select")],
)
def test_a_back_end_that_fails_ends_the_loop(method: str, function: str) -> None:
    require(method)
    warned, raised = run_python(BREAK, method, stderr=None).splitlines()
    assert warned.startswith(f"{function}: ")
    assert raised.startswith("OSError")
    assert "event_base_loop" in raised


def test_a_base_without_a_back_end_is_an_error(said: list[str]) -> None:
    with (
        EventConfig(avoid=EventBase.supported_methods()) as config,
        pytest.raises(LibeventError),
    ):
        EventBase(config)
    check_said(said, "test_a_base_without_a_back_end_is_an_error")


def test_a_base_has_room_for_so_many_common_timeouts(said: list[str]) -> None:
    with EventBase() as base:
        for number in range(256):
            base.init_common_timeout(1 + number)
        with pytest.raises(LibeventError, match="event_base_init_common_timeout"):
            base.init_common_timeout(1000)
    check_said(said, "test_a_base_has_room_for_so_many_common_timeouts")


@pytest.mark.slow
def test_a_descriptor_takes_so_many_events(
    said: list[str], pair: tuple[socket.socket, socket.socket]
) -> None:
    with EventBase() as base:
        events = []
        with pytest.raises((LibeventError, OSError), match="event_add"):
            for _ in range(65536):
                events.append(Event(base, pair[0], READ, print).add())
        assert len(events) == 65535
        for event in events:
            event.close()
    check_said(said, "test_a_descriptor_takes_so_many_events")


def test_edge_and_level_do_not_mix() -> None:
    require("epoll")  # no other has edges
    code = """
        import socket
        from libevent_py import *
        from tests.kit.support import only
        debug.enable_debug_mode()  # else libevent doesn't look
        log.set_log_callback(lambda severity, text: print(text))
        left, right = socket.socketpair()
        left.setblocking(False)
        with only("epoll") as base, left, right:
            Event(base, left, EventFlag.READ | EventFlag.ET, print).add()
            try:
                Event(base, left, EventFlag.READ, print).add()
            except (LibeventError, OSError) as error:
                print(error)
    """
    warned, raised = run_python(code).splitlines()
    assert warned.startswith("Tried to mix edge-triggered and non-edge-triggered events on fd ")
    assert raised.startswith("event_add")


def test_a_descriptor_that_is_closed_is_refused(said: list[str]) -> None:
    left, right = socket.socketpair()
    fd = left.fileno()
    left.close()
    right.close()
    for function, closed in (
        (util.make_socket_nonblocking, lib.evutil_make_socket_nonblocking),
        (util.make_socket_closeonexec, lib.evutil_make_socket_closeonexec),
    ):
        with pytest.raises(OSError):
            function(fd)
        assert closed(fd) == -1  # which Python doesn't come to
    check_said(said, "test_a_descriptor_that_is_closed_is_refused")


# Failing memory.

FAILING = """
#include <errno.h>
#include <stdlib.h>
int countdown, failures;
static int fails(void)
{
    if (countdown == 0 || --countdown > 0)
        return 0;
    ++failures;
    errno = ENOMEM;
    return 1;
}
void *failing_malloc(size_t size) { return fails() ? NULL : malloc(size); }
void *failing_realloc(void *old, size_t size) { return fails() ? NULL : realloc(old, size); }
"""

#: Each is called with one after the other of its allocations failing. What it returns is called
#: first, with all memory that it wants.
SCENARIOS = """
    import ctypes, fcntl, json, os, signal, socket, sys, threading
    from libevent_py import *
    from libevent_py import _ffi
    from tests.kit.support import only

    def base():
        EventBase(EventConfig(), priorities=3).close()

    def common_timeouts():
        base = EventBase()
        def run():
            for number in range(1, 40):
                base.init_common_timeout(number)
        return run, base.close

    def signal():
        import signal
        base = EventBase()
        event = Event.signal(base, signal.SIGUSR1, print)
        return event.add, base.close

    def poll_add():
        base = only("poll")
        pairs = [socket.socketpair() for _ in range(40)]
        events = [Event(base, left, EventFlag.READ, print) for left, _ in pairs]
        def run():
            for event in events:
                event.add()
        return run, lambda: (base.close(), [sock.close() for pair in pairs for sock in pair])

    def select_add():
        base = only("select")
        left, right = socket.socketpair()
        high = fcntl.fcntl(left, fcntl.F_DUPFD_CLOEXEC, 600)
        event = Event(base, high, EventFlag.READ, print)
        def end():
            base.close()
            os.close(high)
            left.close()
            right.close()
        return event.add, end

    def pullup():
        buffer = Buffer(b"x" * 10_000)
        more = Buffer(b"y" * 10_000)
        buffer.add_buffer(more)
        return lambda: buffer.pullup(), buffer.close

    def htmlescape():
        return lambda: libevent_py.htmlescape("<" * 100), None

    def uridecode():
        return lambda: libevent_py.uridecode("a%20b"), None

    def decode_uri():
        return lambda: libevent_py.decode_uri("a%20b"), None

    def query():
        return lambda: libevent_py.parse_query("/?a=b&c=d"), None

    def uri():
        return lambda: Uri.parse("http://user@host:1/path?query#fragment").close(), None

    def uri_part():
        uri = Uri()
        def run():
            uri.scheme, uri.host, uri.path, uri.query = "http", "host", "/path", "q"
        return run, uri.close

    def headers():
        headers = Headers()
        return lambda: headers.add("name", "value"), None

    def server():
        base = EventBase()
        return lambda: HttpServer(base), base.close

    def set_cb():
        base = EventBase()
        server = HttpServer(base)
        return lambda: server.set_cb("/path", print), base.close

    def local_address():
        base = EventBase()
        connection = HttpConnection(base, "127.0.0.1", 80)
        return lambda: setattr(connection, "local_address", "127.0.0.1"), base.close

    def request():
        return lambda: HttpRequest(print), None

    def exchange():
        base = EventBase()
        listening = socket.create_server(("127.0.0.1", 0))
        def serve():
            try:
                peer = listening.accept()[0]
                with peer:
                    while b"\\r\\n\\r\\n" not in peer.recv(4096):
                        pass
                    peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            except OSError:
                pass
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        connection = HttpConnection(base, *listening.getsockname())
        connection.timeout = 0.1
        ended = []
        request = HttpRequest(ended.append)
        def run():
            connection.make_request(request, HttpCommand.GET, "/")
            base.loopexit(5)
            while not ended:
                base.loop(LoopFlag.ONCE)
            if ended[0].error is not None:
                raise ended[0].error
        return run, lambda: (base.close(), listening.close())

    import libevent_py

    failing = ctypes.CDLL(sys.argv[1])
    libc = ctypes.CDLL(None)
    cast = lambda what, kind: ffi.cast(kind, ctypes.cast(what, ctypes.c_void_p).value)
    lib.event_set_mem_functions(
        cast(failing.failing_malloc, "void *(*)(size_t)"),
        cast(failing.failing_realloc, "void *(*)(void *, size_t)"),
        cast(libc.free, "void (*)(void *)"),
    )
    countdown = ctypes.c_int.in_dll(failing, "countdown")
    failures = ctypes.c_int.in_dll(failing, "failures")
    said = []
    log.set_log_callback(lambda severity, text: said.append(text))
    # Beyond that, libevent itself crashes where it frees what it has half made.
    MOST = {"request": 2}
    for name in sys.argv[2:]:
        scenario = globals()[name]
        for number in range(1, MOST.get(name, 300)):
            made = None if name == "base" else scenario()
            run, end = made or (scenario, None)
            log.flush()
            said.clear()
            failures.value, countdown.value = 0, number
            told = None
            try:
                run()
            except Exception as error:
                told = type(error).__name__
            countdown.value = 0
            log.flush()
            print(json.dumps([name, number, told, failures.value, list(said)]), flush=True)
            if end is not None:
                end()
            if failures.value == 0:
                break
"""

#: By which error each is told; exchange ends in an HttpError.
SWEPT = sorted({row.trigger for row in WARNINGS if row.trigger and "test_" not in row.trigger})


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled `FAILING`."""

    def make(directory: Path) -> None:
        (directory / "failing.c").write_text(FAILING)
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        command = [*compiler, "-shared", "-fPIC", "-O1", "-o", "failing.so", "failing.c"]
        subprocess.run(command, check=True, cwd=directory)

    return once(tmp_path_factory, "failing", make) / "failing.so"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SWEPT)
def test_memory_that_fails_with_a_warning_is_told(scenario: str, failing: Path) -> None:
    lacking = {"poll_add": "poll", "select_add": "select"}.get(scenario)
    if lacking:
        require(lacking)
    printed = run_python(SCENARIOS, str(failing), scenario, stderr=None)
    runs = [json.loads(line) for line in printed.splitlines()]
    assert runs[-1][2] is None or len(runs) == 1
    rows = [row for row in WARNINGS if row.trigger == scenario]
    seen: set[Warning] = set()
    for _, number, told, failures, said in runs:
        for row in rows:
            if any(fnmatch.fnmatch(" ".join(text.split()), pattern(row)) for text in said):
                seen.add(row)
                assert failures, number
                if row.told in (Told.RAISES, Told.CALLBACK):
                    assert told is not None, (number, said)
    assert [row for row in rows if row not in seen] == []
