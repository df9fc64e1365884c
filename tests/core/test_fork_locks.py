"""A fork while a lock of libevent's is held: by who forks, or by a thread that is gone then."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import library_of, run_python

DEBUG = pytest.mark.parametrize("debug", ["", "lock_debugging"], ids=["plain", "lock debugging"])

#: What each program begins with. `child` runs a function in a forked child, which must come to an
#: end by itself; `forked` is for the rest of a program that has forked in a callback.
PRELUDE = """
import contextlib, os, signal, socket, subprocess, sys, threading, time, traceback, warnings
from libevent_py import *
from libevent_py import debug, ffi, lib

warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
if "lock_debugging" in sys.argv:
    debug.enable_lock_debugging()
PARENT = os.getpid()
DATA = b"x" * 100_000

def in_child():
    return os.getpid() != PARENT

def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
    return pid

def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0

def child(function):
    pid = fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    wait(pid)

def refused(*functions):
    for function in functions:
        try:
            function()
        except ForkError as error:
            assert "make another one" in str(error), error
        else:
            raise AssertionError(f"{function} is not refused")

@contextlib.contextmanager
def held_elsewhere(lock, base=None):
    \"\"\"Have another thread, *base*'s owner then, hold what ``lock()`` gives.\"\"\"
    holds, leave = threading.Event(), threading.Event()
    def hold():
        if base is not None:
            base.take_over()
        with lock():
            holds.set()
            leave.wait(60)
    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(60)
    yield
    leave.set()
    thread.join()

class Busy(threading.Thread):
    \"\"\"A thread that does the same again and again inside a ``with`` block.\"\"\"
    def __init__(self, function):
        super().__init__()
        self.function, self.stop = function, False
    def run(self):
        while not self.stop:
            self.function()
    def __enter__(self):
        self.start()
        return self
    def __exit__(self, *_):
        self.stop = True
        self.join()
