"""Each allocation of each operation of every class fails in turn; and what that has found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.memory_sweeps import swept
from tests.kit.operations import OPERATIONS
from tests.kit.support import PATIENCE, ROOT, run_python

#: Each is a Python of its own.
pytestmark = pytest.mark.slow

#: The classes that are tried together take about as long as any other group.
ALONE = ["BufferEvent", "Buffer", "HttpServerRequest", "HttpConnection"]
GROUPS = [*([kind] for kind in ALONE), [kind for kind in OPERATIONS if kind not in ALONE]]


def failed_in_turn(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Run `tests/kit/failing_memory.py` with *arguments*; return what it has printed."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [*command, "-m", "tests.kit.failing_memory", *arguments],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        cwd=ROOT,
        env={**os.environ, "MALLOC_PERTURB_": "165", **(env or {})},
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "depth", [["--sample"], pytest.param([], marks=pytest.mark.more)], ids=["sample", "all"]
)
@pytest.mark.parametrize("kinds", GROUPS, ids=["+".join(group[:2]) for group in GROUPS])
def test_every_operation_fails_by_memory_error_and_leaves_nothing(
    kinds: list[str], depth: list[str]
) -> None:
    """A sample has each operation in one of its scenes only."""
    printed = failed_in_turn(*kinds, *depth)
    for kind in kinds:
        assert f"{kind}: " in printed


@pytest.mark.parametrize(
    ("kinds", "most"),
    [
        (["TlsContext", "HttpConnection"], 1),
        pytest.param(["TlsContext", "BufferEvent", "HttpConnection"], 8, marks=pytest.mark.more),
    ],
)
def test_what_openssl_gets_no_memory_for_fails_and_leaves_nothing(
    kinds: list[str], most: int
) -> None:
    """A sample: OpenSSL asks for memory thousands of times."""
    printed = failed_in_turn(
        *(*kinds, "--source", "OPENSSL", "--sample", "--most", str(most)),
        env={"LIBEVENT_PY_COUNT_MEMORY": "1"},
    )
    assert "TlsContext: " in printed


def test_what_libevent_cannot_do_with_nothing_put_aside_is_still_so() -> None:
    failed_in_turn("--unable")


# What it has found.


def test_reinit_ends_no_process() -> None:
    """event_reinit() calls exit() where it gets no memory for the backend."""
    code = """
        def begin(base):
            return Event.signal(base, 10, print).add()

        def make(base, context):
            base.reinit()
            return context
    """
    assert swept(code, "begin, may_succeed=True") >= 1


def test_reinit_that_could_not_begin_may_be_called_again() -> None:
    printed = run_python(
        """
        import os
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        base = EventBase()
        fired = []
        event = Event.timer(base, lambda *_: fired.append(1)).add(0)
        child = os.fork()
        if not child:
            with debug.FailingMemory(onwards=True, put_aside=False):
                try:
                    base.reinit()
                except MemoryError as error:
                    assert "event_reinit" in str(error)
                else:
                    os._exit(1)
            try:
                event.pending
            except ForkError:
                base.reinit()
                base.dispatch()
            os._exit(0 if fired == [1] else 2)
        assert not os.waitpid(child, 0)[1]
        base.close()
        print("done")
        """
    )
    assert printed == "done\n"


def test_a_loop_for_which_nothing_can_be_put_aside_is_not_begun() -> None:
    """Without that libevent might crash inside it."""
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        with EventBase() as base:
            fired = []
            base.once(lambda fd, what: fired.append(1))
            base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
            base.once(lambda fd, what: fired.append(2))
            with debug.FailingMemory(onwards=True, put_aside=False):
                try:
                    base.dispatch()
                except MemoryError as error:
                    print(error)
            base.dispatch()
            print(fired)
        """
    )
    assert printed == "event_base_loop: Cannot allocate memory\n[1, 2]\n"


def test_a_signal_event_that_gets_no_memory_leaves_no_handler() -> None:
    """evsig_add() leaves its own handler there if it gets no memory for the pipe's event."""
    code = """
        import signal

        def caught():
            for line in open("/proc/self/status"):
                if line.startswith("SigCgt"):
                    return int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1

        def make(base, context):
            event = Event.signal(base, signal.SIGUSR1, print)
            try:
                return event.add()
            except MemoryError:
                assert not caught()
                event.close()
                raise

        def use(base, made, context):
            assert caught()
            made.close()
            assert not caught()
    """
    assert swept(code, "use=use") >= 6


def test_a_file_segment_can_be_added_again() -> None:
    """evbuffer_add_file_segment() takes one of the caller's references if it fails."""
    code = """
        file = tempfile.TemporaryFile()
        file.write(b"x" * 5000)
        file.flush()

        def begin(base):
            bev, peer = (*socket.socketpair(),)
            return BufferEvent(base, bev, 1), FileSegment(file), peer

        def make(base, context):
            bev, segment, peer = context
            try:
                bev.output.add_file_segment(segment)
            except MemoryError:
                bev.output.add_file_segment(segment, 0, 10)
                peer.close()
                raise
            return peer

        def use(base, made, context):
            turns(base, 6)
            assert made.recv(10000) == b"x" * 5000
            made.close()
    """
    assert swept(code, "begin, use, may_succeed=True") >= 3


