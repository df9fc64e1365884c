"""Select's limit: descriptors from FD_SETSIZE on, where a fortified libevent ends the process."""

from __future__ import annotations

import pytest

from tests.kit.select_limit import PRELUDE
from tests.kit.support import run_python


@pytest.mark.parametrize("method", ["select", "poll", "epoll"])
def test_a_base_is_refused_where_select_could_not_wait_for_its_own_descriptors(method: str) -> None:
    run_python(
        PRELUDE
        + """
with base() as early, no_low_descriptors():
    with refused("the base's own descriptors with select"), base() as late:
        assert late.method == method
        late.once(print, timeout=5)
        late.loop(LoopFlag.NONBLOCK)
    with refused("the base's own descriptors with select"):
        with EventConfig(avoid=avoided, flags=EventBaseFlag.NOLOCK) as config:
            EventBase(config).close()
    EventBase().close()  # epoll
    with refused("event_add"):  # the process's pipes, made when a loop first needs them
        early.loop(LoopFlag.NONBLOCK)
with EventConfig(require=EventFeature.FDS) as config, no_low_descriptors():
    EventBase(config).close()  # poll
os.environ.update(EVENT_NOEPOLL="1", EVENT_NOPOLL="1")
with no_low_descriptors():
    try:
        EventBase()
    except OSError as error:
        assert "the base's own descriptors with select" in str(error), error
    else:
        raise AssertionError("it was made")
    with EventConfig(flags=EventBaseFlag.IGNORE_ENV) as config:
        EventBase(config).close()
""",
        method,
    )


@pytest.mark.parametrize("method", ["select", "poll", "epoll"])
def test_bufferevents_and_listeners_are_refused_beyond_the_sets_of_select(method: str) -> None:
    run_python(
        PRELUDE
        + """
with base() as b, socket.create_server(("127.0.0.1", 0)) as server:
    b.loop(LoopFlag.NONBLOCK)  # makes the process's pipes

    # A bufferevent, and one that gets another descriptor.
    left, right = socket.socketpair()
    beyond = fcntl(left, F_DUPFD, 1500)
    assert beyond == 1500
    with refused("fd 1500 with select"):
        bev = BufferEvent(b, beyond)
        bev.write(b"hello")
        run(b, lambda: not bev.output)
        assert right.recv(100) == b"hello"
        assert bev.detach() == beyond
    bev = BufferEvent(b)
    with refused("fd 1500 with select"):
        bev.fd = beyond
        assert bev.detach() == beyond
    assert bev.fd == -1
    os.close(beyond)

    # The last that select can wait for.
    last = fcntl(left, F_DUPFD, 1023)
    assert last == 1023
    bev.fd = last
    bev.write(b"hello")
    run(b, lambda: not bev.output)
    assert right.recv(100) == b"hello"
    bev.close()
    b.loop(LoopFlag.NONBLOCK)

    # One that makes its socket.
    events = []
    with no_low_descriptors():
        for connect in (
            lambda bev: bev.connect(server.getsockname()),
            lambda bev: bev.connect_hostname(None, *server.getsockname()),
        ):
            bev = BufferEvent(b, on_event=lambda bev, what: events.append(what))
            with refused("the next descriptor with select"):
                connect(bev)
                run(b, lambda: events)
                assert events.pop() == BufferEventFlag.CONNECTED
                assert bev.fd > 1023
            bev.close()
            b.loop(LoopFlag.NONBLOCK)

    # A listener.
    accepted = []
    with no_low_descriptors(), refused("1024"):
        with Listener(b, ("127.0.0.1", 0), None) as listener:
            assert listener.fd == 1024
    beyond = fcntl(server, F_DUPFD, 1500)
    with refused("evconnlistener_new: fd 1500 with select"):
        Listener.from_fd(b, beyond, None, options=0).close()
    os.close(beyond)

    # A connection whose number is too high.
    raised = []
    def callback(listener, fd, address):
        assert fd > 1023
        BufferEvent(b, fd).write(b"hello")
    b.on_error = lambda error, source: raised.append(error)
    with Listener(b, ("127.0.0.1", 0), callback) as listener:
        with no_low_descriptors(), socket.create_connection(listener.address) as sock:
            sock.settimeout(0)
            data = []
            def come():
                with contextlib.suppress(BlockingIOError):
                    data.append(sock.recv(100))
                return data
            run(b, come)
            with refused("fd "):
                for error in raised:
                    raise error
            assert data == ([b""] if raised else [b"hello"])
    left.close(), right.close()
""",
        method,
    )
