"""The jobs, as data: what is measured, how, and who does it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.build import FILES, PEM, PROGRAMS, SERVED
from benchmarks.measures import (
    Ask,
    Exchange,
    Fetch,
    Hold,
    Load,
    Measure,
    Peak,
    Stream,
    Wrk,
)

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "100KiB": 102400}
ECHO_ROUNDS = 14
SCALE = 10, 1_000, 10_000
EAGER, CHANGELIST = "libevent_py EAGER", "libevent_py changelist"
ON_DATA = "libevent_py on_data"
C_CHANGELIST = "C changelist"
AIO = "libevent_py.aio"
TIME = "ns of processor time"
MEMORY = {"python": "bytes of Python memory", "resident": "bytes resident"}


@dataclass(frozen=True)
class Contender:
    name: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()  # without one of them the contender is left out
    twin: str = "C"  # the same program in C


@dataclass(frozen=True)
class Bar:
    """A limit for one cell of the job's table."""

    contender: str
    column: str
    limit: float


# What takes 1 / 0.8 of the time is done at 0.8 of the rate.
HELLO_BARS = (
    Bar("libevent_py", "to_c", 1 / 0.8),
    Bar("libevent_py", "to_uvicorn", 1 / 1.25),
    Bar(CHANGELIST, "to_uvicorn", 1 / 1.5),
    Bar("libevent_py", "to_aiohttp", 1 / 2.5),
)

IDLE_BARS = {
    "event": Bar("libevent_py", "median", 500.0),
    "connection": Bar("libevent_py", "median", 2048.0),
}


@dataclass(frozen=True)
class Job:
    name: str
    title: str
    operation: str
    measure: Measure
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...] = ()
    rivals: tuple[str, ...] = ("uvloop",)  # the contenders that all are compared with
    unit: str = TIME
    rounds: int = 8
    fresh: bool = False  # whether each sample needs a process of its own


def c(program: str, *arguments: str, name: str = "C") -> Contender:
    return Contender(name, (str(PROGRAMS / program), *arguments))


def python(program: str, *arguments: str, name: str = "libevent_py", twin: str = "C") -> Contender:
    command = (sys.executable, "-m", f"benchmarks.libevent_py.{program}", *arguments)
    return Contender(name, command, ("libevent_py",), twin)


def loop(package: str, program: str, *arguments: str, name: str | None = None) -> Contender:
    command = (sys.executable, "-m", f"benchmarks.asyncio.{program}", package, *arguments)
    return Contender(name or package, command, (package,))


def eager_too(program: str, *arguments: str) -> tuple[Contender, ...]:
    """libevent_py as it is by default, and with the option EAGER."""
    return python(program, *arguments), python(program, *arguments, "EAGER", name=EAGER)


def loops(program: str, *arguments: str) -> tuple[Contender, ...]:
    return loop("asyncio", program, *arguments), loop("uvloop", program, *arguments)


def echo_jobs() -> Iterator[Job]:
    for label, size in SIZES.items():
        yield Job(
            f"raw-echo-{label}",
            f"echo of {size:,} bytes by plain events (asyncio, uvloop: by a Protocol)",
            "message",
            Load(size),
            (
                c("raw_echo"),
                python("raw_echo"),
                *loops("protocol_echo", "echo"),
                loop("asyncio", "raw_echo", name="asyncio add_reader"),
                loop("uvloop", "raw_echo", name="uvloop add_reader"),
            ),
            bars=(Bar("libevent_py", "to_uvloop", 1.25),) if size == 1024 else (),
            rounds=ECHO_ROUNDS,
        )
    for label, size in SIZES.items():
        small = Bar("libevent_py", "to_c", 1.35), Bar(EAGER, "to_c", 1.1)
        yield Job(
            f"bufferevent-echo-{label}",
            f"echo of {size:,} bytes by bufferevents (asyncio, uvloop: by a Protocol)",
            "message",
            Load(size),
            (
                *bufferevents("bufferevent_echo", "protocol_echo", "echo"),
                python("bufferevent_echo", "data", "EAGER", name=ON_DATA),
            ),
            bars=(
                *(small if size <= 1024 else (Bar(EAGER, "to_uvloop", 1.0),)),
                Bar(ON_DATA, "to_uvloop", 1.0),
            ),
            rounds=ECHO_ROUNDS,
        )
    yield Job(
        "four-writes",
        "echo of 1,024 bytes in four writes, by bufferevents (asyncio, uvloop: by a Protocol)",
        "message",
        Load(1024),
        bufferevents("bufferevent_echo", "protocol_echo", "four_writes"),
        bars=(Bar(EAGER, "to_uvloop", 1.5),),
        rounds=ECHO_ROUNDS,
    )