"""


def run(program: str, *arguments: str, valgrind: bool = False) -> str:
    """Run *program* below the prelude, in a Python of its own."""
    code = PRELUDE + textwrap.dedent(program)
    return run_python(code, *arguments, valgrind=valgrind)


# The thread that forks holds the lock.


@DEBUG
def test_a_child_that_was_forked_in_a_callback_of_a_buffer_can_use_the_buffer(debug: str) -> None:
    """A8: there, and when the callback has returned; and so can its own child."""
    run(
        """
        def use():
            assert len(buffer) >= 1
            buffer.add(b"abc")
            assert bytes(buffer).endswith(b"abc")
            buffer.drain(len(buffer) - 1)
            with buffer.lock():
                other.add_buffer(Buffer(b"y"))

        children = []
        def changed(buffer, info):
            if children == [] or in_child() and len(children) == 1:
                children.append(fork())
                if children[-1] == 0:
                    entry.enabled = False
                    use()

        buffer, other = Buffer(), Buffer()
        entry = buffer.add_cb(changed)
        buffer.add(b"x")
        use()
        if children[-1]:
            wait(children[-1])
        buffer.close()
        other.close()
        sys.stdout.flush()
        if in_child():
            os._exit(0)
        """,
        *debug.split(),
    )


@VALGRIND_TAKES_LONG
def test_a_child_may_close_or_drop_a_buffer_in_whose_callback_it_was_forked(valgrind: bool) -> None:
    """D2: as its parent may."""
    run(
        """
        import gc
        for how in ("close", "drop", "close inside", "exit", "exec"):
            pids = []
            def changed(changed, info):
                pids.append(fork())
                if pids[-1] == 0 and how == "close inside":
                    changed.close()
                if pids[-1] == 0 and how == "exec":
                    os.execv("/bin/true", ["true"])
            buffer = Buffer()
            buffer.add_cb(changed)
            buffer.add(b"x")
            if pids[0] == 0:
                if how == "exit":
                    sys.exit()
                if how == "close":
                    buffer.close()
                del buffer
                gc.collect()
                os._exit(0)
            wait(pids[0])
            assert bytes(buffer) == b"x"
            buffer.close()
        """,
        valgrind=valgrind,
    )


def test_a_child_may_be_forked_where_the_lock_of_a_buffer_is_held() -> None:
    """A8: it holds the lock until it leaves the block, and then other threads may have it."""
    run(
        """
        buffer = Buffer(b"x")
        with buffer.lock(), buffer.lock():
            pid = fork()
            buffer.add(b"y")
        thread = threading.Thread(target=buffer.add, args=(b"z",))
        thread.start()
        thread.join()
        assert bytes(buffer) == b"xyz"
        if pid == 0:
            os._exit(0)
        wait(pid)
        """
    )


LOCKED = {
    "bufferevent": """
        near, far = socket.socketpair()
        bev = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE,
            on_read=lambda bev: (bev.read(), told())
        )
        bev.enable(EventFlag.READ)
        far.send(b"x")
        """,
    "a bufferevent's buffer": """
        near, far = socket.socketpair()
        bev = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE
        )
        bev.input.add_cb(lambda buffer, info: told())
        bev.enable(EventFlag.READ)
        far.send(b"x")
        """,
    "pair": """
        one, other = BufferEvent.pair(
            base, BufferEventOption.THREADSAFE | BufferEventOption.DEFER_CALLBACKS
        )
        other.on_read = lambda bev: (bev.read(), told())
        other.enable(EventFlag.READ)
        one.write(b"x")
        """,
    "filter": """
        near, far = socket.socketpair()
        below = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE
        )
        def passed(source, destination, limit, mode):
            destination.add_buffer(source)
            told()
            return FilterResult.OK
        bev = BufferEvent.filter(
            below, passed, None, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE,
        )
        bev.enable(EventFlag.READ)
        far.send(b"x")
        """,
    "rate limit group": """
        near, far = socket.socketpair()
        bev = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE,
            on_read=lambda bev: (bev.read(), told())
        )
        group = RateLimitGroup(base, RateLimit(1000, 1000, 1000, 1000))
        bev.add_to_rate_limit_group(group)
        bev.enable(EventFlag.READ)
        far.send(b"x")
        """,
    "listener": """
        def accepted(listener, fd, address):
            os.close(fd)
            told()
        listener = Listener(
            base, ("127.0.0.1", 0), accepted,
            options=ListenerOption.THREADSAFE | ListenerOption.CLOSE_ON_FREE
        )
        far = socket.create_connection(listener.address)
        """,
    "resolver": """
        dns = DnsBase(base, 0)
        dns.getaddrinfo("127.0.0.1", 80, lambda *_: told())
        """,
    "http": """
        server = HttpServer(base)
        server.set_gencb(lambda request: (request.send_reply(204), told()))
        bound = server.bind_socket("127.0.0.1", 0)
        far = socket.create_connection(bound.address)
        far.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        """,
    "timer": """
        timer = Event.timer(base, lambda *_: told()).add(0)
        """,
    "deferred": """
        buffer = Buffer()
        buffer.add_cb(lambda buffer, info: told())
        buffer.defer_callbacks(base)
        buffer.add(b"x")
        """,
}


@pytest.mark.parametrize(
    ("what", "debug"),
    [*((what, "") for what in LOCKED), ("bufferevent", "lock_debugging")],
    ids=[*LOCKED, "lock debugging"],
)
def test_a_child_may_be_forked_in_a_callback_with_a_lock_held(what: str, debug: str) -> None:
    """A8: it reinitializes there or later, goes on with the loop, and closes everything."""
    run(
        """
        for when in ("inside", "after", "never"):
            base, pids = EventBase(), []
            base.loop(LoopFlag.NONBLOCK)
            def told():
                if not pids:
                    pids.append(fork())
                    if pids[0] == 0 and when == "inside":
                        base.reinit()
            try:
                MAKE
                while not pids:
                    base.loop(LoopFlag.ONCE)
            except ForkError:
                assert in_child()
            if pids[0] == 0:
                if when == "after":
                    base.reinit()
                if when != "never":
                    base.once(lambda fd, what: base.loopexit())
                    base.dispatch()
                base.close()
                os._exit(0)
            wait(pids[0])
            base.once(lambda fd, what: base.loopexit())
            base.dispatch()
            base.close()
            if "far" in globals():
                far.close()
        """.replace("MAKE", LOCKED[what].strip().replace("\n", "\n" + 8 * " ")),
        *debug.split(),
    )


#: Another thread that knows nothing of Python, and changes a buffer again and again.
BUSY_IN_C = """
    #include <event2/buffer.h>
    #include <pthread.h>

    static pthread_t thread;
    static volatile int stopped;

    static void *
    work(void *buffer)
    {
        static const char data[100000];

        while (!stopped) {
            evbuffer_add(buffer, data, sizeof(data));
            evbuffer_drain(buffer, sizeof(data));
        }
        return NULL;
    }

    int
    begin(void *buffer)
    {
        return pthread_create(&thread, NULL, work, buffer);
    }

    int
    end(void)
    {
        stopped = 1;
        return pthread_join(thread, NULL);
    }
