"""What becomes of a coroutine that waits when what it waits for is misused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    DnsBase,
    DnsError,
    Event,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpError,
    ThreadError,
    aio,
)
from tests.kit.awaited import SCENES, Scene
from tests.kit.coroutines import here, runs, soon
from tests.kit.support import PATIENCE, run_python

#: What ends a wait that can't go on.
ENDS = (ClosedError, HttpError, DnsError, OSError)

OF_STREAMS = ["read", "readexactly", "readline", "readln", "drain", "write_eof"]

CASES = [
    *((name, what) for name in OF_STREAMS for what in ("stream", "bufferevent")),
    ("accept", "streams"),
    *((name, "dns") for name in ("getaddrinfo", "connect by name")),
    *(
        (name, what)
        for name in ("request", "request with a body")
        for what in ("connection", "server")
    ),
    *(("read a response", what) for what in ("response", "connection", "server")),
    ("wait", "event"),
]


@pytest.mark.parametrize(("name", "what"), CASES)
@pytest.mark.parametrize("how", ["in a coroutine", "in a callback"])
@runs
async def test_closing_what_is_waited_for_ends_the_wait(name: str, what: str, how: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        scene = await SCENES[name](stack)
        waiting = await soon(scene.wait())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        if how == "in a coroutine":
            scene.closes[what].close()
        else:
            here().once(lambda *_: scene.closes[what].close())
        await asyncio.wait([waiting], timeout=1)
        assert waiting.done(), "it waits for ever"
        with pytest.raises(ENDS):
            await waiting


class Things(NamedTuple):
    """What is misused."""

    stream: aio.Stream
    bev: BufferEvent
    dns: DnsBase
    event: Event
    connection: HttpConnection
    base: EventBase


#: The same functions, which are called with what type checkers refuse.
untyped: Any = aio
GET = HttpCommand.GET
CLIENT = "127.0.0.1", 9

#: What is done with wrong arguments, and what is said of it.
WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.stream.read("x"), TypeError, "size must be an integer, not 'x'"),
    (lambda s: s.stream.read(1.5), TypeError, "size must be an integer, not 1.5"),
    (lambda s: s.stream.readexactly("x"), TypeError, "size must be an integer, not 'x'"),
    (lambda s: s.stream.readexactly(-1), ValueError, "size must be from 0 to "),
    (lambda s: s.stream.readuntil("x"), TypeError, "separator must be bytes or have the buffer"),
    (lambda s: s.stream.readuntil(b""), ValueError, "separator must have at least one byte"),
    (lambda s: s.stream.readln("x"), ValueError, "eol must be an EolStyle, not 'x'"),
    (lambda s: s.stream.write("x"), TypeError, "data must be bytes or have the buffer protocol"),
    (lambda s: untyped.Stream(5), TypeError, "bev must be a BufferEvent, not 5"),
    (lambda s: untyped.Stream(s.bev, limit="x"), TypeError, "limit must be an integer, not 'x'"),
    (lambda s: untyped.Stream(s.bev, limit=0), ValueError, "limit must be from 1 to "),
    (
        lambda s: untyped.connect("127.0.0.1:80"),
        ValueError,
        "host must have no port in it, not '127.0.0.1:80': give '127.0.0.1', and 80 as port",
    ),
    (lambda s: untyped.connect("[::1]:80", 80), ValueError, "give '::1', and 80 as port"),
    (lambda s: untyped.connect("127.0.0.1"), ValueError, "port must be from 1 to 65535, not 0"),
    (lambda s: untyped.connect("127.0.0.1", "x"), TypeError, "port must be an integer, not 'x'"),
    (lambda s: untyped.connect(5, 80), TypeError, "host must be str or bytes, not 5"),
    (lambda s: untyped.connect(path=5), TypeError, "path must be str, bytes or os.PathLike, not 5"),
    (lambda s: untyped.connect(path="127.0.0.1:80"), ValueError, "looks like a host"),
    (lambda s: untyped.connect(*CLIENT, tls=5), TypeError, "tls must be a TlsContext, a client's"),
    (lambda s: untyped.connect(*CLIENT, dns=5), TypeError, "dns must be a DnsBase, not 5"),
    (lambda s: untyped.connect(*CLIENT, family="x"), ValueError, "family must be AF_UNSPEC, "),
    (lambda s: untyped.connect(*CLIENT, limit="x"), TypeError, "limit must be an integer, not 'x'"),
    (lambda s: untyped.connect(*CLIENT, limit=0), ValueError, "limit must be from 1 to "),
    (lambda s: untyped.listen("127.0.0.1:80"), ValueError, "give '127.0.0.1', and 80 as port"),
    (lambda s: untyped.listen("127.0.0.1", "x"), TypeError, "port must be an integer, not 'x'"),
    (lambda s: untyped.listen(path=5), TypeError, "path must be str, bytes or os.PathLike, not 5"),
    (lambda s: untyped.listen("", 0, tls=5), TypeError, "tls must be a TlsContext, a server's"),
    (lambda s: untyped.listen("", 0, limit="x"), TypeError, "limit must be an integer, not 'x'"),
    (lambda s: untyped.listen("", 0, limit=0), ValueError, "limit must be from 1 to "),
    (lambda s: untyped.wait(5), TypeError, "event must be an Event, not 5"),
    (
        lambda s: untyped.wait(s.event, "x"),
        TypeError,
        "timeout must be a number of seconds, not 'x'",
    ),
    (lambda s: untyped.wait(s.event, -1), ValueError, "timeout must be from 0 to "),
    (lambda s: untyped.getaddrinfo(5, "a", 80), TypeError, "dns must be a DnsBase, not 5"),
    (lambda s: untyped.getaddrinfo(s.dns, 5, 80), TypeError, "host must be str or bytes, not 5"),
    (lambda s: untyped.getaddrinfo(s.dns, "a:80", 80), ValueError, "give 'a', and 80 as port"),
    (lambda s: untyped.request(5, GET, "/"), TypeError, "connection must be an HttpConnection"),
    (
        lambda s: untyped.request(s.connection, "GET", "/"),
        TypeError,
        "command must be of HttpCommand",
    ),
    (lambda s: untyped.request(s.connection, GET, 5), TypeError, "uri must be str or bytes, not 5"),
    (
        lambda s: untyped.request(s.connection, GET, "/", headers="x"),
        TypeError,
        "headers must be a mapping or pairs of name and value, not 'x'",
    ),
    (
        lambda s: untyped.request(s.connection, GET, "/", headers=["x"]),
        TypeError,
        "headers must be pairs of name and value, not 'x'",
    ),
    (
        lambda s: untyped.request(s.connection, GET, "/", body="x"),
        TypeError,
        "body must be bytes or an asynchronous iterable of bytes, not 'x'",
    ),
    (
        lambda s: untyped.request(s.connection, GET, "/", limit="x"),
        TypeError,
        "limit must be an integer, not 'x'",
    ),
    (
        lambda s: untyped.Selector(s.base).select("x"),
        TypeError,
        "timeout must be a number of seconds",
    ),
]


@runs
async def test_an_argument_that_is_wrong_is_named() -> None:
    base = here()
    ours, theirs = BufferEvent.pair(base)
    with (
        DnsBase(base, 0) as dns,
        Event.timer(base, print) as event,
        HttpConnection(base, *CLIENT) as connection,
        BufferEvent(base) as bev,
    ):
        async with aio.Stream(ours) as stream:
            things = Things(stream, bev, dns, event, connection, base)
            for use, error, said in WRONG:
                with pytest.raises(error, match=re.escape(said)):
                    result = use(things)
                    await asyncio.wait_for(result, 5)
            assert bev._kept_by is None  # what has failed has taken nothing
        theirs.close()


#: Each is a Python of its own: `make test` takes a sample.
SAMPLE = ["accept", "drain", "getaddrinfo", "read", "request", "wait"]
SOME = [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.more) for name in SCENES]

#: A scene, in a process of its own: what follows has the loop, its base, and what it waits for.
BEGIN = """
import asyncio, contextlib, gc, os, sys
from libevent_py import *
from libevent_py import aio, debug
from tests.kit.awaited import SCENES

