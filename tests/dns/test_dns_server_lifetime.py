"""How a DnsServer and its requests end: closed, let go, with their base, in a child."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
import weakref
from collections.abc import Callable

import pytest

from libevent_py import (
    ClosedError,
    DnsResult,
    DnsSection,
    DnsServer,
    DnsServerRequest,
    EventBase,
    EventBaseFlag,
    EventConfig,
    ForkError,
    LoopFlag,
    ThreadError,
)
from tests.kit.dns_packets import NAME, Client, query, read
from tests.kit.dns_uses import EVERYTHING
from tests.kit.interposing import Interposer, interrupt
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import ANYWHERE, is_open, run_until, settle
from tests.kit.processes import in_child
from tests.kit.support import run_python


def refuse(request: DnsServerRequest) -> None:
    request.respond(DnsResult.REFUSED)


def test_a_server_that_nobody_holds_serves_until_its_base_is_closed() -> None:
    with EventBase() as base:
        server = DnsServer(base, ANYWHERE, refuse)
        fd, ref = server.fd, weakref.ref(server)
        with Client(server) as client:
            del server
            gc.collect()
            assert ref() is not None
            assert client.ask(NAME).code == DnsResult.REFUSED
    assert not is_open(fd)
    gc.collect()
    assert ref() is None


def test_closing_twice_or_after_the_base_is_fine() -> None:
    base = EventBase()
    one, other = (DnsServer(base, ANYWHERE, refuse) for _ in range(2))
    for _ in range(2):
        one.close()
        assert one.closed
    base.close()
    assert other.closed
    other.close()
    with pytest.raises(ClosedError, match="DnsServer is closed"):
        other.pointer  # noqa: B018
    with pytest.raises(ClosedError):
        DnsServer(base, ANYWHERE, refuse)
    with pytest.raises(ClosedError), other:
        pass


@pytest.mark.parametrize("with_base", [False, True])
def test_with_the_server_what_is_not_answered_is_dropped(with_base: bool) -> None:
    base = EventBase()
    requests: list[DnsServerRequest] = []
    server = DnsServer(base, ANYWHERE, requests.append)
    fd = server.fd
    with base, server, Client(server) as client:
        for number in range(3):
            client.send(query(NAME, number=number))
        run_until(base, lambda: len(requests) == 3)
        requests[0].respond()
        assert read(client.answer()).number == 0
        (base if with_base else server).close()
        assert not is_open(fd)
        for request in requests[1:]:
            for use in EVERYTHING:
                with pytest.raises(ClosedError, match="DnsServerRequest is closed"):
                    use(request)
            request.close()
        assert not client.ready()


def test_closed_in_its_callback_the_server_answers_no_more(base: EventBase) -> None:
    calls: list[int] = []

    def answer(request: DnsServerRequest) -> None:
        calls.append(1)
        request.server.close()
        assert request.closed and request.server.closed
        with pytest.raises(ClosedError):
            request.respond()
        request.server.close()

    server = DnsServer(base, ANYWHERE, answer)
    fd = server.fd
    with Client(server) as client:
        for number in range(3):  # all are read before it is called for one
            client.send(query(NAME, number=number))
        base.loop(LoopFlag.ONCE)
        settle(base)
        assert calls == [1]
        assert not is_open(fd)
        assert not client.ready()
    assert not base._live and not base._ledger


@pytest.mark.parametrize("flags", [EventBaseFlag(0), EventBaseFlag.NOLOCK])
def test_closed_in_its_callback_the_server_lets_the_loop_end(flags: EventBaseFlag) -> None:
    with EventConfig(flags=flags) as config:
        base = EventBase(config)
    held: list[DnsServerRequest] = []

    def answer(request: DnsServerRequest) -> None:
        held.append(request)
        if len(held) == 2:
            request.server.close()

    with base:
        server = DnsServer(base, ANYWHERE, answer)
        with Client(server) as client:
            client.send(query(NAME))
            client.send(query(NAME))
            base.dispatch()
        assert [request.closed for request in held] == [True, True]


def test_closed_in_the_callback_of_the_last_turn_the_server_goes_with_the_base() -> None:
    with EventBase() as base:

        def answer(request: DnsServerRequest) -> None:
            request.server.close()
            base.loopbreak()

        server = DnsServer(base, ANYWHERE, answer)
        fd = server.fd
        with Client(server) as client:
            client.send(query(NAME))
            base.dispatch()
    assert not is_open(fd)


def test_a_server_can_be_closed_in_the_callback_of_another(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        other.close()
        request.respond()

    other = DnsServer(base, ANYWHERE, refuse)
    fd = other.fd
    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.ask(NAME)
        settle(base)
        assert not is_open(fd)


def test_what_the_callback_raises_after_closing_comes_out(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        request.server.close()
        raise ZeroDivisionError

    server = DnsServer(base, ANYWHERE, answer)
    with Client(server) as client:
        client.send(query(NAME))
        with pytest.raises(ZeroDivisionError):
            base.dispatch()
        settle(base)
        assert not client.ready()


def test_while_the_loop_runs_another_thread_is_refused(base: EventBase) -> None:
    raised: list[BaseException] = []

    def use(request: DnsServerRequest) -> None:
        for call in (*EVERYTHING[:2], *EVERYTHING[6:], lambda request: request.close()):
            try:
                call(request)  # type: ignore[no-untyped-call]
            except ThreadError as error:
                raised.append(error)
        for function in (request.server.close, lambda: DnsServer(base, ANYWHERE, refuse)):
            try:
                function()
            except ThreadError as error:
                raised.append(error)

    def answer(request: DnsServerRequest) -> None:
        thread = threading.Thread(target=use, args=(request,))
        thread.start()
        thread.join()
        refuse(request)

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        assert client.ask(NAME).code == DnsResult.REFUSED
    assert len(raised) == 2 + 6 + 1 + 2


def test_a_request_let_go_in_another_thread_is_answered_in_the_loop_s(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []

    def let_go() -> None:
        requests.clear()

    def answer(request: DnsServerRequest) -> None:
        if not requests and request.questions[0].name == "first":
            requests.append(request)
        else:
            thread = threading.Thread(target=let_go)
            thread.start()
            thread.join()
            request.respond()

    with DnsServer(base, ANYWHERE, answer) as server, Client(server) as client:
        client.send(query(b"first", number=1))
        client.send(query(b"second", number=2))
        replies = {reply.number: reply for reply in (read(client.answer()) for _ in range(2))}
        assert replies[1].code == DnsResult.SERVERFAILED
        assert replies[2].code == DnsResult.NONE


def test_a_forked_child_leaves_the_parent_s_server_alone(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []
    with DnsServer(base, ANYWHERE, requests.append) as server, Client(server) as client:
        client.send(query(NAME))
        run_until(base, lambda: requests)
        (request,) = requests

        def inert() -> None:
            for use in (*EVERYTHING, lambda _: server.pointer, lambda _: server.address):
                with pytest.raises(ForkError):
                    use(request)  # type: ignore[no-untyped-call]
            request.close()
            server.close()
            assert request.closed and server.closed

        in_child(inert)
        request.respond()
        assert read(client.answer()).code == 0


def test_after_reinit_a_forked_child_can_answer(base: EventBase) -> None:
    requests: list[DnsServerRequest] = []
    with DnsServer(base, ANYWHERE, requests.append) as server, Client(server) as client:
        client.send(query(NAME))
        run_until(base, lambda: requests)

        def answer() -> None:
            base.reinit()
            requests.pop().respond(DnsResult.REFUSED)
            client.send(query(NAME, number=2))
            run_until(base, lambda: requests)
            requests.pop().respond(DnsResult.NOTIMPL)
            base.close()

        in_child(answer)
        assert client.ready()
        client.ready()
        assert [read(packet).code for packet in client.received] == [5, 4]


MISUSE = """
import gc, os, socket, sys, weakref
from libevent_py import ClosedError, DnsFlag, DnsServer, EventBase, LoopFlag
from tests.kit.dns_packets import NAME, Client, header, query, question
from tests.kit.peers import settle