"""


def test_a_fork_by_c_code_is_like_python_s(tmp_path: Path) -> None:
    """A8: such as that of a server which embeds Python; only that Python itself is not told.

    So no other thread may wait for Python's own lock, as the child could get it for ever.
    """
    run(
        """
        import ctypes
        busy = ctypes.CDLL(sys.argv[1])
        buffer, other, pids = Buffer(), Buffer(), []
        def changed(buffer, info):
            if not pids:
                pids.append(ctypes.PyDLL(None).fork())
                buffer.add(b"y")
        buffer.add_cb(changed)
        assert busy.begin(ctypes.c_void_p(int(ffi.cast("uintptr_t", other.pointer)))) == 0
        buffer.add(b"x")
        assert bytes(buffer) == b"xy"
        if pids[0] == 0:
            signal.alarm(60)
            assert len(other) in (0, len(DATA))
            os._exit(0)
        assert busy.end() == 0
        wait(pids[0])
        """,
        str(library_of(BUSY_IN_C, tmp_path)),
    )


# Another thread holds it.


@DEBUG
@pytest.mark.parametrize("callbacks", [False, True], ids=["plain", "with a callback"])
def test_a_child_has_whole_what_another_thread_was_changing(callbacks: bool, debug: str) -> None:
    """A8: the fork waits until that thread has come out of C, though it needs the GIL for that."""
    run(
        """
        buffer, size = Buffer(), 10 * len(DATA)
        if "callbacks" in sys.argv:
            buffer.add_cb(lambda buffer, info: sum(range(1000)))
        def work():
            buffer.add(bytes(size))
            buffer.drain(size)
        def use():
            assert len(buffer) in (0, size), len(buffer)
            with buffer.lock():
                buffer.add(b"abc")
            assert bytes(buffer)[-3:] == b"abc"
            buffer.close()
        with Busy(work):
            for n in range(15):
                time.sleep(0.003)
                child(use)
        """,
        *debug.split(),
        *(["callbacks"] if callbacks else []),
    )


@pytest.mark.slow
def test_a_child_can_use_a_base_that_another_thread_was_waking() -> None:
    """A8: the base's lock is held for a moment only."""
    run(
        """
        base = EventBase()
        def go_on():
            base.reinit()
            ran = []
            base.defer(ran.append, 1)
            base.loop(LoopFlag.NONBLOCK)
            assert ran
            base.close()
        with Busy(lambda: base.defer(id, 1)):
            for n in range(15):
                time.sleep(0.003)
                child(go_on)
                base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
        base.close()
        """
    )


@VALGRIND_TAKES_LONG
def test_what_another_thread_holds_for_long_is_lost_in_the_child(valgrind: bool) -> None:
    """A8: an error at once, instead of waiting for ever; what else there is can be used."""
    run(
        """
        import gc
        buffer, other, base = Buffer(b"x"), Buffer(b"other"), EventBase()
        gc.freeze()  # as servers do before they fork

        def use():
            refused(
                lambda: len(buffer), lambda: buffer.add(b"y"), lambda: buffer.drain(1),
                lambda: bytes(buffer), buffer.peek, lambda: buffer.add_cb(print),
                lambda: other.add_buffer(buffer), lambda: buffer.add_buffer(other),
                lambda: other.add_buffer_reference(buffer),
                lambda: buffer.defer_callbacks(base), lambda: buffer.pointer,
                buffer.lock().__enter__, buffer.reserve(1).__enter__,
            )
            repr(buffer)
            assert not buffer.closed
            other.add(b"abc")
            assert bytes(other) == b"otherabc"
            own = Buffer(b"own")
            own.add_buffer(other)
            base.reinit()
            base.once(lambda fd, what: None)
            base.dispatch()
            base.close()

        def generations():
            use()
            child(lambda: refused(lambda: len(buffer)))

        def end(how):
            if how == "close":
                buffer.close()
                buffer.close()
                try:
                    len(buffer)
                except ClosedError:
                    return
            elif how == "drop":
                globals().pop("buffer")
            else:
                sys.exit()

        with held_elsewhere(buffer.lock):
            child(generations)
            child(lambda: end("close"))
            child(lambda: end("drop"))
            pid = fork()
            if pid == 0:
                sys.exit()  # with all that Python does then
            wait(pid)
        child(lambda: buffer.add(b"y"))
        assert bytes(buffer) == b"x"
        """,
        valgrind=valgrind,
    )


