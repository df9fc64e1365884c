"""Failing memory: each maker raises MemoryError, leaves nothing behind, and the loop goes on."""

from __future__ import annotations

import pytest

from tests.kit.certificates import Authority
from tests.kit.memory_sweeps import COUNTED, looped, swept
from tests.kit.support import run_python

#: Each is a sweep, in a Python of its own.
pytestmark = pytest.mark.slow

# Makers: the code of make(), and the fewest allocations that it is known to ask for.

PAIR = """
    def make(base, context):
        return BufferEvent.pair(base, {options})

    def use(base, made, context):
        one, other = made
        got = []
        other.setcb(lambda bev: got.append(bev.read()), None, None)
        other.enable(READ)
        one.write(b"hello")
        turns(base)
        assert got == [b"hello"], got
"""


@pytest.mark.parametrize("options", ["0", "BufferEventOption.THREADSAFE"])
def test_a_pair_that_gets_no_memory_is_not_made(options: str) -> None:
    """libevent itself frees a half that it has not finished, and the loop crashes on it."""
    assert swept(PAIR.format(options=options), "use=use") >= 9


def test_valgrind_finds_nothing_in_a_pair_that_gets_no_memory() -> None:
    assert swept(PAIR.format(options="0"), "use=use", valgrind=True) >= 9