def test_a_bufferevent_that_could_not_connect_is_not_connected() -> None:
    """bufferevent_socket_connect() connects first, and may then have no memory to wait for it."""
    code = """
        server = socket.create_server(("127.0.0.1", 0))
        address = server.getsockname()

        def make(base, context):
            told = []
            bev = BufferEvent(base, -1, 1, on_event=lambda bev, what: told.append(what))
            try:
                bev.connect(address)
            except MemoryError:
                assert bev.fd < 0
                bev.close()
                raise
            return bev, told

        def use(base, made, context):
            turns(base)
            assert made[1] == [BufferEventFlag.CONNECTED], made
            server.accept()[0].close()
    """
    assert swept(code, "use=use, may_succeed=True") >= 6


@pytest.mark.parametrize("closed", ["connection", "bev", "dns"])
def test_a_lookup_that_is_cancelled_without_memory_is_freed(closed: str) -> None:
    """evdns tells nobody of a cancelled lookup if it gets no memory for that."""
    code = f"""
        def begin(base):
            dns = DnsBase(base, 0)
            dns.nameserver_ip_add("127.0.0.1:9")
            connection = HttpConnection(base, "host.example", 80, dns_base=dns)
            request = HttpRequest(lambda request: None)
            request.output_headers["Host"] = "host.example"
            connection.make_request(request, HttpCommand.GET, "/")
            bev = BufferEvent(base, on_event=lambda bev, what: None)
            bev.connect_hostname(dns, "other.example", 80)
            return dns, connection, bev

        def make(base, context):
            dns, connection, bev = context
            {closed}.close()
            return context
    """
    assert swept(code, "begin, may_succeed=True") >= 1


def test_a_dns_answer_that_gets_no_memory_keeps_its_records() -> None:
    """evdns_server_request_format_response() frees them, and then nothing can be answered."""
    code = """
        from tests.kit.dns_packets import query

        def begin(base):
            asked = []
            server = DnsServer(base, ("127.0.0.1", 0), asked.append)
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect(server.address)
            client.send(query(b"host.example"))
            while not asked:
                base.loop(LoopFlag.ONCE)
            request = asked.pop()
            request.add_a_reply("host.example", "192.0.2.1", 60)
            return server, client, request

        def make(base, context):
            context[2].respond()
            return context

        def use(base, made, context):
            made[1].settimeout(60)
            assert socket.inet_aton("192.0.2.1") in made[1].recv(1000)
            made[1].close()
    """
    assert swept(code, "begin, use, may_succeed=True") >= 3


def test_a_bufferevent_that_is_given_is_used_or_stays_as_it_is() -> None:
    code = """
        def begin(base):
            return BufferEvent(base, -1, 1)

        def make(base, context):
            try:
                return HttpConnection(base, "127.0.0.1", 9, bufferevent=context)
            except MemoryError:
                context.enable(READ)
                raise
    """
    assert swept(code, "begin, may_succeed=True") >= 6
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        with EventBase() as base:
            bev = BufferEvent(base, -1, 1)
            try:
                with debug.FailingMemory(onwards=True, put_aside=False):
                    HttpConnection(base, "127.0.0.1", 9, bufferevent=bev)
            except MemoryError:
                print(bev.closed)
            HttpConnection(base, "127.0.0.1", 9, bufferevent=bev)
        """
    )
    assert printed == "False\n"


def test_a_procedure_is_unregistered_without_memory() -> None:
    """evrpc_unregister_rpc() asserts that it gets memory for a path."""
    code = """
        class Number(Message):
            number = rpc_message.Int(1)

        def begin(base):
            server = RpcServer(HttpServer(base))
            server.register("Add", Number, Number, lambda rpc: rpc.done())
            return server

        def make(base, context):
            context.unregister("Add")
            return context

        def use(base, made, context):
            made.register("Add", Number, Number, lambda rpc: rpc.done())
            made.close()
    """
    assert swept(code, "begin, use, may_succeed=True") >= 2
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug, rpc_message

        class Number(Message):
            number = rpc_message.Int(1)

        debug.count_memory()
        with EventBase() as base:
            server = RpcServer(HttpServer(base))
            server.register("Add", Number, Number, lambda rpc: rpc.done())
            try:
                with debug.FailingMemory(onwards=True, put_aside=False):
                    server.unregister("Add")
            except MemoryError:
                server.unregister("Add")
                print("done")
        """
    )
    assert printed == "done\n"