@pytest.mark.slow
def test_a_buffer_that_is_lost_in_the_child_is_never_touched_there() -> None:
    """A8: libevent's lock debugging would end the process."""
    run(
        """
        buffer = Buffer(b"x")
        def use():
            refused(lambda: len(buffer))
            buffer.close()
            with Buffer(b"own") as own:
                own.drain(1)
        with held_elsewhere(buffer.lock):
            child(use)
        """,
        "lock_debugging",
    )


@pytest.mark.slow
def test_a_base_in_the_middle_of_another_thread_s_call_is_lost_in_the_child() -> None:
    """A8: C's stack, and what it has half done, is gone with the thread."""
    run(
        """
        base, idle = EventBase(), EventBase()
        inside, leave = threading.Event(), threading.Event()
        near, far = socket.socketpair()
        bev = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE
        )
        bev.output.add_cb(lambda buffer, info: (inside.set(), leave.wait(60)))
        def work():
            base.take_over()
            bev.write(b"x")
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(60)
        def use():
            refused(base.reinit, base.dispatch, lambda: bev.write(b"y"), lambda: len(bev.output))
            bev.close()
            base.close()
            assert base.closed
            idle.reinit()
            idle.once(lambda fd, what: None)
            idle.dispatch()
            idle.close()
        child(use)
        leave.set()
        thread.join()
        idle.close()
        base.close()
        far.close()
        """
    )


@pytest.mark.slow
def test_a_base_of_which_another_thread_holds_a_lock_is_lost_in_the_child() -> None:
    """A8: but no other one."""
    run(
        """
        base, idle = EventBase(), EventBase()
        near, far = socket.socketpair()
        bev = BufferEvent(
            base, near, BufferEventOption.CLOSE_ON_FREE | BufferEventOption.THREADSAFE
        )
        def use():
            refused(base.reinit, base.dispatch, bev.lock().__enter__)
            base.close()
            idle.reinit()
            idle.close()
        with held_elsewhere(bev.lock, base):
            child(use)
        idle.close()
        base.close()
        far.close()
        """
    )


def test_a_child_does_not_wait_for_those_who_wait_in_libevent() -> None:
    """C5: for a callback's end, in a condition that would wait for them when it is freed."""
    run(
        """
        base, pids = EventBase(), []
        waits = threading.Event()
        def fired(event, fd, what):
            pointer = event.pointer
            def block():
                waits.set()
                lib.event_del_block(pointer)
            thread.append(threading.Thread(target=block))
            thread[0].start()
            assert waits.wait(60)
            time.sleep(0.1)  # until it waits in C: if it isn't there yet, that is easier
            pids.append(fork())
            if pids[0] == 0:
                base.reinit()
        thread = []
        event = Event.timer(base, fired).add(0)
        base.dispatch()
        if pids[0]:
            thread[0].join()
        event.close()
        base.close()
        if pids[0] == 0:
            os._exit(0)
        wait(pids[0])
        """
    )


@pytest.mark.slow
def test_two_threads_may_fork_at_once() -> None:
    """A8: each in a callback of its own buffer: then neither waits for the other for ever."""
    run(
        """
        def work():
            buffer, pids = Buffer(), []
            def changed(changed, info):
                together.wait(60)
                pids.append(fork())
                if pids[0] == 0:
                    buffer.add_cb(print)
                    len(buffer)
                    os._exit(0)
            buffer.add_cb(changed)
            buffer.add(b"x")
            wait(pids[0])
            done.append(len(buffer))
        together, done = threading.Barrier(2), []
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [1, 1]
        """
    )


