"""Whole programs whose system calls fail, are interrupted, or do less than they were asked to.

``python -m tests.kit.failing_calls`` runs all of them, each in all ways, and ``PROGRAM …`` some. It
compiles ``failing_calls.c`` into a temporary directory and starts itself once more with that
preloaded. Only the calls of libevent, OpenSSL and the package's C count; with ``--everybody``
Python's own, too.

A program whose calls are short or interrupted must give the right answer. If a call fails, in turn
the first, the second and so on, alone and with all that follow, it gives that answer or is told why
not: by an exception, `on_error`, `on_event` or a callback. In both cases no descriptor and no block
of memory is left, and nothing is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import faulthandler
import functools
import gc
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    DnsBase,
    DnsBaseFlag,
    DnsServer,
    EventBase,
    FileSegment,
    FilterResult,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    LibeventError,
    Listener,
    LoopFlag,
    MemorySource,
    RpcPool,
    RpcServer,
    debug,
    log,
)
from libevent_py._core.references import release
from libevent_py._core.wakeup import wakeup
from tests.kit.certificates import HOST
from tests.kit.flags import CLOSE, EAGER, READ
from tests.kit.processes import descriptors
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, answer
from tests.kit.support import PATIENCE
from tests.kit.tls_peers import tls_contexts

SOURCE = Path(__file__).with_suffix(".c")

#: The variable in the environment that names the compiled library.
PRELOADED = "LIBEVENT_PY_FAILING_CALLS"


def preloading(library: str) -> dict[str, str]:
    """Return the environment in which *library* is preloaded: a sanitizer's must come before it."""
    before = os.environ.get("LD_PRELOAD", "")
    return {PRELOADED: library, "LD_PRELOAD": f"{before} {library}".lstrip()}


DATA = bytes(range(256)) * 4


def compiled(directory: Path) -> Path:
    """Compile ``failing_calls.c`` into *directory*, and return the library."""
    library = directory / "failing_calls.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return library


# The programs.


class Run:
    """One run of a program: what it has answered, and what it has been told."""

    def __init__(self, base: EventBase, timeout: float) -> None:
        self.base = base
        #: After how many seconds everything in the program gives up.
        self.timeout = timeout
        self.answers: list[object] = []
        self.told: list[object] = []
        #: Whether it can't go on.
        self.over = False
        #: What must live as long as the run.
        self.kept: list[object] = []

    def answer(self, what: object) -> None:
        self.answers.append(what)
        self.over = True

    def tell(self, what: object) -> None:
        """Be told of something after which the program goes on."""
        self.told.append(what)

    def end(self, what: object) -> None:
        """Be told why there will be no answer."""
        self.told.append(what)
        self.over = True

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        """Take the end of a client's bufferevent."""
        if not what & BufferEventFlag.CONNECTED:
            self.end((what, bev.error))
            bev.close()

    def on_server_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        """Take the end of a server's bufferevent, which its client sees as well."""
        if not what & BufferEventFlag.CONNECTED:
            self.tell((what, bev.error))
            bev.close()


def passed_on(bev: BufferEvent) -> None:
    bev.write(bev.read())


def expecting(run: Run, bev: BufferEvent, size: int) -> Callable[[BufferEvent], None]:
    """Return an ``on_read`` that answers with what has come once that is *size* bytes."""

    def on_read(bev: BufferEvent) -> None:
        if len(bev.input) >= size:
            run.answer(bev.read())

    return on_read


Layer = Callable[[BufferEvent], BufferEvent]


def echoing(
    run: Run,
    options: BufferEventOption,
    server: Layer = lambda bev: bev,
    client: Layer = lambda bev: bev,
) -> object:
    """Run an echo server and its client, each with a layer on its sockets."""
    base = run.base

    def accept(listener: Listener, fd: int, _address: object) -> None:
        bev = server(BufferEvent(base, fd, options | CLOSE))
        bev.setcb(passed_on, None, run.on_server_event)
        bev.set_timeouts(run.timeout, run.timeout)
        bev.enable(READ)

    listener = Listener(base, ("127.0.0.1", 0), accept)
    listener.on_error = lambda listener, error: run.tell(error)
    below = BufferEvent(base, -1, options | CLOSE)
    bev = client(below)
    bev.setcb(expecting(run, bev, len(DATA)), None, run.on_event)
    if bev is not below:
        bev.set_timeouts(run.timeout, run.timeout)
    below.set_timeouts(run.timeout, run.timeout)
    below.connect(listener.address)
    bev.enable(READ)
    bev.write(DATA)
    return DATA


