"""A fork in a callback that a close tells: the child has no object that is half closed."""

from __future__ import annotations

import textwrap

import pytest

from tests.kit.support import run_python

#: Each is a Python of its own.
pytestmark = pytest.mark.slow

#: For each way to be told of an end: what `thing` is, and how it ends.
ENDS = {
    "resolver": (
        """
        thing = DnsBase(base, 0)
        thing.nameserver_ip_add("127.0.0.1:9")
        connection = HttpConnection(base, "host.example", 80, dns_base=thing)
        connection.make_request(HttpRequest(told), HttpCommand.GET, "/")
        other = HttpConnection(base, "other.example", 80, dns_base=thing)
        other.make_request(HttpRequest(told), HttpCommand.GET, "/")
        """,
        "thing.close()",
    ),
    "connection": (
        """
        thing = HttpConnection(base, "127.0.0.1", port)
        for _ in range(2):
            thing.make_request(HttpRequest(told), HttpCommand.GET, "/")
        """,
        "thing.close()",
    ),
    "connection's on_error": (
        """
        thing = HttpConnection(base, "127.0.0.1", port)
        request = HttpRequest(told, on_error=told)
        thing.make_request(request, HttpCommand.GET, "/")
        request.cancel()
        """,
        "thing.close(); base.loop(ONCE)",
    ),
    "request": (
        """
        connection = HttpConnection(base, "127.0.0.1", port)
        thing = HttpRequest(told)
        connection.make_request(thing, HttpCommand.GET, "/")
        connection.make_request(HttpRequest(told), HttpCommand.GET, "/")
        """,
        "thing.close()",
    ),
    "pool": (
        """
        thing = RpcPool(base)
        thing.add_connection(HttpConnection(base, "127.0.0.1", port))
        for _ in range(2):
            thing.call("Message", REQUEST, Kill, told)
        """,
        "thing.close()",
    ),
    "RPC server": (
        """
        http = HttpServer(base)
        thing = RpcServer(http)
        thing.register("Message", Msg, Kill, lambda rpc: rpcs.append(rpc))
        thing.add_hook(RpcHook.OUTPUT, lambda *_: told() or RpcHookResult.CONTINUE)
        rpcs, pool = [], RpcPool(base)
        pool.add_connection(
            HttpConnection(base, "127.0.0.1", http.bind_socket("127.0.0.1", 0).port)
        )
        pool.call("Message", REQUEST, Kill, lambda call: None)
        while not rpcs:
            base.loop(ONCE)
        """,
        "thing.close(); pool.close(); told()",
    ),
    "event": (
        "thing = Event.timer(base, print).add(1000)",
        "thing.close(told); base.loop(ONCE)",
    ),
    "filter": (
        """
        near, far = socket.socketpair()
        def passed(source, destination, limit, mode):
            if mode != FlushMode.FINISHED:
                return FilterResult.NEED_MORE
            destination.add_buffer(source)
            told()
            return FilterResult.OK
        below = BufferEvent(base, near)
        thing = BufferEvent.filter(below, None, passed)
        thing.write(b"x")
        """,
        "thing.close(flush=True)",
    ),
    "lookup": (
        """
        dns = DnsBase(base, 0)
        dns.nameserver_ip_add("127.0.0.1:9")
        lookup = dns.resolve_ipv4("host.example", told)
        thing = dns
        """,
        "thing.close(); base.loop(ONCE)",
    ),
}