def test_a_fork_ends_while_threads_hold_locks_of_other_kinds() -> None:
    """A8: who is kept out of libevent may hold what is taken before a fork, such as logging's."""
    run(
        """
        import logging
        buffer = Buffer()
        if hasattr(logging, "_acquireLock"):
            take, leave = logging._acquireLock, logging._releaseLock
        else:
            take, leave = logging._lock.acquire, logging._lock.release
        def work():
            take()
            try:
                buffer.add(DATA)
                buffer.drain(len(DATA))
            finally:
                leave()
        with Busy(work):
            for n in range(5):
                time.sleep(0.003)
                child(lambda: buffer.add(b"x"))
        """
    )


@pytest.mark.parametrize("how", ["fork", "preexec_fn", "spawn", "run", "pool"])
def test_other_processes_can_be_begun_while_another_thread_runs_a_loop(how: str) -> None:
    """A8: by multiprocessing, which forks, and by subprocess, which tells nobody of it."""
    run(
        """
        import multiprocessing
        how = sys.argv[1]
        base, buffer = EventBase(), Buffer()
        ticks = []
        def tick(event, fd, what):
            ticks.append(buffer.add(DATA))
            buffer.drain(len(buffer))
        timer = Event.timer(base, tick, persist=True).add(0.0001)
        started = threading.Event()
        base.defer(started.set)
        thread = threading.Thread(target=base.loop, args=(LoopFlag.NO_EXIT_ON_EMPTY,))
        thread.start()
        assert started.wait(60)

        def work(number=0):
            assert len(buffer) % len(DATA) == 0
            with EventBase() as own:
                own.once(lambda fd, what: None)
                own.dispatch()
            refused(base.reinit)

        for n in range(5):
            if how == "fork":
                process = multiprocessing.get_context("fork").Process(target=work)
                process.start()
                process.join()
                assert process.exitcode == 0
            elif how == "pool":
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    pool.map(work, range(4))
            elif how == "preexec_fn":
                subprocess.run(["true"], check=True, preexec_fn=lambda: buffer.add(b"x"))
            elif how == "run":
                subprocess.run(["true"], check=True)
            else:
                pid = os.posix_spawn("/bin/true", ["true"], os.environ)
                wait(pid)
        before = len(ticks)
        while len(ticks) == before:
            time.sleep(0.001)
        base.loopexit()
        thread.join()
        base.close()
        """,
        how,
    )


# The locks themselves.