def echo(run: Run) -> object:
    return echoing(run, BufferEventOption(0))


def eager_echo(run: Run) -> object:
    return echoing(run, EAGER)


def turned(source: Buffer, destination: Buffer, _limit: object, _mode: object) -> FilterResult:
    """Turn over each bit."""
    destination.add(bytes(255 - byte for byte in source.remove()))
    return FilterResult.OK


def filter_echo(run: Run) -> object:
    def layer(bev: BufferEvent) -> BufferEvent:
        return BufferEvent.filter(bev, turned, turned)

    return echoing(run, BufferEventOption(0), layer, layer)


def tls_echo(run: Run) -> object:
    """The same by TLS on a socket each."""
    base = run.base
    (client, *_), server = tls_contexts()

    def accept(listener: Listener, fd: int, _address: object) -> None:
        bev = BufferEvent.tls(base, fd, server, options=CLOSE)
        bev.setcb(passed_on, None, run.on_server_event)
        bev.set_timeouts(run.timeout, run.timeout)
        bev.enable(READ)

    listener = Listener(base, ("127.0.0.1", 0), accept)
    listener.on_error = lambda listener, error: run.tell(error)
    bev = BufferEvent.tls(base, -1, client, server_hostname=HOST, options=CLOSE)
    bev.setcb(expecting(run, bev, len(DATA)), None, run.on_event)
    bev.set_timeouts(run.timeout, run.timeout)
    bev.connect(listener.address)
    bev.enable(READ)
    bev.write(DATA)
    return DATA


def tls_filter_echo(run: Run) -> object:
    (client, *_), server = tls_contexts()
    return echoing(
        run,
        BufferEventOption(0),
        lambda bev: BufferEvent.tls_filter(bev, server),
        lambda bev: BufferEvent.tls_filter(bev, client, server_hostname=HOST),
    )


@functools.cache
def file() -> Any:
    """Return a file of the process."""
    made = tempfile.TemporaryFile()  # noqa: SIM115  (it stays open)
    made.write(DATA)
    made.flush()
    return made


def sent_file(run: Run) -> object:
    """Send a file by sendfile(), and another one that is read into memory."""
    base = run.base

    def accept(listener: Listener, fd: int, _address: object) -> None:
        bev = BufferEvent(base, fd, CLOSE)
        bev.setcb(None, None, run.on_server_event)
        bev.set_timeouts(run.timeout, run.timeout)
        with FileSegment(file()) as segment:
            bev.output.add_file_segment(segment)
        bev.output.add_file(file(), 10, 100)

    listener = Listener(base, ("127.0.0.1", 0), accept)
    listener.on_error = lambda listener, error: run.tell(error)
    bev = BufferEvent(base, -1, CLOSE)
    bev.setcb(expecting(run, bev, len(DATA) + 100), None, run.on_event)
    bev.set_timeouts(run.timeout, run.timeout)
    bev.connect(listener.address)
    bev.enable(READ)
    return DATA + DATA[10:110]


def serving(run: Run, **options: Any) -> int:
    """Run an HTTP server that sends back what it gets, in parts; return its port."""
    base = run.base
    server = HttpServer(base)
    for name, value in options.items():
        setattr(server, name, value)
    server.timeout = run.timeout

    def reply(request: Any) -> None:
        body = request.input_buffer.remove()
        request.send_reply_start(200)
        request.send_reply_chunk(body[:10])
        request.send_reply_chunk(body[10:])
        request.send_reply_end()

    server.set_gencb(reply)
    bound = server.bind_socket("127.0.0.1", 0)
    bound.listener.on_error = lambda listener, error: run.tell(error)
    run.kept.append(server)
    return int(bound.port)


def asking(run: Run, connection: HttpConnection) -> object:
    """Send two requests, one after the other; the answer is what the second one gets."""
    connection.timeout = run.timeout

    def done(request: HttpRequest) -> None:
        if request.error is not None:
            run.end(request.error)
        elif request.response_code != 200:
            run.end(request.response_code)
        elif request.uri.endswith("1"):
            ask("/2")
        else:
            run.answer(request.input_buffer.remove())

    def ask(path: str) -> None:
        request = HttpRequest(done)
        request.output_headers["Host"] = HOST
        request.output_buffer.add(DATA)
        connection.make_request(request, HttpCommand.POST, path)

    ask("/1")
    return DATA