PROGRAM = """
import os, signal, socket, sys, warnings
from libevent_py import *
from libevent_py._core.dispatch import live
from tests.kit.rpc_messages import *

warnings.simplefilter("ignore", ResourceWarning)
ONCE, NONBLOCK = LoopFlag.ONCE, LoopFlag.NONBLOCK
when, parent = sys.argv[1], os.getpid()
base = EventBase()
base.loop(NONBLOCK)
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
pids, calls = [], []

def told(*_):
    calls.append(os.getpid())
    if not pids:
        pids.append(os.fork())
        if pids[0] == 0:
            signal.alarm(60)
            if when == "inside":
                base.reinit()
MAKE
try:
    END
except ForkError:
    assert os.getpid() != parent and when != "inside"
assert pids, "nobody was told"
assert live.bases == ()
if pids[0] == 0:
    if when != "inside":
        assert calls == [parent] or calls == [parent, parent], "the child has told the parent's"
    if when == "after":
        base.reinit()
    if when != "never":
        assert thing.closed
        for use in (lambda: thing.pointer, thing.__enter__):
            try:
                use()
            except ClosedError:
                continue
            raise AssertionError("it is open")
        base.loop(NONBLOCK)
        base.once(lambda fd, what: base.loopexit())
        base.dispatch()
    thing.close()
    thing.close()
    base.close()
    assert base.closed and thing.closed
    assert not base._live and not base._graveyard
    os._exit(0)
assert os.waitpid(pids[0], 0)[1] == 0
assert thing.closed
base.once(lambda fd, what: base.loopexit())
base.dispatch()
base.close()
"""


def dedented(program: str) -> str:
    return textwrap.dedent(program).strip()


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("when", ["inside", "after", "never"])
def test_what_is_closed_where_a_child_was_forked_is_closed_in_it(what: str, when: str) -> None:
    """A8: with reinit() in the callback, after it, or never; and what others wait for is told."""
    make, end = ENDS[what]
    program = PROGRAM.replace("MAKE", dedented(make)).replace(
        "    END", textwrap.indent(end, "    ")
    )
    run_python(program, when)


CLOSING = """
import os, signal, socket, sys, warnings
from libevent_py import *
from libevent_py._core.dispatch import live
from tests.kit.rpc_messages import *

warnings.simplefilter("ignore", ResourceWarning)
base, parent = EventBase(), os.getpid()
base.loop(LoopFlag.NONBLOCK)
left, right = socket.socketpair()
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
pids, calls = [], []
def told(*_):
    calls.append(os.getpid())
    if not pids:
        pids.append(os.fork())
        if pids[0] == 0:
            signal.alarm(60)
            for use in (base.reinit, base.dispatch, lambda: base.pointer):
                try:
                    use()
                except ClosedError:
                    continue
                raise AssertionError("the base is open")
MAKE
more = Event(base, left, EventFlag.READ, print).add()
if "close" not in sys.argv:
    thing.close(told)
base.close()
assert pids and base.closed and thing.closed and more.closed
assert live.bases == () and not base._live and not base._ledger and not base._graveyard
base.close()
if pids[0] == 0:
    assert calls == [parent]
    with EventBase() as own:
        own.once(lambda fd, what: None)
        own.dispatch()
    os._exit(0)
assert os.waitpid(pids[0], 0)[1] == 0
"""


@pytest.mark.parametrize("what", ["resolver", "pool", "event"])
def test_a_base_that_is_closed_where_a_child_was_forked_is_closed_in_it(what: str) -> None:
    """A8: what C has is left to the parent there, whoever is told."""
    make, _ = ENDS[what]
    program = CLOSING.replace("MAKE", dedented(make))
    run_python(program, *([] if what == "event" else ["close"]))


def test_a_cleanup_that_forks_leaves_both_processes_a_closed_buffer() -> None:
    """D4: without a base there is nothing to reinitialize."""
    run_python(
        """
        import os, signal, tempfile
        from libevent_py import *
        pids = []
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 100)
            file.flush()
            segment = FileSegment(file, on_cleanup=lambda: pids.append(os.fork()))
            buffer = Buffer()
            buffer.add_file_segment(segment)
            segment.close()
            buffer.close()
        assert buffer.closed and segment.closed and len(pids) == 1
        if pids[0] == 0:
            os._exit(0)
        assert os.waitpid(pids[0], 0)[1] == 0
        """
    )
