"""Who keeps HTTP's client alive, what ends it, and what must not end it at once."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from libevent_py import (
    ClosedError,
    EventBase,
    EventBaseFlag,
    EventConfig,
    ForkError,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    ThreadError,
)
from libevent_py._core.dispatch import live
from tests.kit.http_peers import NOTHING, OK, Asked, Server, ask, chunked, client
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import is_open, nobody_listens, run_until, settle
from tests.kit.processes import in_child
from tests.kit.support import PATIENCE, run_python

GET = HttpCommand.GET


def test_a_connection_that_nobody_holds_lives_until_its_requests_have_ended(
    base: EventBase,
) -> None:
    server = Server(base, OK)
    asked = [Asked() for _ in range(3)]
    connection = client(base, server)
    for one in asked:
        one.on(connection)
    ref = weakref.ref(connection)
    del connection
    gc.collect()
    run_until(base, lambda: asked[-1].ended)
    assert [one.body for one in asked] == [b"hello"] * 3
    settle(base)
    assert ref() is None


def test_a_request_that_nobody_holds_is_answered(base: EventBase) -> None:
    codes: list[int] = []
    connection = client(base, Server(base, OK))
    connection.make_request(HttpRequest(lambda r: codes.append(r.response_code)), GET, "/")
    gc.collect()
    run_until(base, lambda: codes)
    assert codes == [200]
    assert not [thing for thing in base._live.values() if isinstance(thing, HttpRequest)]


def test_one_that_waits_to_be_tried_again_lives(base: EventBase) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    connection.retries, connection.initial_retry = 1000, 0.001
    asked = Asked().on(connection)
    run_until(base, lambda: asked.request.connection._queue.tries > 1)  # type: ignore[union-attr]
    del connection
    gc.collect()
    Server(base, OK, port=port)
    run_until(base, lambda: asked.ended)
    assert asked.body == b"hello"


def test_an_idle_connection_goes_with_its_last_reference(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    ask(connection)
    fd = connection.bufferevent.fd
    assert is_open(fd)
    ref = weakref.ref(connection)
    settle(base)
    del connection
    assert ref() is None
    settle(base)
    assert not is_open(fd)


def test_a_bufferevent_that_is_held_keeps_its_connection(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    ask(connection)
    bev = connection.bufferevent
    del connection
    gc.collect()
    assert is_open(bev.fd)


def test_a_request_that_is_dropped_before_it_is_made_is_freed() -> None:
    request = HttpRequest(print)
    request.output_headers["A"] = "b"
    buffer = request.output_buffer
    buffer.add(b"body")
    del request
    gc.collect()
    assert bytes(buffer) == b"body"
    request = HttpRequest(print)
    buffer = request.output_buffer
    with request:
        pass
    with pytest.raises(ClosedError):
        buffer.add(b"more")
    assert request.closed


def test_the_buffers_of_a_request_tell_of_changes_for_as_long_as_it_is(base: EventBase) -> None:
    sizes: list[int] = []
    asked = Asked()
    asked.request.output_buffer.add_cb(lambda buffer, info: sizes.append(info.n_added))
    asked.request.input_buffer.add_cb(lambda buffer, info: sizes.append(info.n_added))
    gc.collect()
    server = Server(base, OK)
    asked.on(client(base, server), command=HttpCommand.POST, body=b"body")
    run_until(base, lambda: len(sizes) == 3)
    assert sizes == [4, 0, 5]  # filled in, sent, and come
    ref = weakref.ref(asked.request.output_buffer)
    settle(base)
    del asked
    gc.collect()
    assert ref() is None


def test_a_closed_base_has_no_connections() -> None:
    base = EventBase()
    base.close()
    with pytest.raises(ClosedError):
        HttpConnection(base, "127.0.0.1", 80)


def test_closing_the_base_tells_every_request(base: EventBase) -> None:
    with EventBase() as other:
        server = Server(other, NOTHING)
        connection = client(other, server)
        one, two = Asked().on(connection), Asked().on(connection)
        run_until(other, lambda: server.requests)
        refused = HttpConnection(other, *nobody_listens())
        refused.retries = None
        three = Asked().on(refused)
        run_until(other, lambda: refused._queue.timer is not None)
        four = Asked().on(client(other, server))  # which has not connected yet
    for asked in one, two, three, four:
        assert asked.ended == 1
        assert "was closed" in str(asked.error)
        assert asked.error.code is None
    assert connection.closed
    with pytest.raises(ClosedError):
        connection.make_request(HttpRequest(print), GET, "/")
    with pytest.raises(ClosedError):
        connection.peer  # noqa: B018


def test_a_callback_that_is_told_of_the_end_can_not_go_on_with_it() -> None:
    base = EventBase()
    connection = client(base, Server(base, NOTHING))
    asked = Asked()
    asked.then = lambda request: connection.make_request(HttpRequest(print), GET, "/")
    asked.on(connection)
    with pytest.raises(ClosedError):
        base.close()
    assert base.closed
    assert asked.ended == 1


def test_a_base_that_is_dropped_with_all_on_it_is_collected() -> None:
    base = EventBase()
    server = Server(base, NOTHING)
    asked = Asked().on(client(base, server))
    asked.then = lambda request, base=base: None  # type: ignore[misc]
    requests = server.requests
    run_until(base, lambda: requests)
    ref = weakref.ref(base)
    del base, server, asked
    gc.collect()
    assert ref() is None
    assert live.bases == ()


def test_a_closed_connection_says_so_and_closes_once(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    ask(connection)
    with connection:
        pass
    connection.close()
    for use in (
        lambda: connection.peer,
        lambda: connection.address,
        lambda: connection.bufferevent,
        lambda: setattr(connection, "timeout", 1),
        lambda: setattr(connection, "retries", 1),
        connection.free_on_completion,
    ):
        with pytest.raises(ClosedError):
            use()


def test_another_thread_is_refused_while_the_loop_runs(base: EventBase) -> None:
    connection = client(base, Server(base, NOTHING))
    asked = Asked().on(connection)
    raised: list[type[BaseException]] = []

    def use() -> None:
        for function in (
            lambda: connection.make_request(HttpRequest(print), GET, "/"),
            asked.request.cancel,
            asked.request.close,
            connection.close,
            lambda: asked.request.input_buffer,
            lambda: setattr(connection, "timeout", 1),
        ):
            try:
                function()
            except BaseException as error:
                raised.append(type(error))
        base.loopexit()

    thread = threading.Thread(target=use)
    base.once(lambda fd, what: thread.start())
    base.dispatch()
    thread.join(PATIENCE)
    assert raised == [ThreadError] * 6
    assert not asked.ended


def test_a_connection_dropped_by_another_thread_is_freed_by_the_loop(base: EventBase) -> None:
    connection = [client(base, Server(base, OK))]
    ask(connection[0])
    fd = connection[0].bufferevent.fd
    gc.collect()

    def drop() -> None:
        connection.clear()
        base.defer(lambda: base.loopexit(0.05))

    thread = threading.Thread(target=drop)
    base.once(lambda fd, what: thread.start())
    base.dispatch()
    thread.join(PATIENCE)
    assert not is_open(fd)


def test_a_base_without_locks_frees_what_is_closed_in_a_callback() -> None:
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as base:
        connection = client(base, Server(base, OK))
        fds: list[int] = []

        def close(request: HttpRequest) -> None:
            fds.append(connection.bufferevent.fd)
            connection.close()

        asked = Asked()
        asked.then = close
        asked.on(connection)
        open_then: list[bool] = []
        base.once(lambda fd, what: open_then.append(is_open(fds[0])), timeout=0.2)
        base.loopexit(0.3)
        base.dispatch()
        assert open_then == [False]


def test_a_base_is_collected_though_a_request_has_met_its_end_in_a_callback() -> None:
    with EventBase() as base:
        asked = Asked(on_chunk=lambda request: base.loopbreak())
        connection = client(base, Server(base, chunked(b"one", b"two")))
        asked.on(connection)
        base.dispatch()
        connection.close()
        assert asked.ended == 1


# A forked child.


def test_a_child_leaves_the_parents_requests_alone(base: EventBase) -> None:
    server = Server(base, NOTHING, OK)
    connection = client(base, server)
    asked, waits = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: server.requests)
    bev = connection.bufferevent

    def child() -> None:
        for use in (
            lambda: connection.make_request(HttpRequest(print), GET, "/"),
            asked.request.cancel,
            waits.request.cancel,
            lambda: connection.peer,
            lambda: bev.fd,
        ):
            with pytest.raises(ForkError):
                use()
        connection.close()
        base.close()
        assert not asked.ended
        assert not waits.ended

    in_child(child)
    server.connections[0].write(OK)
    run_until(base, lambda: waits.ended)
    assert (asked.body, waits.body) == (b"hello", b"hello")
    assert bev.fd >= 0


def test_a_child_that_reinits_makes_requests_of_its_own(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    ask(connection)

    def child() -> None:
        base.reinit()
        connection.close()
        assert ask(client(base, server)).body == b"hello"

    in_child(child)
    assert ask(connection).body == b"hello"


@pytest.mark.parametrize("where", ["on_header", "on_chunk", "callback"])
def test_a_child_that_comes_back_from_a_callback_ends_the_loop(base: EventBase, where: str) -> None:
    pids: list[int] = []

    def fork(request: HttpRequest) -> None:
        if not pids:
            pids.append(os.fork())

    server = Server(base, chunked(b"one", b"two"))
    asked = Asked(**({where: fork} if where != "callback" else {}))
    if where == "callback":
        asked.then = fork
    asked.on(client(base, server))
    status = 1
    try:
        run_until(base, lambda: asked.ended)
    except ForkError:
        status = 0
    finally:
        if pids and pids[0] == 0:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0


# What could crash.

PEERS = """
    import gc
    from libevent_py import *
    from tests.kit.http_peers import *
    from tests.kit.peers import nobody_listens, run_until, settle
