"""System calls that fail, are interrupted, or do less than they were asked to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.kit.failing_calls import PROGRAMS, compiled, preloading
from tests.kit.once import once
from tests.kit.support import PATIENCE, ROOT, run_python

#: Each is a Python of its own.
pytestmark = pytest.mark.slow

GROUPS = [
    ["echo", "eager_echo", "filter_echo", "sent_file"],
    ["tls_echo", "tls_filter_echo"],
    ["http", "https"],
    ["dns", "rpc"],
]


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the compiled library is preloaded."""
    library = once(tmp_path_factory, "failing_calls", compiled) / "failing_calls.so"
    return preloading(str(library))


def run(preloaded: dict[str, str], *arguments: str) -> str:
    """Run `tests/kit/failing_calls.py` with *arguments*; return what it has printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.kit.failing_calls", *arguments],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        cwd=ROOT,
        env={**os.environ, "MALLOC_PERTURB_": "165", **preloaded},
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "depth",
    [["--most", "3"], pytest.param([], marks=pytest.mark.more)],
    ids=["sample", "all"],
)
@pytest.mark.parametrize("programs", GROUPS, ids=lambda group: "+".join(group))
def test_programs_are_right_or_told_why_not(
    preloaded: dict[str, str], programs: list[str], depth: list[str]
) -> None:
    """A sample has at most so many calls of each function fail."""
    printed = run(preloaded, *programs, *depth)
    for name in programs:
        assert f"{name}: " in printed


@pytest.mark.more
def test_programs_are_right_or_told_where_python_s_own_calls_fail(
    preloaded: dict[str, str],
) -> None:
    run(preloaded, "--everybody", "--most", "3", "echo", "http", "dns")


def test_all_programs_are_in_a_group() -> None:
    assert sorted(PROGRAMS) == sorted(name for group in GROUPS for name in group)


def test_what_libevent_cannot_cope_with_is_still_so(preloaded: dict[str, str]) -> None:
    run(preloaded, "--unable", "sent_file")


def test_the_library_sees_the_calls_of_libevent_openssl_and_ours_alone(
    preloaded: dict[str, str],
) -> None:
    printed = run_python(
        """
        import ctypes
        import os
        import socket
        from libevent_py import EventBase

        calls = ctypes.CDLL(os.environ["LIBEVENT_PY_FAILING_CALLS"])
        calls.failing_calls_begin(0)
        for end in socket.socketpair():
            end.close()
        assert not calls.failing_calls_count(b"socketpair")
        EventBase().close()
        assert calls.failing_calls_count(b"epoll_create1") >= 1
        assert calls.failing_calls_fail(b"no such function", 1, 1, 0) == -1
        calls.failing_calls_fail(b"epoll_create1", ctypes.c_long(1), 24, 1)
        calls.failing_calls_fail(b"epoll_create", ctypes.c_long(1), 24, 1)
        with EventBase() as base:
            print(base.method, calls.failing_calls_failures(b"epoll_create1") >= 1)
        """,
        env=preloaded,
    )
    assert printed == "poll True\n"


# What they have found.


def test_a_dns_answer_that_a_signal_interrupts_is_sent(preloaded: dict[str, str]) -> None:
    """evdns queues an answer that would block, but not one that was interrupted."""
    printed = run_python(
        """
        import ctypes
        import errno
        import os
        import socket
        from libevent_py import DnsServer, EventBase, LoopFlag
        from tests.kit.dns_packets import query

        calls = ctypes.CDLL(os.environ["LIBEVENT_PY_FAILING_CALLS"])
        calls.failing_calls_begin(0)
        with EventBase() as base, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            asked = []
            server = DnsServer(base, ("127.0.0.1", 0), asked.append)
            client.connect(server.address)
            client.send(query(b"host.example"))
            while not asked:
                base.loop(LoopFlag.ONCE)
            calls.failing_calls_fail(b"sendto", ctypes.c_long(1), errno.EINTR, 0)
            asked.pop().respond()
            client.settimeout(60)
            assert client.recv(1000)
            print(calls.failing_calls_failures(b"sendto"))
        """,
        env=preloaded,
    )
    assert printed == "1\n"


@pytest.mark.parametrize("handled", [False, True])
def test_a_descriptor_that_the_kernel_will_not_watch_is_told(
    preloaded: dict[str, str], handled: bool
) -> None:
    """libevent only logs it where a bufferevent writes, and waits for ever."""
    printed = run_python(
        f"""
        import ctypes
        import errno
        import os
        import socket
        from libevent_py import BufferEvent, EventBase, LoopFlag

        calls = ctypes.CDLL(os.environ["LIBEVENT_PY_FAILING_CALLS"])
        calls.failing_calls_begin(0)
        here, there = socket.socketpair()
        told = []
        with EventBase() as base, there:
            if {handled}:
                base.on_error = lambda error, source: told.append((error.errno, source is base))
            bev = BufferEvent(base, here, 1)
            base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
            calls.failing_calls_fail(b"epoll_ctl", ctypes.c_long(1), errno.ENOSPC, 0)
            bev.output.add(b"x" * 100)
            base.once(lambda fd, what: None, timeout=0)
            try:
                base.loop(LoopFlag.ONCE)
            except OSError as error:
                print(error)
            print([(code == errno.ENOSPC, from_base) for code, from_base in told])
            told.clear()
            base.once(lambda fd, what: None, timeout=0)
            base.loop(LoopFlag.ONCE)
            print(told)
        """,
        env=preloaded,
    )
    error = "[Errno 28] event_base_loop: No space left on device\n"
    assert printed == ("[(True, True)]\n[]\n" if handled else f"{error}[]\n[]\n")


def test_an_event_that_the_kernel_will_not_watch_is_told_once(preloaded: dict[str, str]) -> None:
    printed = run_python(
        """
        import ctypes
        import errno
        import os
        import socket
        from libevent_py import Event, EventBase, LoopFlag

        calls = ctypes.CDLL(os.environ["LIBEVENT_PY_FAILING_CALLS"])
        calls.failing_calls_begin(0)
        here, there = socket.socketpair()
        with EventBase() as base, here, there:
            event = Event(base, here, 2, print)
            base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
            calls.failing_calls_fail(b"epoll_ctl", ctypes.c_long(1), errno.ENOSPC, 0)
            try:
                event.add()
            except OSError as error:
                print(error.errno == errno.ENOSPC)
            base.once(lambda fd, what: print("goes on"))
            base.loop(LoopFlag.ONCE)
            event.add()
        """,
        env=preloaded,
    )
    assert printed == "True\ngoes on\n"