def bufferevents(program: str, protocol: str, what: str) -> tuple[Contender, ...]:
    return c(program, what), *eager_too(program, what), *loops(protocol, what)


def transfer_jobs() -> Iterator[Job]:
    for what, title in (
        ("sink", "1 GiB taken from one bufferevent as bytes"),
        ("relay", "1 GiB moved from the input to the output of one bufferevent"),
        ("source", "1 GiB given to one bufferevent, 64 KiB at a time"),
    ):
        yield Job(
            f"transfer-{what}",
            f"{title} (asyncio, uvloop: a Protocol)",
            "KiB",
            Stream(what, 1 << 30, 4 << 20),
            bufferevents("transfer", "transfer", what),
            bars=(Bar("libevent_py", "to_c", 1.1), Bar(EAGER, "to_c", 1.1)),
            rounds=5,
        )


def buffer_jobs() -> Iterator[Job]:
    for operation in ("add", "search", "readln", "remove", "drain"):
        yield Job(
            f"buffer-{operation}",
            f"{operation} on a Buffer of 256 KiB, 4 KiB at a time, 64 MiB in all",
            "call",
            Ask((64 << 20) // 4096, 640),
            (c("buffer_ops", operation), python("buffer_ops", operation)),
            bars=(Bar("libevent_py", "beyond_c", 400.0),),
        )


def memory_jobs() -> Iterator[Job]:
    for kind, unit in MEMORY.items():
        for name, title, operation, measure, twin, others in (
            (
                "timer",
                "a pending timer (asyncio, uvloop: call_later)",
                "event",
                Ask(100_000, 1000),
                c("idle_events", "timer"),
                (python("idle_events", "timer", kind), *loops("idle_events", kind)),
            ),
            (
                "read",
                "a pending read event",
                "event",
                Ask(10_000, 1000),
                c("idle_events", "read"),
                (python("idle_events", "read", kind),),
            ),
            (
                "connection",
                "an accepted bufferevent with nothing to do (asyncio, uvloop: Protocol)",
                "connection",
                Hold(1000, 50),
                c("idle_connections"),
                (*eager_too("idle_connections", kind), *loops("idle_connections", kind)),
            ),
        ):
            in_python = kind == "python"  # of which C has none
            yield Job(
                f"idle-{name}-{kind}",
                title,
                operation,
                measure,
                others if in_python else (twin, *others),
                bars=(IDLE_BARS[operation],) if in_python else (),
                unit=unit,
                rounds=3,
                fresh=True,
            )


def hello_jobs() -> Iterator[Job]:
    contenders = (
        c("http_hello"),
        python("http_hello"),
        c("http_hello", "changelist", name=C_CHANGELIST),
        python("http_hello", "changelist", name=CHANGELIST, twin=C_CHANGELIST),
        web("uvicorn", "uvloop", "asgi_hello", "uvloop", "httptools"),
        web("aiohttp", "asyncio", "aiohttp_hello"),
        web("aiohttp", "uvloop", "aiohttp_hello", "uvloop", name="aiohttp uvloop"),
    )
    for connections in (32, 256):
        yield Job(
            f"http-hello-{connections}",
            f"a request over HTTP on one of {connections} connections that stay",
            "request",
            Wrk(connections),
            contenders,
            bars=HELLO_BARS,
            rivals=("uvicorn", "aiohttp"),
        )


def headers_jobs() -> Iterator[Job]:
    yield Job(
        "http-headers-32",
        "a whole request that is read, and answered with four headers, on one of 32 connections",
        "request",
        Wrk(32),
        (
            c("http_headers"),
            python("http_headers"),
            python("http_headers", "single", name="libevent_py, single calls"),
        ),
        bars=(Bar("libevent_py", "to_c", 1 / 0.45),),
        rivals=(),
    )


def serve_jobs() -> Iterator[Job]:
    what = "by a bare {} application, on one of 32 connections that stay"
    granian = {kind: web("granian", kind, "granian_hello") for kind in ("wsgi", "asgi")}
    yield Job(
        "serve-wsgi",
        f"a request over HTTP, answered {what.format('WSGI')}",
        "request",
        Wrk(32),
        (
            python("serve_hello", "wsgi"),
            granian["wsgi"],
            web("waitress", "", "waitress_hello"),
        ),
        rivals=("granian",),
    )
    yield Job(
        "serve-asgi",
        f"a request over HTTP, answered {what.format('ASGI')}",
        "request",
        Wrk(32),
        (
            python("serve_hello", "asgi"),
            granian["asgi"],
            web("uvicorn", "uvloop", "asgi_hello", "uvloop", "httptools"),
        ),
        bars=(Bar("libevent_py", "to_uvicorn", 1.0),),
        rivals=("uvicorn", "granian"),
    )


def loop_jobs() -> Iterator[Job]:
    """asyncio's own programs, on the loop of each."""
    for name, title, operation, measure, program, bar in (
        ("call-soon", "call_soon, again and again", "call", Ask(500_000, 10_000), "dispatch", 1.0),
        ("sleep", "sleep(0), again and again", "sleep", Ask(300_000, 10_000), "sleep", 1.0),
        ("timers", "call_later, fired", "timer", Ask(300_000, 10_000), "timers", 1.0),
        (
            "cancelled-timers",
            "call_later, cancelled",
            "timer",
            Ask(300_000, 10_000),
            "cancelled_timers",
            1.0,
        ),
    ):
        yield Job(
            f"aio-{name}",
            title,
            operation,
            measure,
            all_loops(program),
            bars=(Bar(AIO, "to_asyncio", bar),),
            rivals=("asyncio", "uvloop"),
        )
    for kind, command in (
        ("protocol", ("protocol_echo", "echo")),
        ("streams", ("streams_echo",)),
    ):
        for label, size in SIZES.items():
            ours = Bar(AIO, "to_asyncio", 1.0), Bar(AIO, "to_uvloop", 1 / 0.95)
            yield Job(
                f"aio-{kind}-{label}",
                f"echo of {size:,} bytes by asyncio's {kind} on each loop",
                "message",
                Load(size),
                all_loops(*command),
                bars=ours if size == 1024 else (),
                rivals=("asyncio", "uvloop"),
                rounds=ECHO_ROUNDS,
            )
    factory = f"{AIO}:EventLoop"
    yield Job(
        "aio-uvicorn-32",
        "a request to uvicorn on each loop, on one of 32 connections that stay",
        "request",
        Wrk(32),
        (
            web("uvicorn", "asyncio", "asgi_hello", "httptools", name="asyncio"),
            web("uvicorn", "uvloop", "asgi_hello", "uvloop", "httptools", name="uvloop"),
            web("uvicorn", factory, "asgi_hello", "libevent_py", "httptools", name=AIO),
        ),
        bars=(Bar(AIO, "to_asyncio", 1.0),),
        rivals=("asyncio", "uvloop"),
    )


def all_loops(program: str, *arguments: str) -> tuple[Contender, ...]:
    return *loops(program, *arguments), loop("libevent_py", program, *arguments, name=AIO)


def scale_jobs() -> Iterator[Job]:
    """The same with few connections and with many: for ``--plot``."""
    factory = f"{AIO}:EventLoop"
    for count in SCALE:
        more = count // 10  # ms, so that each connection has several messages
        yield Job(
            f"scale-echo-{count}",
            f"echo of 1,024 bytes on {count:,} connections, by bufferevents and by a Protocol",
            "message",
            Load(1024, count, 30 + more, 100 + 2 * more),
            (
                *bufferevents("bufferevent_echo", "protocol_echo", "echo"),
                loop("libevent_py", "protocol_echo", "echo", name=AIO),
            ),
            rivals=("uvloop",),
            rounds=5,
        )
    for count in SCALE:
        yield Job(
            f"scale-hello-{count}",
            f"a request over HTTP on one of {count:,} connections that stay",
            "request",
            Wrk(count, 2.0 + count / 2500),
            (
                c("http_hello"),
                python("http_hello"),
                web("uvicorn", "uvloop", "asgi_hello", "uvloop", "httptools"),
                web("uvicorn", factory, "asgi_hello", "httptools", name=f"uvicorn {AIO}"),
            ),
            rivals=("uvicorn",),
            rounds=3,
        )


def secured_jobs() -> Iterator[Job]:
    pem = str(PEM)
    yield Job(
        "https-hello",
        "a request over HTTPS on one of 32 connections that stay",
        "request",
        Wrk(32, scheme="https"),
        (
            c("https_hello", pem),
            python("https_hello", pem),
            web("uvicorn", "uvloop", "asgi_hello", "uvloop", "httptools", arguments=(pem,)),
        ),
        bars=(Bar("libevent_py", "to_c", 1 / 0.8), Bar("libevent_py", "to_uvicorn", 1 / 1.25)),
        rivals=("uvicorn",),
    )


def answered_jobs() -> Iterator[Job]:
    for kind, unit in MEMORY.items():
        ours = python("http_idle", kind)
        yield Job(
            f"http-idle-{kind}",
            "a connection over HTTP that stays after one request, of 10,000 in all",
            "connection",
            Hold(5000, 50, served=True),
            (ours,) if kind == "python" else (c("http_idle"), ours),
            rivals=(),
            unit=unit,
            rounds=3,
            fresh=True,
        )


def web(
    package: str,
    loop: str,
    program: str,
    *packages: str,
    name: str | None = None,
    arguments: tuple[str, ...] = (),
) -> Contender:
    command = (sys.executable, "-m", f"benchmarks.asyncio.{program}", loop, *arguments)
    return Contender(name or package, command, (package, *packages))


def body_jobs() -> Iterator[Job]:
    served = str(FILES)
    for name, title, measure, program, arguments, bars in (
        (
            "file",
            "a file of 1 GiB, which curl gets from samples/http_server.py",
            Fetch(*SERVED),
            "http_file",
            (served,),
            (Bar("libevent_py", "to_c", 1.1),),
        ),
        (
            "upload",
            "a file of 1 GiB, mapped into memory and posted by a client of HTTP",
            Exchange("upload", *SERVED),
            "http_transfer",
            ("upload", served),
            (),
        ),
        (
            "download",
            "1 GiB that a client of HTTP gets in chunks",
            Exchange("download", *SERVED),
            "http_transfer",
            ("download",),
            (),
        ),
    ):
        contenders = c(program, *arguments), python(program, *arguments)
        yield Job(f"http-{name}", title, "KiB", measure, contenders, bars, rivals=(), rounds=9)
        yield Job(
            f"http-{name}-peak",
            title,
            "transfer",
            Peak(measure),
            contenders,
            bars=(Bar("libevent_py", "median", 4 << 20),),
            rivals=(),
            unit="bytes of memory of its own at most",
            rounds=3,
            fresh=True,
        )


JOBS = (
    Job(
        "dispatch",
        "a user event that re-activates itself (asyncio, uvloop: call_soon)",
        "callback",
        Ask(500_000, 10_000),
        (c("dispatch"), python("dispatch"), *loops("dispatch")),
        bars=(Bar("libevent_py", "beyond_c", 500.0),),
    ),
    Job(
        "timers",
        "one-shot timers, all scheduled, then fired (asyncio, uvloop: call_later)",
        "timer",
        Ask(1_000_000, 10_000),
        (
            c("timers", "once"),
            python("timers", "once"),
            *loops("timers"),
            c("timers", "timer", name="C evtimer"),
            python("timers", "timer", name="libevent_py Event.timer", twin="C evtimer"),
        ),
        bars=(
            Bar("libevent_py", "to_uvloop", 1.0),
            Bar("libevent_py Event.timer", "to_uvloop", 1.0),
        ),
        rounds=3,
    ),
    Job(
        "persistent-timers",
        "a thousand persistent timers of 10 ms (asyncio, uvloop: call_later again)",
        "callback",
        Ask(30_000, 5000),
        (c("persistent_timers"), python("persistent_timers"), *loops("persistent_timers")),
    ),
    *echo_jobs(),
    *transfer_jobs(),
    *buffer_jobs(),
    *memory_jobs(),
    Job(
        "dns-lookups",
        "lookups, 64 at a time, by a client and a server of DNS in one process",
        "lookup",
        Ask(10_000, 200),
        (c("dns_lookups"), python("dns_lookups")),
        bars=(Bar("libevent_py", "to_c", 2.5),),
        rivals=(),
    ),
    *loop_jobs(),
    *scale_jobs(),
    *hello_jobs(),
    *headers_jobs(),
    *serve_jobs(),
    *secured_jobs(),
    *answered_jobs(),
    *body_jobs(),
)
