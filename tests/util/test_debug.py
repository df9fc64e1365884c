"""libevent's own checks of how it is used (A2, A4), and everything done under their eyes."""

from __future__ import annotations

import pytest

from libevent_py import EventBase, debug
from tests.kit.support import run_python

#: What each object can do, once: libevent's checks would end the process.
EVERYTHING = """
    import os
    import signal
    import socket
    import threading
    from libevent_py import *

    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    for method in EventBase.supported_methods():
        avoid = [name for name in EventBase.supported_methods() if name != method]
        with EventConfig(avoid=avoid) as config:
            base = EventBase(config, priorities=3)
        called = []
        note = lambda *args: called.append(args)
        reader = Event(base, left, EventFlag.READ | EventFlag.PERSIST,
                       lambda *_: called.append(left.recv(10))).add(1000)
        right.send(b".")
        timer = Event.timer(base, note).add(0)
        common = Event.timer(base, note).add(base.init_common_timeout(0.01))
        caught = Event.signal(base, signal.SIGUSR1, note).add()
        user = Event.user(base, note)
        user.active()
        base.once(note)
        base.once(note, fd=right, what=EventFlag.WRITE)
        base.once(note, timeout=0.01)
        base.defer(note)
        Event.timer(base, note).add(1000).close(finalize=note)
        os.kill(os.getpid(), signal.SIGUSR1)
        near, far = socket.socketpair()
        bev = BufferEvent(base, near, on_read=lambda bev: note(bev.read()))
        bev.enable(EventFlag.READ)
        bev.set_timeouts(1000, 1000)
        far.send(b".")
        listener = Listener(base, ("127.0.0.1", 0), lambda listener, fd, address: os.close(fd))
        socket.create_connection(listener.address).close()
        base.loopexit(0.1)
        base.dispatch()
        assert len(called) == 11, called
        base.dump_events()
        base.events()
        timer.add(1000)
        timer.remove_timer()
        timer.priority = 0
        timer.add(1000).delete()
        base.reinit()
        child = os.fork()
        if child == 0:
            reader.close()
            base.reinit()
            base.loop(LoopFlag.NONBLOCK)
            base.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        threading.Thread(target=base.loopbreak).start()
        base.loop(LoopFlag.NONBLOCK)
        dropped = Event.timer(base, note)
        del dropped
        user.active()
        base.close()
        far.close()
        forgotten = EventBase(priorities=2)
        Event(forgotten, left, EventFlag.READ, note).add()
        del forgotten
    left.close()
    right.close()
    print("done")
"""


@pytest.mark.parametrize(
    "checks",
    [
        ["enable_debug_mode"],
        ["enable_lock_debugging"],
        ["enable_lock_debugging", "enable_debug_mode"],
    ],
)
def test_everything_works_under_libevent_s_checks(checks: list[str]) -> None:
    """A4: from Python's objects they get no reason to end the process."""
    switches = "".join(f"    debug.{check}()\n" for check in checks)
    code = f"    from libevent_py import debug\n{switches}{EVERYTHING}"
    assert run_python(code) == "done\n"


def test_debug_mode_comes_before_the_first_base(base: EventBase) -> None:
    """A4: C would exit."""
    for enable in (debug.enable_debug_mode, debug.enable_lock_debugging):
        with pytest.raises(RuntimeError, match=r"must come before the first event base"):
            enable()
    assert not debug.enabled("debug_mode")
    assert not debug.enabled("lock_debugging")


def test_a_second_switch_does_nothing() -> None:
    """A4: where C would exit; but after a base it is refused like the first."""
    run_python(
        """
        from libevent_py import EventBase, EventConfig, debug

        EventConfig().close()
        for _ in range(2):
            debug.enable_debug_mode()
            debug.enable_lock_debugging()
        assert debug.enabled("debug_mode") and debug.enabled("lock_debugging")
        EventBase().close()
        for enable in (debug.enable_debug_mode, debug.enable_lock_debugging):
            try:
                enable()
            except RuntimeError:
                continue
            raise AssertionError
        """
    )


def test_a_base_that_could_not_be_made_is_no_base() -> None:
    """A4: a refused argument doesn't make it too late."""
    run_python(
        """
        from libevent_py import EventBase, debug

        try:
            EventBase(priorities=0)
        except ValueError:
            debug.enable_debug_mode()
        """
    )


def test_a_blocking_socket_is_refused_in_debug_mode() -> None:
    """A4: an assertion would fail."""
    run_python(
        """
        import socket
        from libevent_py import Event, EventBase, EventFlag, debug

        debug.enable_debug_mode()
        left, right = socket.socketpair()
        with EventBase() as base, left, right:
            for make in (
                lambda: Event(base, left, EventFlag.READ, print).add(),
                lambda: base.once(print, fd=left, what=EventFlag.READ),
            ):
                try:
                    make()
                except ValueError as error:
                    assert "must not block" in str(error)
                else:
                    raise AssertionError
            left.setblocking(False)
            Event(base, left, EventFlag.READ, print).add()
            base.once(print, fd=left, what=EventFlag.READ)
        """
    )