def http(run: Run) -> object:
    return asking(run, HttpConnection(run.base, "127.0.0.1", serving(run)))


def https(run: Run) -> object:
    (client, *_), server = tls_contexts()
    number = serving(run, tls=server)
    connection = HttpConnection(run.base, "127.0.0.1", number, tls=client, server_hostname=HOST)
    return asking(run, connection)


def dns(run: Run) -> object:
    """Look a name up for its address, and then for that of a host to connect to."""
    base = run.base

    def on_query(request: Any) -> None:
        request.add_a_reply(request.questions[0].name, "192.0.2.1", ttl=60)
        request.respond()

    server = DnsServer(base, ("127.0.0.1", 0), on_query)
    resolver = DnsBase(base, DnsBaseFlag(0))
    resolver.nameserver_sockaddr_add(server.address)
    resolver.set_option("timeout", run.timeout)
    resolver.set_option("attempts", 2)
    resolver.set_option("randomize-case", 0)

    def found(lookup: object, error: Any, addresses: Any) -> None:
        if error:
            run.end(error)
        else:
            run.answer([address[4][0] for address in addresses])

    def resolved(lookup: Any, result: int, _ttl: int, addresses: Any) -> None:
        if result:
            run.end(result)
        else:
            resolver.getaddrinfo("b.example", 80, found, family=2, type=1)

    resolver.resolve_ipv4("a.example", resolved)
    return ["192.0.2.1"]


def rpc(run: Run) -> object:
    base = run.base
    server = HttpServer(base)
    bound = server.bind_socket("127.0.0.1", 0)
    bound.listener.on_error = lambda listener, error: run.tell(error)
    procedures = RpcServer(server)
    procedures.register("Message", Msg, Kill, answer)
    pool = RpcPool(base)
    connection = HttpConnection(base, "127.0.0.1", bound.port)
    connection.timeout = run.timeout
    pool.add_connection(connection)
    run.kept += [server, procedures, pool]

    def done(call: Any) -> None:
        if call.status:
            run.end(call.status)
        else:
            run.answer(call.reply == REPLY)

    pool.call("Message", REQUEST, Kill, done)
    return True


PROGRAMS: dict[str, Callable[[Run], object]] = {
    program.__name__: program
    for program in (
        *(echo, eager_echo, filter_echo, tls_echo, tls_filter_echo),
        *(sent_file, http, https, dns, rpc),
    )
}


# How their calls fail.

OPENING = (errno.EMFILE, errno.ENOBUFS)
RECEIVING = (errno.ECONNRESET, errno.ENOBUFS)
SENDING = (errno.ECONNRESET, errno.ENOBUFS, errno.EPIPE)

#: The errors of each function.
ERRORS: dict[str, tuple[int, ...]] = {
    "accept4": (errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED),
    "bind": (errno.EADDRINUSE,),
    "connect": (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EAGAIN),
    "epoll_create1": OPENING,
    "epoll_ctl": (errno.ENOSPC, errno.ENOMEM),
    "epoll_wait": (errno.EINVAL,),
    "eventfd": OPENING,
    "getsockname": (errno.ENOBUFS,),
    "getsockopt": (errno.ENOBUFS,),
    "listen": (errno.EADDRINUSE,),
    "open": OPENING,
    "open64": OPENING,
    "pipe2": OPENING,
    "read": RECEIVING,
    "readv": RECEIVING,
    "recv": RECEIVING,
    "recvfrom": RECEIVING,
    "sendfile": SENDING,
    "sendto": (*SENDING, errno.EAGAIN),
    "setsockopt": (errno.ENOBUFS,),
    "socket": OPENING,
    "socketpair": OPENING,
    "timerfd_create": OPENING,
    "write": SENDING,
    "writev": SENDING,
}

#: What may be interrupted, or has to be tried again: once more, and it does what it should.
INTERRUPTED = (
    *("accept4", "connect", "epoll_wait"),
    *("read", "readv", "recv", "recvfrom"),
    *("sendfile", "sendto", "write", "writev"),
)

#: What goes on after a failure, and must give the right answer although it is told of one.
GOES_ON = {("accept4", errno.EMFILE), ("accept4", errno.ECONNABORTED)}

#: What libevent itself can't cope with, by program and function, and why; see docs/safety.md.
UNABLE = {
    ("sent_file", "sendfile"): "evbuffer_write_sendfile() takes EINTR and EAGAIN for the end",
    ("epoll_wait", "for ever"): "what libevent frees only in the loop is then never freed",
}