NAME = b"www.example.com"
ANYWHERE = ("127.0.0.1", 0)

def serve(answer, packets=3, again=True):
    "Have a server with the callback answer asked several times before it looks."
    base = EventBase()
    base.on_error = lambda error, source: None
    server = DnsServer(base, ANYWHERE, answer)
    with Client(server) as client:
        for number in range(packets):
            client.send(query(NAME, number=number))
        settle(base)
        del server
        if again:
            base.close()
        else:
            del base
            gc.collect()

def close(request):
    request.server.close()

def close_and_raise(request):
    request.server.close()
    1 / 0

def answer_and_close(request):
    request.add_a_reply(NAME, ["192.0.2.1"] * 80, 1)
    request.respond()
    request.server.close()

def answer_twice(request):
    request.respond()
    for use in (request.respond, request.drop, lambda: setattr(request, "flags", 0)):
        try:
            use()
        except ClosedError:
            continue
        raise AssertionError

def drop(request):
    request.drop()
    request.close()

held = []
def hold(request):
    held.append(request)

def hold_and_close_at_the_third(request):
    held.append(request)
    if len(held) == 3:
        request.server.close()

cycles = []
def lose_in_a_cycle(request):
    cycle = [request, request.server]
    cycle.append(cycle)

def fail(request):
    1 / 0