name = sys.argv[1]
base = EventBase()
loop = aio.EventLoop(base)
loop.slow_callback_duration = 60.0  # or it is told of, on a machine that is busy
asyncio.set_event_loop(loop)
own = set(base._ledger)
stack = contextlib.AsyncExitStack()

async def begin():
    scene = await SCENES[name](stack)
    waiting = asyncio.ensure_future(scene.wait())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    return scene, waiting

async def end(waiting):
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stack.aclose()

"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_base_that_is_closed_first_leaves_waits_that_never_end(name: str) -> None:
    """And nothing crashes, whatever is called then."""
    printed = run_python(
        BEGIN
        + """
import logging
logging.getLogger("asyncio").setLevel(100)  # which tells of the task that is destroyed
scene, waiting = loop.run_until_complete(begin())
base.close()
try:
    loop.run_until_complete(end(waiting))
except ClosedError:
    print("closed")
for thing in scene.closes.values():
    thing.close()
loop.close()
del scene, waiting
gc.collect()
""",
        name,
        stderr=None,
    )
    assert printed == "closed\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_what_is_waited_for_is_the_parent_s_in_a_forked_child(name: str) -> None:
    printed = run_python(
        BEGIN
        + """
scene, waiting = loop.run_until_complete(begin())

async def forks():
    child = os.fork()
    if child:
        assert not os.waitpid(child, 0)[1]
        return
    try:
        await scene.wait()
    except (ForkError, RuntimeError) as error:
        print("refused", flush=True)
    os._exit(0)

loop.run_until_complete(forks())
loop.run_until_complete(end(waiting))
loop.close()
assert set(base._ledger) == set(), base._ledger
base.close()
""",
        name,
    )
    assert printed == "refused\n"