#: What may have to be tried again, although it was said to be ready.
AGAIN = ("accept4", "read", "readv", "recvfrom", "write", "writev")

#: What may transfer less than it was asked to.
SHORT = ("read", "readv", "recv", "write", "writev", "sendfile")

#: How long a program waits for what can't come any more, in seconds, and for what will.
SOON, LATE = 0.1, 60.0


class Calls:
    """The preloaded library."""

    def __init__(self, everybody: bool) -> None:
        self.library = ctypes.CDLL(os.environ[PRELOADED])
        self.library.failing_calls_count.restype = ctypes.c_long
        self.library.failing_calls_failures.restype = ctypes.c_long
        self.everybody = everybody
        self.end()

    def begin(self) -> None:
        assert self.library.failing_calls_begin(self.everybody) >= 4

    def end(self) -> None:
        """Have nothing fail any more."""
        self.library.failing_calls_reset()

    def fail(self, name: str, nth: int, error: int, onwards: bool) -> None:
        assert not self.library.failing_calls_fail(
            name.encode(), ctypes.c_long(nth), error, onwards
        )

    def cut(self, name: str) -> None:
        assert not self.library.failing_calls_short(name.encode())

    def interrupt(self, name: str) -> None:
        assert not self.library.failing_calls_interrupt(name.encode())

    def count(self, name: str) -> int:
        return int(self.library.failing_calls_count(name.encode()))

    def failures(self, name: str) -> int:
        return int(self.library.failing_calls_failures(name.encode()))


class Outcome:
    """How a run has ended."""

    def __init__(self) -> None:
        self.expected: object = None
        self.answers: list[object] = []
        self.told: list[object] = []
        self.hangs = False


def ran(program: Callable[[Run], object], timeout: float) -> Outcome:
    """Run *program* on a base of its own."""
    outcome = Outcome()
    base = None
    try:
        base = EventBase()
        run = Run(base, timeout)
        outcome.answers, outcome.told = run.answers, run.told
        base.on_error = lambda error, source: run.end(error)
        outcome.expected = program(run)
        until = time.monotonic() + PATIENCE / 2
        while not run.over and not outcome.hangs:
            base.loopexit(1.0)
            if not base.loop(LoopFlag.ONCE) and not base.got_exit:
                run.over = True  # there is nothing left that could happen
            outcome.hangs = time.monotonic() > until
    except (OSError, MemoryError, LibeventError) as error:
        traceback.clear_frames(error.__traceback__)
        outcome.told.append(error.with_traceback(None))
    finally:
        if base is not None:
            base.on_error = None
            while not base.closed:
                try:
                    base.close()
                except (OSError, MemoryError, LibeventError) as error:
                    outcome.told.append(error.with_traceback(None))
    return outcome


def left() -> tuple[dict[str, str], int]:
    """Return the open descriptors, and how many blocks of memory there are."""
    gc.collect()
    release()
    log.flush()
    gc.collect()
    sources = (MemorySource.LIBEVENT, MemorySource.OURS)
    return descriptors(), sum(debug.memory(source).blocks for source in sources)