def fork_and_close(request):
    child = os.fork()
    if not child:
        request.server.close()
        request.base.reinit()
        settle_in_child.append(1)
        return
    os.waitpid(child, 0)
    request.respond()

settle_in_child = []
for answer in (close, close_and_raise, answer_and_close, answer_twice, drop, hold,
               hold_and_close_at_the_third, lose_in_a_cycle, fail):
    for again in (True, False):
        serve(answer, again=again)
        held.clear()
        gc.collect()

# Held until after the base.
base = EventBase()
server = DnsServer(base, ANYWHERE, hold)
with Client(server) as client:
    client.send(query(NAME)); settle(base)
base.close()
for use in (held[0].respond, held[0].drop):
    try:
        use()
    except ClosedError:
        continue
    raise AssertionError
held.clear()

# What the network refuses, or doesn't take at once.
for read_some in (True, False):
    base = EventBase()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)
    server = DnsServer(base, ours, hold)
    for _ in range(40):
        try:
            theirs.send(query(NAME))
        except BlockingIOError:
            pass
        settle(base)
        if read_some:
            while held:
                try:
                    held.pop().respond()
                except BlockingIOError:
                    pass
    theirs.close()
    while len(held) > 2:
        held.pop().respond()
    settle(base)
    server.close()
    base.close()
    held.clear()

# Names that end at, or beside, the last byte that libevent has room for.
target = ".".join(["x" * 60] * 4)
def long(request):
    try:
        request.add_reply(0, NAME, 16, 1, 1, bytes(sizes[-1]))
        request.add_cname_reply("n.example", target, 1)
    except ValueError:
        refused.append(sizes[-1])
    request.respond()
refused = []
base = EventBase()
server = DnsServer(base, ANYWHERE, long)
with Client(server) as client:
    sizes = []
    for size in range(1170, 1210):
        sizes.append(size)
        client.send(query(NAME)); client.answer()
    assert 1 < len(refused) < len(sizes)
    # Questions that are that long.
    first = ".".join(["y" * 63] * 3 + ["z" * 50]).encode()
    for count in range(1, 12):
        more = b"\\xc0\\x0c\\0\\1\\0\\1" * (count - 1)
        client.send(header(1, questions=count) + question(first) + more)
    settle(base)
base.close()

# A child that closes it while the parent's callback is below, and goes on.
base = EventBase()
server = DnsServer(base, ANYWHERE, fork_and_close)
with Client(server) as client:
    client.send(query(NAME))
    settle(base)
    if settle_in_child:
        base.close()
        os._exit(0)