"""


@VALGRIND_TAKES_LONG
def test_ending_everything_everywhere_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(
        PEERS
        + """
    def acts():
        yield "close", lambda connection, request: connection.close()
        yield "cancel", lambda connection, request: request.cancel()
        yield "end", lambda connection, request: request.close()
        yield "base", lambda connection, request: connection.base.loopbreak()
        yield "more", lambda connection, request: Asked().on(connection)

    for name, act in acts():
        for where in "on_header", "on_chunk", "on_error", "then", "on_close":
            for held in True, False:
                base = EventBase()
                closing = then_close(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nbody")
                first = closing if where in ("then", "on_close") else chunked(b"a", b"b")
                server = Server(base, first, OK)
                connection = client(base, server)
                done = []

                def do(*arguments, connection=connection):
                    if not done:
                        done.append(1)
                        act(connection, asked.request)

                given = {where: do} if where in ("on_header", "on_chunk", "on_error") else {}
                if where == "on_error":
                    given["on_header"] = lambda request: False
                asked = Asked(**given)
                if where == "then":
                    asked.then = do
                if where == "on_close":
                    connection.on_close = do
                asked.on(connection)
                behind = Asked().on(connection)
                if not held:
                    del connection
                for _ in range(3):
                    base.loopexit(0.02)
                    base.loop()
                request = asked.request
                if not request.closed:
                    bytes(request.input_buffer), request.input_headers.items(), request.uri
                del do, given, server, behind, asked
                if held:
                    base.close()
                else:
                    del base
                    gc.collect()
    """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_failing_to_connect_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(
        PEERS
        + """
    def made(**settings):
        connection = HttpConnection(base, *nobody_listens())
        for name, value in settings.items():
            setattr(connection, name, value)
        return connection

    base = EventBase()
    for act in (lambda c, a: c.close(), lambda c, a: a.request.close(), lambda c, a: Asked().on(c)):
        for settings in {}, {"retries": 1, "initial_retry": 0.001}:
            connection = made(**settings)
            asked, behind = Asked(), Asked()
            asked.then = lambda request: act(connection, behind)
            asked.on(connection)
            behind.on(connection)
            run_until(base, lambda: asked.ended and behind.ended)
            settle(base)
    # Names that are not found, told of before make_request() returns.
    for act in (lambda c, a: c.close(), lambda c, a: a.request.close(), lambda c, a: a.on(c)):
        connection = HttpConnection(base, "no.such.name.invalid", 80)
        asked, behind = Asked(), Asked()
        asked.then = lambda request: act(connection, behind)
        asked.on(connection)
        del asked, behind, connection
        gc.collect()
    # Cancelled while it connects, or waits to.
    for moment in range(3):
        connection = made(retries=None, initial_retry=0.001)
        asked, behind = Asked().on(connection), Asked().on(connection)
        if moment:
            run_until(base, lambda: connection._queue.tries >= moment)
        asked.request.cancel()
        settle(base)
        behind.request.cancel()
        settle(base)
        assert asked.ended == behind.ended == 1
    # A local port that is taken.
    server = Server(base, OK)
    connection = client(base, server)
    connection.local_port = server.port
    for _ in range(3):
        assert ask(connection).error is not None
    # Dropped while it connects; and a response that is all that is left.
    Asked().on(made(retries=5))
    asked = ask(client(base, server))
    gc.collect()
    base.close()
    assert bytes(asked.request.input_buffer) == b"hello"
    # More in one go than Python would let call itself.
    base = EventBase()
    connection = HttpConnection(base, "no.such.name.invalid", 80)
    for number in range(20):
        asked = Asked()
        asked.then = lambda request: Asked().on(connection) if number < 3 else None
        asked.on(connection)
    base.close()
    """,
        valgrind=valgrind,
    )


WALK = """
    import gc, random, sys
    from libevent_py import *
    from tests.kit.http_peers import *
    from tests.kit.peers import nobody_listens, settle

    def walk(seed, steps):
        chance = random.Random(seed)
        base = EventBase()
        answers = [OK, None, NOTHING, chunked(b"a", b"b"), b"?\\r\\n"]
        answers += [b"HTTP/1.1 200 OK\\r\\n\\r\\n"]
        answers += [then_close(response(b"end", "Connection: close")), then_close(OK[:-2])]
        server = Server(base, NOTHING)
        connections, asked = [], []

        def connect():
            port = chance.choice([server.port, server.port, nobody_listens()[1]])
            connection = HttpConnection(base, "127.0.0.1", port)
            connection.timeout = chance.choice([None, 0.01])
            connection.retries, connection.initial_retry = chance.choice([0, 2]), 0.001
            if chance.random() < 0.2:
                connection.free_on_completion()
            if chance.random() < 0.5:
                connection.on_close = act
            connections.append(connection)

        def act(*arguments):
            if base.closed:
                return True
            roll = chance.random()
            server.answers = [chance.choice(answers)]
            if not connections or roll < 0.05:
                connect()
            elif roll < 0.4 and len(asked) < steps:
                connection = chance.choice(connections)
                wanted = [n for n in ("on_header", "on_chunk", "on_error") if chance.random() < 0.3]
                one = Asked(**dict.fromkeys(wanted, lambda *_: act() or chance.random() < 0.9))
                one.then = act
                if not connection.closed:
                    asked.append(one.on(connection))
            elif roll < 0.5 and asked:
                chance.choice(asked).request.cancel()
            elif roll < 0.55 and asked:
                chance.choice(asked).request.close()
            elif roll < 0.6:
                chance.choice(connections).close()
            elif roll < 0.65:
                connections.remove(chance.choice(connections))
            elif roll < 0.7 and server.connections:
                chance.choice(server.connections).close()
            return True

        for _ in range(steps):
            act()
            if chance.random() < 0.5:
                base.loop(LoopFlag.NONBLOCK)
        base.loopexit(0.02)
        base.loop()
        base.close()
        ended = [one.ended for one in asked]
        assert set(ended) <= {1}, (seed, ended)
        return len(asked)

    total = sum(walk(seed, int(sys.argv[2])) for seed in range(int(sys.argv[1])))
    gc.collect()
    print(total)
"""


@pytest.mark.parametrize(("walks", "steps", "valgrind"), [(150, 120, False), (12, 60, True)])
def test_whatever_is_done_in_whatever_order_each_request_ends_once(
    walks: int, steps: int, valgrind: bool
) -> None:
    assert int(run_python(WALK, str(walks), str(steps), valgrind=valgrind)) > walks * 10