class Failing:
    """All that is tried with one program."""

    def __init__(self, name: str, calls: Calls, arguments: argparse.Namespace) -> None:
        self.name = name
        self.program = PROGRAMS[name]
        self.calls = calls
        self.arguments = arguments
        self.failed = 0
        self.runs = self.faults = 0
        self.seen: set[str] = set()
        self.quiet = False

    def fail(self, what: str, text: str) -> None:
        key = what.partition(" at ")[0] + text.partition(":")[0]
        self.failed += 1
        if key not in self.seen and not self.quiet:
            self.seen.add(key)
            print(f"FAILED: {self.name}, {what}: {text}", flush=True)

    def attempt(
        self, what: str, plan: Callable[[], None], must_answer: bool, function: str = ""
    ) -> int:
        """Run the program under *plan*; return how many calls of *function* have failed."""
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
        self.runs += 1
        before = left()
        self.calls.end()
        plan()
        try:
            outcome = ran(self.program, LATE if must_answer else SOON)
            failures = self.calls.failures(function) if function else 0
        finally:
            self.calls.end()
        if outcome.hangs:
            self.fail(what, f"it hangs, having been told {outcome.told}")
        right = outcome.answers == [outcome.expected] and outcome.answers
        if not right and (must_answer or not outcome.told):
            self.fail(what, f"answered {outcome.answers!r:.100}, told {outcome.told}")
        del outcome
        after = left()
        if after[0] != before[0]:
            changed = {fd: name for fd, name in after[0].items() if before[0].get(fd) != name}
            self.fail(what, f"descriptors left: {changed}")
        if after[1] != before[1]:
            self.fail(what, f"blocks of memory: {before[1]} before, {after[1]} afterwards")
        self.faults += failures
        return failures

    def numbers(self, count: int) -> Iterator[int]:
        most = self.arguments.most
        stride = max(1, -(-count // most)) if most else 1
        yield from range(1, count + 1, stride)

    def run(self) -> None:
        calls = self.calls
        for _ in range(2):  # something may be made for good
            ran(self.program, LATE)
        calls.end()
        outcome = ran(self.program, LATE)
        assert outcome.answers == [outcome.expected], (self.name, outcome.told)
        counts = {name: calls.count(name) for name in ERRORS}
        del outcome
        if self.arguments.unable:
            self.run_unable(counts)
            return
        able = [name for name in ERRORS if name not in self.unable()]
        self.attempt("nothing fails", calls.end, True)
        for name in SHORT:
            self.attempt(f"short {name}", functools.partial(calls.cut, name), True)
        interrupted = [name for name in INTERRUPTED if name in able]
        for name in interrupted:
            self.attempt(f"interrupted {name}", functools.partial(calls.interrupt, name), True)
        self.attempt("all short and interrupted", functools.partial(self.all, interrupted), True)
        for name in AGAIN:
            if name in able:
                self.at_each(name, errno.EAGAIN, False, counts[name], True)
        for name in able:
            for error in ERRORS[name]:
                goes_on = (name, error) in GOES_ON
                self.at_each(name, error, False, counts[name], goes_on)
                # A socket that can be written to doesn't say for ever that it can't.
                if (name, "for ever") not in UNABLE and error != errno.EAGAIN:
                    self.at_each(name, error, True, counts[name])

    def unable(self) -> list[str]:
        """Return the functions whose failures libevent can't cope with in this program."""
        return [function for program, function in UNABLE if program == self.name]

    def run_unable(self, counts: dict[str, int]) -> None:
        """Try what is in `UNABLE`, and fail if libevent copes with it by now."""
        for name in self.unable():
            before, self.quiet = self.failed, True
            self.attempt(f"interrupted {name}", functools.partial(self.calls.interrupt, name), True)
            self.quiet = False
            if self.failed == before:
                self.fail(f"interrupted {name}", "libevent copes with it: it need not be in UNABLE")
            else:
                self.failed = before

    def all(self, interrupted: list[str]) -> None:
        """Have all calls transfer as little as possible, and *interrupted* be interrupted."""
        for name in SHORT:
            self.calls.cut(name)
        for name in interrupted:
            self.calls.interrupt(name)

    def at_each(
        self, name: str, error: int, onwards: bool, count: int, must_answer: bool = False
    ) -> None:
        text = f"{name} {errno.errorcode[error]}{' and on' if onwards else ''}"
        for nth in self.numbers(count):
            plan = functools.partial(self.calls.fail, name, nth, error, onwards)
            self.attempt(f"{text} at {nth}", plan, must_answer, name)


def work(arguments: argparse.Namespace) -> int:
    """In the process that has the library preloaded: run all, and return how much has failed."""
    debug.count_memory()
    wakeup()
    calls = Calls(arguments.everybody)
    calls.begin()
    tls_contexts()
    file()
    gc.collect()
    gc.freeze()
    failed = 0
    for name in arguments.programs or PROGRAMS:
        began = time.monotonic()
        one = Failing(name, calls, arguments)
        one.run()
        failed += one.failed
        took = time.monotonic() - began
        print(f"{name}: {one.runs} runs, {one.faults} failures, {took:.1f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("programs", nargs="*", choices=[*PROGRAMS, []])
    add("--most", type=int, default=0, help="at most so many calls of each function")
    add("--unable", action="store_true", help="only what libevent can't cope with")
    add("--everybody", action="store_true", help="Python's own calls count, too")
    arguments = parser.parse_args()
    if PRELOADED in os.environ:
        sys.exit(bool(work(arguments)))
    with tempfile.TemporaryDirectory() as directory:
        library = str(compiled(Path(directory)))
        environment = {**os.environ, **preloading(library)}
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.kit.failing_calls"]
        sys.exit(subprocess.run([*command, *sys.argv[1:]], env=environment).returncode)


if __name__ == "__main__":
    main()