SCENARIO = """
import ctypes, errno, sys, threading
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_long, c_uint, c_void_p
if sys.argv[1] == "ours":
    import libevent_py
core = ctypes.CDLL("libevent_core-2.1.so.7")
if sys.argv[1] == "libevent's":
    assert ctypes.CDLL("libevent_pthreads-2.1.so.7").evthread_use_pthreads() == 0

class Locks(Structure):
    _fields_ = [
        ("version", c_int), ("types", c_uint),
        ("alloc", CFUNCTYPE(c_void_p, c_uint)), ("free", CFUNCTYPE(None, c_void_p, c_uint)),
        ("lock", CFUNCTYPE(c_int, c_uint, c_void_p)),
        ("unlock", CFUNCTYPE(c_int, c_uint, c_void_p)),
    ]
class Timeval(Structure):
    _fields_ = [("sec", c_long), ("usec", c_long)]
class Conditions(Structure):
    _fields_ = [
        ("version", c_int), ("alloc", CFUNCTYPE(c_void_p, c_uint)),
        ("free", CFUNCTYPE(None, c_void_p)), ("signal", CFUNCTYPE(c_int, c_void_p, c_int)),
        ("wait", CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(Timeval))),
    ]
core.evthread_get_lock_callbacks.restype = POINTER(Locks)
core.evthread_get_condition_callbacks.restype = POINTER(Conditions)
locks = core.evthread_get_lock_callbacks().contents
conditions = core.evthread_get_condition_callbacks().contents
id_of = CFUNCTYPE(ctypes.c_ulong).in_dll(core, "evthread_id_fn_")
TRY, RECURSIVE = 0x10, 1

def elsewhere(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]

def attempt(lock):
    result = locks.lock(TRY, lock)
    if result == 0:
        assert locks.unlock(0, lock) == 0
    return errno.errorcode.get(result, result)

print(locks.version, locks.types, conditions.version)
print(id_of() == threading.get_ident(), elsewhere(lambda: id_of() == threading.get_ident()))
for kind in (0, RECURSIVE):
    lock = locks.alloc(kind)
    print(kind, attempt(lock), locks.lock(0, lock), attempt(lock), elsewhere(lambda: attempt(lock)))
    if kind == RECURSIVE:
        print(locks.lock(0, lock), locks.lock(TRY, lock))
        print(errno.errorcode.get(elsewhere(lambda: locks.unlock(0, lock))))
        print(locks.unlock(0, lock), elsewhere(lambda: attempt(lock)), locks.unlock(0, lock))
    print(locks.unlock(0, lock), elsewhere(lambda: attempt(lock)))
    if kind == RECURSIVE:
        print(errno.errorcode.get(locks.unlock(0, lock)))

    condition = conditions.alloc(0)
    print(conditions.signal(condition, 0), conditions.signal(condition, 1))
    locks.lock(0, lock)
    print("timed", conditions.wait(condition, lock, Timeval(0, 2000)))
    print(elsewhere(lambda: attempt(lock)))
    locks.unlock(0, lock)
    for everybody in (0, 1):
        number, ready, woken = 3, [], []
        def wait(timeout):
            locks.lock(0, lock)
            ready.append(1)
            woken.append(conditions.wait(condition, lock, timeout))
            woken.append(attempt(lock))
            locks.unlock(0, lock)
        threads = [
            threading.Thread(target=wait, args=(timeout,))
            for timeout in (None, Timeval(60, 999999), Timeval(60, 0))
        ]
        for thread in threads:
            thread.start()
        while len(ready) < number:
            locks.lock(0, lock)  # each has let go of it to wait
            locks.unlock(0, lock)
        for _ in range(1 if everybody else number):
            locks.lock(0, lock)
            print("signal", conditions.signal(condition, everybody))
            locks.unlock(0, lock)
        for thread in threads:
            thread.join()
        print(woken)
    conditions.free(condition)
    locks.free(lock, kind)
"""


def test_the_locks_do_what_libevent_s_own_do() -> None:
    """A2: recursive ones and others, trying, waiting in conditions, and what is an error."""
    expected = run_python(SCENARIO, "libevent's", fresh=True)
    assert expected.count("\n") > 20
    assert run_python(SCENARIO, "ours", fresh=True) == expected


def test_locks_that_somebody_else_has_set_are_used() -> None:
    """A2: libevent doesn't let them be changed, and there is no warning of that."""
    run_python(
        """
        import ctypes
        pthreads = ctypes.CDLL("libevent_pthreads-2.1.so.7")
        assert pthreads.evthread_use_pthreads() == 0
        import logging
        logging.basicConfig()
        import os
        from libevent_py import *
        buffer = Buffer(b"x")
        with EventBase() as base:
            base.defer(buffer.drain, 1)
            base.dispatch()
        pid = os.fork()
        if pid == 0:
            buffer.add(b"y")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(buffer) == 0
        """,
        fresh=True,
    )


def test_no_thread_is_kept_out_of_libevent_once_a_fork_has_failed() -> None:
    """A8: as it does when there are too many processes."""
    run(
        """
        import resource
        buffer = Buffer()
        with Busy(lambda: buffer.add(b"x")):
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            if os.getuid() == 0:
                os.setresuid(65534, 65534, 65534)
            for _ in range(3):
                try:
                    os.fork()
                except OSError:
                    continue
                raise AssertionError("there may be another process")
            before, start = len(buffer), time.monotonic()
            while len(buffer) < before + 100:  # each but the first would wait for a second
                time.sleep(0.001)
            assert time.monotonic() - start < 50
        """
    )


def test_the_lock_of_a_child_is_gone_with_its_buffer() -> None:
    """A8: the list of locks has no buffer on it that has been freed; many forks find it whole."""
    run(
        """
        import random
        chosen = random.Random(1)
        buffers = []
        for n in range(20):
            for _ in range(50):
                if chosen.random() < 0.6 or not buffers:
                    buffers.append(Buffer(b"x"))
                else:
                    buffers.pop(chosen.randrange(len(buffers))).close()
            child(lambda: [buffer.add(b"y") for buffer in buffers] and buffers.clear())
        """
    )