def test_a_paused_rpc_that_could_not_be_resumed_is_still_paused() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug, rpc_message

        class Number(Message):
            number = rpc_message.Int(1)

        debug.count_memory()
        with EventBase() as base:
            http = HttpServer(base)
            server = RpcServer(http)
            server.register("Add", Number, Number, lambda rpc: rpc.fail())
            pool = RpcPool(base)
            port = http.bind_socket("127.0.0.1", 0).port
            pool.add_connection(HttpConnection(base, "127.0.0.1", port))
            pool.add_hook(RpcHook.OUTPUT, lambda *_: RpcHookResult.PAUSE)
            ended = []
            call = pool.call("Add", Number(number=1), Number, ended.append)
            while not call.paused:
                base.loop(LoopFlag.ONCE)
            try:
                with debug.FailingMemory(onwards=True, put_aside=False):
                    call.resume()
            except MemoryError:
                print(call.paused)
            call.resume()
            while not ended:
                base.loop(LoopFlag.ONCE)
        """
    )
    assert printed == "True\n"


def test_a_bufferevent_that_cannot_be_flushed_for_want_of_memory_is_closed() -> None:
    """What takes over its output would wait for ever."""
    code = """
        def begin(base):
            here, there = socket.socketpair()
            bev = BufferEvent(base, here, 1)
            bev.disable(WRITE)
            bev.write(b"hello")
            return bev, there

        def make(base, context):
            bev, there = context
            try:
                bev.close(flush=True)
            except MemoryError:
                assert bev.closed
                raise
            finally:
                there.close()
            return context
    """
    assert swept(code, "begin, may_succeed=True") >= 1


def test_what_is_logged_without_memory_is_logged_all_the_same() -> None:
    """There is room for eight such messages, which is used again once they are delivered."""
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug, log

        debug.count_memory()
        told = []
        log.set_log_callback(lambda severity, text: told.append(text))
        headers = Headers()
        for _ in range(20):
            with debug.FailingMemory(onwards=True):
                try:
                    headers.add("A", "b")
                except MemoryError:
                    pass
        print(len(told), set(told))
        """
    )
    number, _, text = printed.partition(" ")
    assert int(number) == 20
    assert text == "{'evhttp_add_header_internal: calloc: Cannot allocate memory'}\n"


def test_a_resolver_leaves_memory_functions_as_they_are() -> None:
    """Clearing its servers replaced them, and put the package's own in their place."""
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import ffi, lib

        calls = []
        blocks = set()

        @ffi.callback("void *(size_t)")
        def my_malloc(size):
            calls.append(size)
            block = libc.malloc(size)
            blocks.add(block)
            return block

        @ffi.callback("void *(void *, size_t)")
        def my_realloc(old, size):
            blocks.discard(old)
            block = libc.realloc(old, size)
            blocks.add(block)
            return block

        @ffi.callback("void(void *)")
        def my_free(block):
            blocks.remove(block)
            libc.free(block)

        from cffi import FFI
        other = FFI()
        other.cdef("void *malloc(size_t); void *realloc(void *, size_t); void free(void *);")
        libc = other.dlopen(None)
        lib.event_set_mem_functions(my_malloc, my_realloc, my_free)
        base = EventBase()
        dns = DnsBase(base, 0)
        told = []
        for port in range(1, 5):
            dns.nameserver_sockaddr_add(("127.0.0.1", port))
        for _ in range(5):
            dns.resolve_ipv4("host.example", lambda *answer: told.append(answer))
        base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
        dns.clear_nameservers_and_suspend()
        assert not dns.nameservers
        calls.clear()
        Buffer(b"x").close()
        assert calls
        dns.close()
        base.close()
        assert not blocks, blocks
        calls.clear()
        lib.event_set_mem_functions(ffi.NULL, ffi.NULL, ffi.NULL)
        Buffer(b"x").close()
        print(len(told), calls)
        """
    )
    assert printed == "5 []\n"


@VALGRIND_TAKES_LONG
@pytest.mark.parametrize("made", ["pool", "bufferevent"])
def test_without_memory_what_looks_a_name_up_ends_with_its_lookup(
    made: str, valgrind: bool
) -> None:
    run_python(
        f"""
        import socket
        from libevent_py import (
            BufferEvent, BufferEventOption, DnsBase, EventBase, HttpConnection, RpcPool, debug
        )
        from tests.kit.rpc_messages import REQUEST, Kill

        def begin_pool(base, dns, told):
            pool = RpcPool(base)
            pool.add_connection(HttpConnection(base, "a.test", 80, dns_base=dns))
            pool.call("Message", REQUEST, Kill, told.append)
            return pool

        def begin_bufferevent(base, dns, told):
            bev = BufferEvent(base, options=BufferEventOption(0))
            bev.connect_hostname(dns, "a.test", 80)
            return bev

        debug.count_memory()
        silent = socket.socket(type=socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        for number in range(1, 12):
            told = []
            with EventBase() as base:
                dns = DnsBase(base, 0)
                dns.nameserver_sockaddr_add(silent.getsockname())
                thing = begin_{made}(base, dns, told)
                with debug.FailingMemory(number):
                    try:
                        thing.close()
                    except MemoryError:
                        thing.close()
                dns.close()
        silent.close()
        """,
        valgrind=valgrind,
    )
