"""HTTP that is paused, limited or in parts: little memory is held, and none used that is freed."""

from __future__ import annotations

import pytest

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python

# Memory.

RELAY = """
    import re, socket, sys, threading, time
    from libevent_py import (
        EventBase, HttpCommand, HttpConnection, HttpRequest, HttpServer, LoopFlag,
    )

    SIZE, WHAT, FRAMING = 100 * 2**20, *sys.argv[1:]

    def memory(name="VmHWM"):
        with open("/proc/self/status") as status:
            return int(re.search(name + r":\\s*(\\d+) kB", status.read())[1]) * 1024

    def framed(sock, head):
        if FRAMING == "length":
            sock.sendall(head + b"Content-Length: %d\\r\\n\\r\\n" % SIZE)
        else:
            sock.sendall(head + b"Transfer-Encoding: chunked\\r\\n\\r\\n")
            if FRAMING == "one-chunk":
                sock.sendall(b"%x\\r\\n" % SIZE)
        part = bytes(2**16)
        for _ in range(SIZE // 2**16):
            sock.sendall(b"10000\\r\\n" + part + b"\\r\\n" if FRAMING == "chunks" else part)

    def upstream(listening):  # one that reads nothing, or one that sends all
        sock, _ = listening.accept()
        if WHAT == "upload":
            time.sleep(600)
        sock.recv(9999)
        framed(sock, b"HTTP/1.1 200 OK\\r\\n")

    def client(where):
        sock = socket.create_connection(where)
        if WHAT == "upload":
            framed(sock, b"POST / HTTP/1.1\\r\\nHost: a\\r\\n")
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        time.sleep(600)

    listening = socket.create_server(("127.0.0.1", 0))
    with EventBase() as base:
        server = HttpServer(base)
        where = server.bind_socket("127.0.0.1", 0).address
        connection = HttpConnection(base, *listening.getsockname())
        passed = 0

        def relay(request):
            def count(other):
                global passed
                passed += len(other.input_buffer)

            def up(request):
                count(request)
                asked.send_request_chunk(request.input_buffer)
                request.connection.pause()

            def down(asked):
                count(asked)
                request.send_reply_chunk(asked.input_buffer, lambda request: connection.resume())
                connection.pause()

            uploads = WHAT == "upload"
            asked = HttpRequest(
                lambda asked: None,
                on_header=lambda asked: request.send_reply_start(200),
                on_chunk=down,
                on_write=(lambda asked: request.connection.resume()) if uploads else None,
            )
            asked.output_headers["Host"] = "a"
            if uploads:
                request.on_chunk = up
            command = HttpCommand.POST if uploads else HttpCommand.GET
            connection.make_request(asked, command, "/")

        held = []
        if WHAT == "upload":
            server.on_headers = relay
        server.set_gencb(lambda request: (held.append(request), relay(request)))

        for function, argument in (upstream, listening), (client, where):
            threading.Thread(target=function, args=(argument,), daemon=True).start()
        before, last, since = memory(), -1, time.monotonic()
        until = since + 50
        while time.monotonic() < min(until, since + 1):  # until nothing has gone on for so long
            base.loop(LoopFlag.NONBLOCK)
            if passed != last:
                last, since = passed, time.monotonic()
            time.sleep(0.0005)
        assert 0 < passed < SIZE / 2, passed
        print(memory() - before, passed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunks", "one-chunk"])
@pytest.mark.parametrize("what", ["download", "upload"])
def test_a_relay_to_who_reads_nothing_holds_little_memory(what: str, framing: str) -> None:
    grown, passed = map(int, run_python(RELAY, what, framing, stderr=None).split())
    assert grown < 4 * 2**20, f"{grown} bytes for {passed} that were relayed"


@VALGRIND_TAKES_LONG
def test_what_is_paused_limited_and_in_parts_touches_no_freed_memory(valgrind: bool) -> None:
    code = """
        import gc, socket, time
        from libevent_py import (
            EventBase, HttpCommand, HttpConnection, HttpRequest, HttpServer, LoopFlag, RateLimit,
            RateLimitGroup,
        )

        def everything(base, server, connection, request, upload):
            incoming = list(server._connections.known.values())
            return {
                "pause": lambda: (connection.pause(), [one.pause() for one in incoming]),
                "cancel": lambda: upload.cancel(),
                "connection": connection.close,
                "incoming": lambda: [one.close() for one in incoming],
                "server": server.close,
                "request": lambda: request and request.close(),
                "nothing": lambda: None,
            }

        def run(where, name):
            with EventBase() as base:
                server = HttpServer(base)
                port = server.bind_socket("127.0.0.1", 0).port
                group = RateLimitGroup(base, RateLimit(10**6))
                server.rate_limit_group, server.rate_limit = group, RateLimit(10**6)
                connection = HttpConnection(base, "127.0.0.1", port)
                connection.rate_limit_group, connection.rate_limit = group, RateLimit(10**6)
                done, acted = [], []

                def act(at, request=None):
                    if at == where and not acted:
                        acted.append(at)
                        everything(base, server, connection, request, upload)[name]()

                def on_headers(request):
                    request.on_chunk = lambda request: act("on_chunk", request)
                    request.on_end = lambda request: act("on_end")
                    act("on_headers", request)

                def handler(request):
                    act("handler", request)
                    if not request.closed:
                        request.send_reply(200, "OK", bytes(9999))

                def on_write(upload):
                    act("on_write")
                    if sent[0] < 3 and upload.connection and upload._open:
                        sent[0] += 1
                        upload.send_request_chunk(bytes(70000))
                    elif upload.connection and upload._open:
                        upload.send_request_end()

                sent = [0]
                server.on_headers = on_headers
                server.set_gencb(handler)
                upload = HttpRequest(
                    lambda upload: (done.append(1), act("done")),
                    on_write=on_write,
                    on_header=lambda upload: act("on_header"),
                    on_chunk=lambda upload: act("part"),
                )
                upload.output_headers["Host"] = "a"
                connection.make_request(upload, HttpCommand.POST, "/")
                until = time.monotonic() + (0.2 if name == "pause" else 30)
                while not done and time.monotonic() < until:
                    base.loop(LoopFlag.NONBLOCK)
                for _ in range(3):
                    base.loop(LoopFlag.NONBLOCK)
                assert acted or where == "loop", where

        for where in ("on_headers", "on_chunk", "on_end", "handler", "on_write", "done",
                      "on_header", "part"):
            for name in ("pause", "cancel", "connection", "incoming", "server", "request",
                         "nothing"):
                run(where, name)
        gc.collect()
        print("done")
    """
    assert run_python(code, valgrind=valgrind) == "done\n"


def test_everything_dropped_while_it_is_paused_and_limited_is_collected() -> None:
    code = """
        import gc, socket, time
        from libevent_py import (
            EventBase, HttpCommand, HttpConnection, HttpRequest, HttpServer, LoopFlag, RateLimit,
            RateLimitGroup, lib,
        )

        def run(uploads):
            base = EventBase()
            server = HttpServer(base)
            group = RateLimitGroup(base, RateLimit(10**6))
            server.rate_limit, server.rate_limit_group = RateLimit(10**6), group
            seen = []
            def on_headers(request):
                seen.append(request)
                request.on_chunk = lambda request: request.connection.pause()
                request.on_end = print
            server.on_headers = on_headers
            server.set_gencb(seen.append)
            where = server.bind_socket("127.0.0.1", 0).address
            connection = HttpConnection(base, *where)
            connection.rate_limit, connection.rate_limit_group = RateLimit(10**6), group
            connection.pause()
            request = HttpRequest(print, on_write=(lambda request: None) if uploads else None)
            connection.make_request(request, HttpCommand.POST, "/")
            if uploads:
                request.send_request_chunk(bytes(100_000))
            until = time.monotonic() + 60
            while not seen and time.monotonic() < until:
                base.loop(LoopFlag.NONBLOCK)
            for _ in range(5):
                base.loop(LoopFlag.NONBLOCK)

        for uploads in (False, True):
            for _ in range(3):
                run(uploads)
                gc.collect()
        print("done")
    """
    assert run_python(code, valgrind=True) == "done\n"


ALONE = """
    import gc, socket, sys, time
    from libevent_py import (
        BufferEvent, EventBase, HttpConnection, HttpRequest, HttpCommand, HttpServer, LoopFlag,
        RateLimit, RateLimitGroup,
    )

    NOUN, END, WHERE = sys.argv[1:]
    base = EventBase()

    def group():
        return RateLimitGroup(base, RateLimit(10**6))

    def made():
        if NOUN == "BufferEvent":
            here, there = socket.socketpair()
            kept.append(there)
            bev = BufferEvent(base, here)
            bev.enable(2)
            bev.add_to_rate_limit_group(group())
            return bev
        if NOUN == "HttpConnection":
            connection = HttpConnection(base, "127.0.0.1", 1)
            connection.rate_limit_group = group()
            return connection
        server, held = HttpServer(base), []
        kept.append(server)
        if NOUN == "HttpServer":
            server.rate_limit_group = group()
        server.set_gencb(held.append)
        kept.append(socket.create_connection(server.bind_socket("127.0.0.1", 0).address))
        kept[-1].sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        until = time.monotonic() + 60
        while not held and time.monotonic() < until:
            base.loop(LoopFlag.NONBLOCK)
        connection = held[0].connection
        if NOUN == "HttpServer":
            assert connection.rate_limit_group is server.rate_limit_group
            server.rate_limit_group = None
            return connection
        connection.rate_limit_group = group()
        return connection

    kept = []
    thing = made()
    bev = getattr(thing, "bufferevent", None) if END == "close with its bufferevent held" else None

    def end():
        global thing
        if END == "drop":
            del thing
            gc.collect()
        elif END == "close the base":
            pass
        else:
            thing.close()

    if WHERE == "in the loop":
        base.defer(end)
        base.loop(LoopFlag.NONBLOCK)
    else:
        end()
    for each in kept:
        each.close()
    base.close()
    print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the loop", "outside"])
@pytest.mark.parametrize(
    "end", ["close", "close with its bufferevent held", "drop", "close the base"]
)
@pytest.mark.parametrize(
    "noun", ["BufferEvent", "HttpConnection", "HttpServerConnection", "HttpServer"]
)
def test_a_group_that_only_its_member_keeps_goes_after_it(noun: str, end: str, where: str) -> None:
    assert run_python(ALONE, noun, end, where) == "done\n"