base.close()
print("fine")
"""


@VALGRIND_TAKES_LONG
def test_no_misuse_touches_memory_that_is_freed(valgrind: bool) -> None:
    assert run_python(MISUSE, valgrind=valgrind) == "fine\n"


def test_a_port_that_outlives_its_server_calls_nobody() -> None:
    """N2: C keeps it open for as long as it has an unanswered request."""
    printed = run_python(
        """
        import socket
        from libevent_py import DnsServer, EventBase, LoopFlag, lib
        from tests.kit.dns_packets import query

        with EventBase() as base, socket.socket(type=socket.SOCK_DGRAM) as client:
            asked, lost = [], []
            server = DnsServer(base, ("127.0.0.1", 0), asked.append)
            client.connect(server.address)
            client.send(query(b"one.example"))
            base.loop(LoopFlag.ONCE)
            # As after an interrupt at the wrong moment.
            known = server._c
            lost.append(asked[0]._take())
            base._forget(asked[0]._key)
            server.close()
            for _ in range(3):
                client.send(query(b"two.example"))
                base.loop(LoopFlag.ONCE)
            assert len(asked) == 1
            lib.evpy_dns_drop(known, lost[0])
        print("fine")
        """,
        valgrind=True,
    )
    assert printed == "fine\n"


def test_a_request_whose_answer_is_interrupted_is_freed_before_its_base() -> None:
    """The base must know everything that has a pointer."""
    number, told = 0, 0
    while True:
        base = EventBase()
        asked: list[DnsServerRequest] = []
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            server = DnsServer(base, ("127.0.0.1", 0), asked.append)
            client.connect(server.address)
            client.send(query(b"one.example"))
            while not asked:
                base.loop(LoopFlag.ONCE)
            interposer = Interposer(interrupt, number, signals=True)
            try:
                interposer.run(asked[0].respond)
            except KeyboardInterrupt:
                told += 1
            assert asked[0].closed or asked[0]._key in base._ledger
            base.close()
            assert asked[0].closed
        if interposer.where is None:
            break
        number += 1
    assert told > 10


@pytest.mark.parametrize(
    "use",
    [
        lambda request: request.add_a_reply(NAME, ["127.0.0.1", "127.0.0.2"], 60),
        lambda request: request.add_aaaa_reply(NAME, "::1", 60),
        lambda request: request.add_ptr_reply("127.0.0.1", NAME, 60),
        lambda request: request.add_cname_reply(NAME, "other.test", 60),
        lambda request: request.add_reply(DnsSection.ANSWER, NAME, 16, 1, 60, b"text"),
        lambda request: request.add_reply(DnsSection.ANSWER, NAME, 12, 1, 60, NAME, True),
        lambda request: request.address,
        repr,
    ],
)
@pytest.mark.parametrize("in_callback", [False, True])
def test_a_request_that_is_answered_in_the_middle_of_its_method_is_freed_afterwards(
    base: EventBase, use: Callable[[DnsServerRequest], object], in_callback: bool
) -> None:
    """As a signal handler may answer it: the method would give C what is freed."""
    asked: list[DnsServerRequest] = []
    outcomes: list[Exception] = []
    interposer = Interposer(gc.collect, -1)

    def keep(request: DnsServerRequest) -> None:
        asked.append(request)
        if in_callback:
            tried()

    def tried() -> None:
        try:
            interposer.run(use, asked[0])
        except Exception as error:
            outcomes.append(error)

    with DnsServer(base, ANYWHERE, keep) as server, Client(server) as client:
        for number in itertools.count():
            asked.clear()
            interposer = Interposer(lambda: refuse(asked[0]), number)
            client.send(query(NAME, number=number))
            run_until(base, lambda: asked)
            if not in_callback:
                tried()
            if interposer.where is None:
                break
            assert asked[0].closed
            answer = read(client.answer())
            assert (answer.number, answer.code) == (number, DnsResult.REFUSED), interposer.where
        assert number > 5
        assert all(type(error) is ClosedError for error in outcomes), outcomes
        asked[0].drop()