SIMPLE = {
    "an event base": ("EventBase(priorities=3).close()", 11),
    "an event base without locks": (
        "EventBase(EventConfig(flags=EventBaseFlag.NOLOCK)).close()",
        8,
    ),
    "a configuration": ('EventConfig(avoid=["select", "poll"])', 5),
    "an event": ("Event(base, 0, READ, print)", 1),
    "a timer": ("Event.timer(base, print).add(100)", 2),
    "a signal event": ("Event.signal(base, 10, print).add()", 5),
    "a user event": ("Event.user(base, print)", 1),
    "a one-shot timer": ("base.once(print, timeout=100)", 2),
    "a common timeout": ("base.init_common_timeout(1.5)", 2),
    "an exit to come": ("base.loopexit(100)", 1),
    "a finalizer": ("Event.timer(base, print).close(finalize=lambda event: None)", 1),
    "a buffer": ('Buffer(b"x" * 5000)', 3),
    "what a buffer shows": ('Buffer(b"x" * 5000).peek()', 8),
    "a reference": ('Buffer().add_reference(b"x" * 100000)', 4),
    "a buffer's reference": ('Buffer().add_buffer_reference(Buffer(b"abc"))', 8),
    "a buffer's callback": ("(lambda buffer: (buffer.add_cb(print), buffer)[1])(Buffer())", 3),
    "a rate limit group": ("RateLimitGroup(base, RateLimit(1000, 1000))", 4),
    "an HTTP server": ("HttpServer(base)", 1),
    "an HTTP connection": ('HttpConnection(base, "127.0.0.1", 9)', 6),
    "an HTTP request": ("HttpRequest(print)", 5),
    "headers": ('Headers([("A", "b"), ("C", "d" * 5000)])', 7),
    "a header that is set": ('Headers([("A", "b")]).__setitem__("A", "c")', 6),
    "a query": ('parse_query("a=b&c=d%20e")', 4),
    "a URI": ('str(Uri.parse("http://u@h.example:80/p?q#f"))', 11),
    "a URI's copy": ('Uri.parse("http://u@h.example:80/p?q#f").copy()', 15),
    "encoded text": ('(uriencode("a b"), encode_uri("a b"), htmlescape("<a>"))', 6),
    "decoded text": ('(uridecode("a%20b"), decode_uri("a%20"))', 2),
    "a resolver": ("DnsBase(base, 0)", 3),
    "a resolver as the system has it": ("DnsBase(base)", 5),
    "an RPC server": ("RpcServer(HttpServer(base))", 4),
    "an RPC pool": ("RpcPool(base)", 3),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_what_gets_no_memory_is_not_made(name: str) -> None:
    expression, least = SIMPLE[name]
    code = f"""
        def make(base, context):
            return {expression}
    """
    assert swept(code) >= least


SOCKET = """
    def begin(base):
        return socket.socketpair()

    def make(base, context):
        return BufferEvent(base, context[0], {options}, on_read=lambda bev: bev.write(bev.read()))

    def use(base, made, context):
        made.enable(READ)
        context[1].sendall(b"hello")
        turns(base)
        context[1].setblocking(False)
        assert context[1].recv(10) == b"hello"
        made.close()
        context[1].close()
"""


@pytest.mark.parametrize(
    "options",
    [
        "1",
        "BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE",
        "BufferEventOption.CLOSE_ON_FREE | BufferEventOption.EAGER",
    ],
)
def test_a_bufferevent_that_gets_no_memory_is_not_made(options: str) -> None:
    """libevent itself makes one that never writes."""
    assert swept(SOCKET.format(options=options), "begin, use") >= 5


@pytest.mark.parametrize("options", ["1", "BufferEventOption.EAGER | 1"])
def test_the_socket_stays_open_where_its_bufferevent_gets_no_memory(options: str) -> None:
    code = SOCKET.format(options=options).replace("def make(", "def made(")
    code += """
    def make(base, context):
        try:
            return made(base, context)
        except MemoryError:
            sockets.append(context)
            raise

    sockets = []

    def still_open(base, *_):
        while sockets:
            for end in sockets.pop():
                end.getpeername()
                end.close()

    check = check_the_loop
    check_the_loop = lambda base: (turns(base), still_open(base), check(base))
    """
    assert swept(code, "begin, use") >= 5


FILTER = """
    def begin(base):
        left, right = socket.socketpair()
        echo = lambda bev: bev.write(bev.read())
        return BufferEvent(base, left, on_read=echo), right

    def pass_on(source, destination, limit, mode):
        destination.add(source.remove())
        return FilterResult.OK

    def make(base, context):
        return BufferEvent.filter(context[0], pass_on, pass_on)

    def use(base, made, context):
        bev, peer = made or context[0], context[1]
        bev.on_read = lambda bev: bev.write(bev.read())
        bev.enable(READ)
        peer.sendall(b"hello")
        turns(base, 6)
        peer.setblocking(False)
        assert peer.recv(10) == b"hello"
        bev.close()
        peer.close()
"""


def test_a_filter_that_gets_no_memory_is_not_made() -> None:
    """libevent itself reads what it has not got (bufferevent_filter_new)."""
    assert swept(FILTER, "begin, use") >= 6


def test_what_a_filter_was_to_stand_on_goes_on_by_itself() -> None:
    code = FILTER.replace("def make(", "def made(")
    code += """
    def make(base, context):
        global failed
        try:
            return made(base, context)
        except MemoryError:
            failed = context
            raise

    failed = None
    check = check_the_loop

    def check_the_loop(base):
        global failed
        check(base)
        if failed is not None:
            assert failed[0].enabled == WRITE
            use(base, None, failed)
            failed = None
    """
    assert swept(code, "begin, use") >= 6


def test_a_file_segment_that_gets_no_memory_is_not_made() -> None:
    code = """
        file = tempfile.TemporaryFile()
        file.write(b"x" * 5000)
        file.flush()

        def make(base, context):
            buffer, segment = Buffer(), FileSegment(file)
            buffer.add_file_segment(segment)
            return buffer

        def use(base, made, context):
            assert bytes(made) == b"x" * 5000
    """
    assert swept(code, "use=use") >= 12


def test_an_rpc_that_gets_no_memory_is_not_registered() -> None:
    code = """
        class Number(Message):
            number = rpc_message.Int(1)

        def begin(base):
            return RpcServer(HttpServer(base))

        def make(base, context):
            context.register("Add", Number, Number, lambda rpc: rpc.done())
            return context
    """
    assert swept(code, "begin") >= 7


def test_a_lookup_that_gets_no_memory_is_not_begun() -> None:
    """evdns itself begins it without its timeout."""
    for lookup in (
        'resolve_ipv4("host.example", told)',
        'resolve_ipv6("host.example", told)',
        'resolve_reverse("192.0.2.1", told)',
        'getaddrinfo("host.example", "80", told)',
    ):
        code = f"""
            def begin(base):
                dns = DnsBase(base, 0)
                dns.nameserver_sockaddr_add(("127.0.0.1", 9))
                return dns

            def told(*answer):
                raise AssertionError("somebody is told of what has not begun")

            def make(base, context):
                return context.{lookup}

            def use(base, made, context):
                made.callback = lambda *answer: None
        """
        assert swept(code, "begin, use") >= 3


def test_tagged_items_are_whole_or_there_is_none() -> None:
    """libevent itself writes an item's header without its payload, and the other way round."""
    code = """
        def begin(base):
            buffer = Buffer()
            tag.marshal_int(buffer, 1, 5)
            return buffer

        def make(base, context):
            before = bytes(context)
            try:
                tag.marshal(context, 2, b"x" * 1000)
                tag.marshal_string(context, 3, "y" * 5000)
            except MemoryError:
                assert bytes(context)[len(before):][:1] in (b"", b"2"), bytes(context)
                raise
            assert tag.unmarshal_int(context, 1) == 5
            return context

        def use(base, made, context):
            assert tag.unmarshal(made) == (2, b"x" * 1000)
            assert tag.unmarshal_string(made, 3) == "y" * 5000
    """
    code = code.replace('(b"", b"2")', '(b"", b"\\x02")')
    assert swept(code, "begin, use") >= 6


# What is asked of them: it fails as well, or is done with memory that was put aside.

OPERATIONS = {
    "enable": "bev.enable(READ)",
    "write": 'bev.write(b"x" * 100)',
    "set_timeouts": "(bev.set_timeouts(100, 100), bev.enable(READ))",
    "setwatermark": "bev.setwatermark(READ, 1, 100)",
    "rate_limit=": "bev.rate_limit = RateLimit(1000, 1000)",
    "add_to_rate_limit_group": (
        "bev.add_to_rate_limit_group(RateLimitGroup(bev.base, RateLimit(1000, 1000)))"
    ),
    "trigger": "bev.trigger(READ, TriggerOption.IGNORE_WATERMARKS)",
    "add_cb": "bev.output.add_cb(nothing)",
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_bufferevent_works_on_after_an_operation_without_memory(name: str) -> None:
    """libevent itself crashes by a watermark, and forgets to write (bufferevent_setwatermark)."""
    code = SOCKET.format(options="1").replace("def begin(", "def sockets(")
    code = code.replace("def make(", "def bufferevent(").replace("def use(", "def echoes(")
    code += f"""
    def begin(base):
        ends = sockets(base)
        return bufferevent(base, ends), *ends

    def make(base, context):
        bev = context[0]
        {OPERATIONS[name]}
        return bev

    def use(base, made, context):
        made.setwatermark(READ, 0, 0)
        context[2].setblocking(False)
        turns(base)
        try:
            context[2].recv(1000)
        except BlockingIOError:
            pass
        made.on_read = lambda bev: bev.write(bev.read())
        made.on_write = lambda bev: None
        echoes(base, made, context[1:])
    """
    assert swept(code, "begin, use, may_succeed=True") >= 1


def test_bytes_are_written_though_there_was_no_memory_to_wait_for_the_socket() -> None:
    """libevent itself ignores it, and they would lie there until more are written."""
    code = SOCKET.format(options="1").replace("def make(", "def bufferevent(")
    code += """
    def make(base, context):
        bev = bufferevent(base, context)
        bev.write(b"hello")
        return bev

    def use(base, made, context):
        turns(base)
        context[1].setblocking(False)
        assert context[1].recv(10) == b"hello"
    """
    assert swept(code, "begin, use, may_succeed=True") >= 7


LISTENER = """
    def make(base, context):
        return Listener(base, ("127.0.0.1", 0), lambda listener, fd, address: os.close(fd))

    def use(base, made, context):
        with socket.create_connection(made.address):
            turns(base)
"""


def test_a_listener_that_gets_no_memory_is_not_made_or_works() -> None:
    assert swept(LISTENER, "use=use, may_succeed=True") >= 3


def test_an_http_server_that_gets_no_memory_is_not_bound_or_works() -> None:
    code = """
        def make(base, context):
            server = HttpServer(base)
            server.set_gencb(lambda request: request.send_reply(200, "OK", b"hello"))
            return server, server.bind_socket("127.0.0.1", 0).port

        def use(base, made, context):
            with socket.create_connection(("127.0.0.1", made[1])) as client:
                client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                turns(base, 8)
                client.setblocking(False)
                assert client.recv(1000).endswith(b"hello")
    """
    assert swept(code, "use=use, may_succeed=True") >= 5


def test_a_connection_that_gets_no_memory_is_refused_or_made() -> None:
    for connect in "connect(address)", "connect_hostname(None, *address)":
        code = f"""
            server = socket.create_server(("127.0.0.1", 0))
            server.setblocking(False)
            address = server.getsockname()
            told = []

            def make(base, context):
                told.clear()
                bev = BufferEvent(base, on_event=lambda bev, what: told.append(what))
                bev.{connect}
                return bev

            def use(base, made, context):
                turns(base)
                assert told, "nobody is told"
                while True:
                    try:
                        server.accept()[0].close()
                    except BlockingIOError:
                        break
        """
        assert swept(code, "use=use, may_succeed=True") >= 6


def test_a_lookup_to_connect_that_gets_no_memory_is_whole_or_not_begun() -> None:
    code = """
        def begin(base):
            dns = DnsBase(base, 0)
            dns.nameserver_sockaddr_add(("127.0.0.1", 9))
            dns.search_add("example")
            return dns

        def make(base, context):
            bev = BufferEvent(base)
            bev.connect_hostname(context, "name", 80)
            return bev

        def use(base, made, context):
            context.close()  # cancels the lookup
            turns(base)
    """
    assert swept(code, "begin, use, may_succeed=True") >= 10


def test_a_resolver_works_on_after_an_operation_without_memory() -> None:
    code = """
        file = tempfile.NamedTemporaryFile()
        file.write(b"192.0.2.1 one.example two.example\\n" * 5 + b"#" * 30000)  # too large
        file.flush()

        def begin(base):
            return DnsBase(base, 0)

        def make(base, context):
            context.nameserver_sockaddr_add(("127.0.0.1", 9))
            context.search_add("example")
            context.search_clear()
            context.search_add("another.example")
            context.load_hosts(file.name)
            return context

        def use(base, made, context):
            found = []
            made.getaddrinfo("two.example", "80", lambda lookup, error, all: found.extend(all))
            assert found
    """
    assert swept(code, "begin, use, may_succeed=True") >= 10


def test_requests_and_calls_end_in_one_callback_or_are_refused() -> None:
    begin = """
        server = socket.create_server(("127.0.0.1", 0))
        address = server.getsockname()
        told = []

        class Number(Message):
            number = rpc_message.Int(1)
    """
    for code in (
        """
        def begin(base):
            return HttpConnection(base, *address)

        def make(base, context):
            request = HttpRequest(lambda request: told.append(1))
            request.output_headers["Host"] = "localhost"
            context.make_request(request, HttpCommand.GET, "/")
            return context
        """,
        """
        def begin(base):
            pool = RpcPool(base)
            pool.add_connection(HttpConnection(base, *address))
            return pool

        def make(base, context):
            context.call("Add", Number(number=1), Number, lambda call: told.append(1))
            return context
        """,
    ):
        use = """
        def use(base, made, context):
            told.clear()
            made.close()
            turns(base)
            assert told == [1], told
        """
        assert swept(begin + code + use, "begin, use, may_succeed=True") >= 10


# TLS: libevent's memory, and OpenSSL's.

TLS = """
    from pathlib import Path
    assert debug.counts_memory(MemorySource.OPENSSL)
    files = Path({directory!r})
    server = TlsContext(
        server_side=True, certfile=files / "server.pem", keyfile=files / "server.key"
    )
    client = TlsContext(cafile=files / "ca.pem")

    def use(base, made, context):
        got = []
        one, other = made
        one.on_read = lambda bev: got.append(bev.read())
        one.enable(READ)
        other.enable(READ)
        other.write(b"hello")
        turns(base, 16)
        assert got == [b"hello"], got

    def sockets(base):
        return socket.socketpair()

    def over_sockets(base, context):
        left, right = context
        return (
            BufferEvent.tls(base, left, server),
            BufferEvent.tls(base, right, client, server_hostname="server.test"),
        )

    def pair(base):
        return BufferEvent.pair(base)

    def over_a_pair(base, context):
        one, other = context
        return (
            BufferEvent.tls_filter(one, server),
            BufferEvent.tls_filter(other, client, server_hostname="server.test"),
        )
"""


@pytest.mark.parametrize("source", ["LIBEVENT", "OURS", "OPENSSL"])
@pytest.mark.parametrize(("begin", "make"), [("sockets", "over_sockets"), ("pair", "over_a_pair")])
def test_tls_that_gets_no_memory_is_not_made(
    authority: Authority, begin: str, make: str, source: str
) -> None:
    """libevent itself makes one that has no connection, or crashes in freeing half of one."""
    code = TLS.format(directory=str(authority.directory)) + f"\n    make = {make}\n"
    arguments = f"{begin}, use, source=MemorySource.{source}"
    fewest = {"LIBEVENT": 8, "OURS": 0, "OPENSSL": 15}[source]
    assert swept(code, arguments, env=COUNTED) >= fewest


def test_a_tls_context_that_gets_no_memory_is_not_made(authority: Authority) -> None:
    """In steps: OpenSSL asks for memory thousands of times, and does without some of it."""
    printed = run_python(
        f"""
        from pathlib import Path
        from libevent_py import *
        from libevent_py import debug

        files = Path({str(authority.directory)!r})

        def client():
            TlsContext(cafile=files / "ca.pem", alpn_protocols=["h2"]).close()

        def server():
            TlsContext(
                server_side=True,
                certfile=files / "server.pem",
                keyfile=files / "server.key",
                alpn_protocols=["h2"],
            ).close()

        refused = raised = 0
        for make in client, server:
            make()  # what OpenSSL can't begin once, it never does again
            for nth in range(1, 1000, 37):
                with debug.FailingMemory(nth, source=MemorySource.OPENSSL) as failing:
                    try:
                        make()
                    except MemoryError:
                        raised += 1
                    except TlsError as error:  # it doesn't always say that it was memory
                        assert failing.refused, error
                refused += failing.refused
            make()
        with debug.FailingMemory(source=MemorySource.OURS):
            try:
                server()
            except MemoryError:
                print(refused, raised)
        """,
        env=COUNTED,
    )
    refused, raised = map(int, printed.split())
    assert refused >= 20
    assert raised >= 15


# The loop: what libevent makes there by itself uses memory that was put aside, and says so.

ECHO = """
    def set_up(base, answer):
        def accept(listener, fd, address):
            bev = BufferEvent(base, fd, on_read=lambda bev: bev.write(bev.read()))
            bev.on_event = lambda bev, what: bev.close()
            bev.enable(READ)

        listener = Listener(base, ("127.0.0.1", 0), accept)
        bev = BufferEvent(base, on_read=lambda bev: answer(bev.read()))
        bev.connect(listener.address)
        bev.enable(READ)
        bev.write(b"hello")
"""

HTTP = """
    def set_up(base, answer):
        server = HttpServer(base)
        server.set_gencb(lambda request: request.send_reply(200, "OK", b"x" * 1000))
        port = server.bind_socket("127.0.0.1", 0).port
        connection = HttpConnection(base, "127.0.0.1", port)
        request = HttpRequest(lambda request: answer(request.response_code))
        request.output_headers["Host"] = "localhost"
        connection.make_request(request, HttpCommand.GET, "/a?b=c")
"""

DNS = """
    def set_up(base, answer):
        def on_query(request):
            request.add_a_reply(request.questions[0].name, "192.0.2.1", ttl=60)
            request.respond()

        server = DnsServer(base, ("127.0.0.1", 0), on_query)
        dns = DnsBase(base, 0)
        dns.nameserver_sockaddr_add(server.address)
        dns.set_option("timeout", 0.05)
        dns.set_option("attempts", 1)
        dns.{lookup}
"""

RPC = """
    class Number(Message):
        number = rpc_message.Int(1)

    def add(rpc):
        rpc.reply.number = rpc.request.number + 1
        rpc.done()

    def set_up(base, answer):
        server = HttpServer(base)
        port = server.bind_socket("127.0.0.1", 0).port
        RpcServer(server).register("Add", Number, Number, add)
        pool = RpcPool(base)
        pool.add_connection(HttpConnection(base, "127.0.0.1", port))
        pool.call("Add", Number(number=1), Number, lambda call: answer(call.status))
"""

LOOPS = {
    "an echo server and client": (ECHO, 10),
    "an HTTP server and client": (HTTP, 50),
    "a DNS server and resolver": (
        DNS.format(lookup='resolve_ipv4("a.example", lambda *answers: answer(answers))'),
        12,
    ),
    "a DNS server and getaddrinfo": (
        DNS.format(lookup='getaddrinfo("a.example", "80", lambda *answers: answer(answers))'),
        20,
    ),
    "an RPC server and client": (RPC, 80),
}


@pytest.mark.parametrize("name", LOOPS)
def test_no_loop_crashes_or_leaks_where_libevent_gets_no_memory(name: str) -> None:
    code, least = LOOPS[name]
    number, raised, told = looped(code)
    assert number >= least
    assert raised >= number // 2
    if name != "an echo server and client":  # there a connection may be closed without an answer
        assert told == number + 2


def test_the_loop_of_tls_goes_on_where_openssl_gets_no_memory(authority: Authority) -> None:
    code = TLS.format(directory=str(authority.directory))
    code += """
    def set_up(base, answer):
        one, other = over_sockets(base, socket.socketpair())
        one.on_read = lambda bev: bev.write(bev.read())
        one.on_event = other.on_event = lambda bev, what: what & ~128 and answer(what)
        other.on_read = lambda bev: answer(bev.read())
        one.enable(READ)
        other.enable(READ)
        other.write(b"hello")
    """
    number, _, told = looped(code, "MemorySource.OPENSSL, step=43", env=COUNTED)
    assert number >= 500
    assert told >= number // 43


def test_a_loop_s_lack_of_memory_goes_to_on_error_and_it_runs_on() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        told = []
        with EventBase() as base:
            base.on_error = lambda error, source: told.append((type(error), source is base))
            listener = Listener(base, ("127.0.0.1", 0), None)
            server = HttpServer(base)
            server.set_gencb(lambda request: request.send_reply(200, "OK", b"hello"))
            port = server.bind_socket("127.0.0.1", 0).port
            connection = HttpConnection(base, "127.0.0.1", port)
            answers = []

            def done(request):
                answers.append(request.response_code)
                if len(answers) == 3:
                    base.loopbreak()
                else:
                    ask()

            def ask():
                request = HttpRequest(done)
                request.output_headers["Host"] = "localhost"
                connection.make_request(request, HttpCommand.GET, "/")

            ask()
            base.loopexit(60)
            base.once(lambda fd, what: failing.__enter__(), timeout=0)
            failing = debug.FailingMemory(2, source=MemorySource.LIBEVENT)
            base.dispatch()
            failing.__exit__(None, None, None)
            print(answers, set(told))
        """
    )
    assert printed == "[200, 200, 200] {(<class 'MemoryError'>, True)}\n"


#: In some turn of the loop much happens, and from the nth allocation on there is no memory.
MUCH = """
import itertools, socket, sys
from libevent_py import *
from libevent_py import debug
from libevent_py.testing import LocalDnsServer

NUMBER = 60
kind = sys.argv[1]
debug.count_memory()


def turn(base):
    try:
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    except MemoryError:
        return True
    return False


class Text(rpc_message.Message):
    text = rpc_message.String(1)


def request():
    if kind != "rpc":
        return b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
    body = Buffer()
    tag.marshal_string(body, 1, "hello")
    start = f"POST /.rpc.Echo HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    return start.encode() + body.remove(len(body))


def ask(port, peers):
    "Ask NUMBER times, on a connection each."
    while len(peers) < NUMBER:
        peers.append(socket.create_connection(("127.0.0.1", port)))
        peers[-1].sendall(request())
        peers[-1].setblocking(False)


def echo(call):
    call.reply.text = call.request.text
    call.done()


def answered(peer):
    try:
        return peer.recv(999).endswith(b"hello")
    except OSError:
        return False


def serve(base):
    server = HttpServer(base)
    server.set_gencb(lambda request: request.send_reply(200, "OK", b"hello"))
    if kind == "bounded":
        server.max_headers_size = 4000
    elif kind == "limited":
        server.rate_limit = RateLimit(100_000)
    elif kind == "rpc":
        rpcs = RpcServer(server)
        rpcs.register("Echo", Text, Text, echo)
    port, peers, later = server.bind_socket("127.0.0.1", 0).port, [], []
    ask(port, peers)
    yield
    for _ in range(20):
        turn(base)
    ask(port, later)
    missing = set(later)
    for _ in range(100):
        turn(base)
        missing = {peer for peer in missing if not answered(peer)}
        if not missing:
            break
    else:
        raise AssertionError(f"{len(missing)} clients have no answer")
    for peer in peers + later:
        peer.close()
    server.close()


def look_up(base):
    names = LocalDnsServer(base)
    dns = names.dns_base()
    ended = []
    names.names = {f"n{at}.test": "1.2.3.4" for at in range(NUMBER)}

    def end(*told):
        ended.append(told)

    def begin(name):
        if kind == "resolve":
            return dns.resolve_ipv4(name, end)
        return dns.getaddrinfo(name, 80, end)

    lookups = [begin(name) for name in names.names]
    yield
    for _ in range(20):
        turn(base)
    for lookup in lookups:
        lookup.cancel()
    while len(ended) < NUMBER:
        turn(base)
    dns.close()
    names.close()
    assert len(ended) == NUMBER


ran_out = 0
for turns, nth in itertools.product(range(4), (1, 8, 36, 99)):
    with EventBase() as base:
        base.on_error = lambda error, source: None
        work = (look_up if kind in ("resolve", "getaddrinfo") else serve)(base)
        next(work)
        for _ in range(turns):
            turn(base)
        with debug.FailingMemory(nth, onwards=True) as failing:
            ran_out += sum(turn(base) for _ in range(4))
        for _ in work:
            pass
print("it went on", ran_out > 0, debug.memory(MemorySource.LIBEVENT).blocks)
"""


@pytest.mark.parametrize("kind", ["plain", "bounded", "limited", "rpc", "resolve", "getaddrinfo"])
def test_the_loop_survives_a_turn_that_needs_more_than_was_put_aside(kind: str) -> None:
    """Where libevent would crash, it ends the loop first; then new clients are served again."""
    assert run_python(MUCH, kind, stderr=None) == "it went on True 0\n"


def test_what_a_callback_itself_asks_for_is_refused() -> None:
    """Memory is put aside for libevent's own needs only."""
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()

        def ask(fd, what):
            with debug.FailingMemory():
                try:
                    Event.timer(base, print)
                except MemoryError:
                    print("refused")

        with EventBase() as base:
            base.once(ask)
            base.dispatch()
        """
    )
    assert printed == "refused\n"


def test_a_deferred_function_runs_though_there_is_no_memory_for_the_timer() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        with EventBase() as base:
            with debug.FailingMemory(onwards=True) as failing:
                base.defer(print, "ran")
            assert failing.refused
            base.dispatch()
        """
    )
    assert printed == "ran\n"