@pytest.mark.parametrize("name", SCENES)
@runs
async def test_another_loop_than_that_of_the_base_is_refused(name: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        scene = await SCENES[name](stack)
        told: list[BaseException] = []

        def elsewhere() -> None:
            async def waits() -> None:
                await scene.wait()

            try:
                asyncio.run(asyncio.wait_for(waits(), PATIENCE))
            except (ThreadError, RuntimeError) as error:
                told.append(error)

        await asyncio.to_thread(elsewhere)
        assert len(told) == 1, told
        waiting = await soon(scene.wait())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def test_another_loop_in_the_same_thread_is_refused() -> None:
    with EventBase() as base:
        loop = aio.EventLoop(base)
        stack = contextlib.AsyncExitStack()

        async def begin() -> list[Scene]:
            return [await make(stack) for make in SCENES.values()]

        scenes = loop.run_until_complete(begin())

        async def waits() -> None:
            for name, scene in zip(SCENES, scenes, strict=True):
                with pytest.raises(RuntimeError):
                    await asyncio.wait_for(scene.wait(), 1)
                    raise AssertionError(name)

        asyncio.run(waits())
        loop.run_until_complete(stack.aclose())
        loop.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_what_is_dropped_while_it_is_waited_for_leaves_nothing(name: str) -> None:
    """asyncio keeps no task alive by itself; its event or lookup may, and then it goes on."""
    printed = run_python(
        BEGIN
        + """
import logging
logging.getLogger("asyncio").setLevel(100)  # which tells of the task that is destroyed
async def drops():
    await begin()
    gc.collect()
    await asyncio.sleep(0.02)

loop.run_until_complete(drops())
gc.collect()
loop.run_until_complete(asyncio.sleep(0.01))
loop.run_until_complete(stack.aclose())
del stack
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0.01))
loop.close()
gc.collect()
assert not base._ledger and not base._closings, (base._ledger, base._closings)
base.close()
print("done")
""",
        name,
    )
    assert printed == "done\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_wait_that_gets_no_memory_raises_and_leaves_nothing(name: str) -> None:
    printed = run_python(
        BEGIN
        + """
debug.count_memory()

async def attempt(nth, onwards):
    scene = await SCENES[name](stack)
    await asyncio.sleep(0)
    outcome = None
    waiting = scene.wait()
    with debug.FailingMemory(nth, onwards=onwards) as failing:
        try:
            if not hasattr(waiting, "send"):
                raise TypeError(waiting)
            waiting.send(None)
        except StopIteration:
            outcome = "over"
        except (MemoryError, LibeventError, OSError) as error:
            outcome = "refused"
    waiting.close()
    await stack.aclose()
    await asyncio.sleep(0)
    return bool(failing.refused), outcome

refused = 0
for onwards in False, True:
    nth = 1
    while True:
        failed, outcome = loop.run_until_complete(attempt(nth, onwards))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0.001))
        gc.collect()
        assert set(base._ledger) == own and not base._closings, (nth, base._ledger)
        if not failed:
            break
        refused += outcome == "refused"
        nth += 1
loop.close()
base.close()
print("done", nth > 0)
""",
        name,
        env={"LIBEVENT_PY_COUNT_MEMORY": "1"},
    )
    assert printed == "done True\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride"),
    [
        *((name, 41) for name in ("read", "request", "wait")),
        *(pytest.param(name, 3, marks=pytest.mark.more) for name in SCENES),
    ],
)
def test_an_interrupt_at_any_step_of_a_wait_leaves_nothing(name: str, stride: int) -> None:
    """A sample has some of the steps only."""
    printed = run_python(
        BEGIN
        + """
import logging, warnings
from tests.kit.interposing import Interposer, interrupt
logging.getLogger("asyncio").setLevel(100)
# Python says so where the interrupt comes between making a coroutine and beginning it.
warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

async def waits(scene):
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(scene.wait(), 0.003)

steps = number = 0
while True:
    scene = loop.run_until_complete(SCENES[name](stack))
    interposer = Interposer(interrupt, number, signals=True)
    coroutine = waits(scene)
    try:
        interposer.run(loop.run_until_complete, coroutine)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
        steps += 1
    for _ in range(100):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        # asyncio raises once more what a task has raised; or it has yet to stop the run before.
        with contextlib.suppress(KeyboardInterrupt, RuntimeError):
            loop.run_until_complete(asyncio.sleep(0))
        if not tasks:
            break
    else:  # a task's next step is lost with an interrupted call_soon(), as it is in asyncio's own
        assert interposer.where.endswith("in _call_soon_slowly"), (interposer.where, tasks)
    task = tasks = None
    with contextlib.suppress(RuntimeError):  # it is lost
        coroutine.close()  # it may not have begun
    del coroutine, scene
    loop.run_until_complete(stack.aclose())
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    left = [ref() for key, ref in base._ledger.items() if key not in own]
    assert not left and not base._closings, (interposer.where, left, base._closings)
    if not interrupted:
        break
    number += int(sys.argv[2])
loop.close()
base.close()
print("done", steps > 3)
""",
        name,
        str(stride),
    )
    assert printed == "done True\n"
