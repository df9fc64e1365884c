"""How memory is counted, and an allocation made to fail: `libevent_py.debug`."""

from __future__ import annotations

import pytest

from libevent_py import MemorySource, debug
from tests.kit.memory_sweeps import COUNTED
from tests.kit.support import run_python


def test_blocks_and_bytes_are_counted_from_allocation_to_free() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        debug.count_memory()
        before = debug.memory()
        assert before == (0, 0, 0, 0, 0, 0), before
        buffer = Buffer(b"x" * 5000)
        during = debug.memory()
        assert during.blocks == len(debug.memory_blocks()) >= 3
        assert during.bytes == sum(block.size for block in debug.memory_blocks()) > 5000
        buffer.close()
        after = debug.memory()
        assert after.blocks == after.bytes == 0, after
        assert (after.peak_blocks, after.peak_bytes) == (during.blocks, during.bytes)
        assert after.allocations == during.allocations >= 3 and not after.refused
        print("done")
        """
    )
    assert printed == "done\n"


@pytest.mark.slow
def test_blocks_have_the_same_numbers_in_each_run() -> None:
    code = """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        with EventBase() as base:
            BufferEvent.pair(base)
            for block in debug.memory_blocks():
                print(block.number, block.size, block.source.name)
        """
    first = run_python(code)
    assert "LIBEVENT" in first
    assert "OURS" in first
    assert run_python(code) == first


def test_what_was_allocated_before_is_freed_without_being_counted() -> None:
    run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        buffers = [Buffer(b"x" * 100) for _ in range(100)]
        base = EventBase()
        BufferEvent.pair(base)
        debug.count_memory()
        buffers[0].add(b"y" * 100000)  # moves into a new block, or grows the old one
        for buffer in buffers:
            buffer.close()
        base.close()
        assert debug.memory().blocks == 0, debug.memory_blocks()
        """
    )


def test_what_the_raw_layer_frees_is_counted() -> None:
    run_python(
        """
        from libevent_py import *
        from libevent_py import debug, ffi, lib

        debug.count_memory()
        with Buffer(b"a line\\nmore") as buffer:
            before = debug.memory()
            line = lib.evbuffer_readln(buffer.pointer, ffi.NULL, lib.EVBUFFER_EOL_LF)
            assert debug.memory().blocks == before.blocks + 1
            lib.free(line)
            assert debug.memory().blocks == before.blocks
            lib.free(ffi.NULL)
        """
    )


def test_thousands_of_blocks_in_several_threads_are_counted() -> None:
    run_python(
        """
        import threading
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()

        def work():
            buffers = [Buffer(b"x" * number) for number in range(1, 3000)]
            for buffer in buffers[::2] + buffers[1::2]:
                buffer.add(b"y" * 2000)
                buffer.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert debug.memory().blocks == debug.memory().bytes == 0, debug.memory()
        assert debug.memory().peak_blocks > 9000
        """
    )


@pytest.mark.slow
def test_a_child_counts_on_whatever_another_thread_was_counting() -> None:
    run_python(
        """
        import os
        import threading
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        done = threading.Event()

        def work():
            while not done.is_set():
                Buffer(b"x" * 100).close()

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(50):
            child = os.fork()
            if not child:
                before = debug.memory().blocks
                Buffer(b"x" * 100).close()
                os._exit(debug.memory().blocks != before)
            assert os.waitpid(child, 0)[1] == 0
        done.set()
        thread.join()
        """,
        stderr=None,  # where Python warns of threads and fork()
    )


def test_openssl_s_memory_is_counted_from_the_start_or_never() -> None:
    code = """
        from libevent_py import *
        from libevent_py import debug

        {begin}
        if debug.counts_memory(MemorySource.OPENSSL):
            before = debug.memory(MemorySource.OPENSSL)
            context = TlsContext(check_hostname=False, verify=False)
            assert debug.memory(MemorySource.OPENSSL).blocks > before.blocks
            total = sum(debug.memory(source).bytes for source in MemorySource if source)
            assert debug.memory().bytes == total
            print("counted")
        else:
            try:
                debug.memory(MemorySource.OPENSSL)
            except RuntimeError as error:
                print(error)
        """
    assert run_python(code.format(begin=""), env=COUNTED) == "counted\n"
    assert run_python(code.format(begin="debug.count_memory()")) == (
        "OpenSSL's memory is not counted: set LIBEVENT_PY_COUNT_MEMORY in the environment, and "
        "import libevent_py before ssl and hashlib\n"
    )


def test_only_the_nth_allocation_fails_or_all_from_it_on() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()

        def failures(*arguments, **options):
            found = []
            with debug.FailingMemory(*arguments, **options) as failing:
                for number in range(6):
                    try:
                        EventConfig().close()
                    except MemoryError:
                        found.append(number)
                assert failing.refused == len(found)
            assert failing.refused == len(found)
            EventConfig().close()
            return found

        print(failures(), failures(3), failures(3, onwards=True), failures(99))
        print(failures(1, source=MemorySource.LIBEVENT), failures(1, source=MemorySource.OURS))
        print(debug.memory().refused)
        """
    )
    assert printed == "[0] [2] [2, 3, 4, 5] []\n[0] []\n7\n"


def test_what_cannot_be_put_aside_is_counted_as_refused() -> None:
    told = run_python(
        """
        from libevent_py import BufferEvent, EventBase, Listener, MemorySource, debug
        debug.count_memory()
        with EventBase() as base, Listener(base, ("127.0.0.1", 0), None) as listener:
            sources = MemorySource.ANY, MemorySource.LIBEVENT, MemorySource.OURS
            before = [debug.memory(source) for source in sources]
            with BufferEvent(base) as bev:
                with debug.FailingMemory(1, onwards=True, put_aside=False) as failing:
                    for tries in 1, 2:
                        try:
                            bev.connect(listener.address)
                        except MemoryError:
                            print(tries, failing.refused)
            for source, then in zip(sources, before):
                now = debug.memory(source)
                print(source.name, now.refused - then.refused)
        """
    )
    assert told == "1 1\n2 2\nANY 2\nLIBEVENT 0\nOURS 2\n"


def test_memory_fails_in_one_block_at_a_time() -> None:
    printed = run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        failing = debug.FailingMemory(1)
        with failing:
            for refused in failing, debug.FailingMemory(2):
                try:
                    refused.__enter__()
                except RuntimeError as error:
                    print(error)
            try:
                EventConfig()
            except MemoryError as error:
                print("event_config_new" in str(error))
        with failing:  # again
            pass
        print(failing.refused)
        """
    )
    once = "memory fails already: use one block of FailingMemory at a time\n"
    assert printed == f"{once}{once}True\n0\n"


def test_a_failing_block_that_raises_ends() -> None:
    run_python(
        """
        from libevent_py import *
        from libevent_py import debug

        debug.count_memory()
        try:
            with debug.FailingMemory(1, onwards=True):
                raise KeyError
        except KeyError:
            EventBase().close()
        """
    )


def test_memory_is_not_counted_unless_asked_for() -> None:
    """In a process in which no other test has asked for it."""
    run_python(
        """
        from libevent_py import debug

        assert not debug.counts_memory()
        for ask in debug.memory, debug.memory_blocks, debug.FailingMemory:
            try:
                ask()
            except RuntimeError as error:
                assert str(error).startswith("memory is not counted: call debug.count_memory()")
            else:
                raise AssertionError(ask)
        """
    )


def test_what_is_no_source_is_refused() -> None:
    for ask in debug.memory, debug.memory_blocks, debug.counts_memory:
        with pytest.raises(ValueError, match="99 is not a valid MemorySource"):
            ask(99)


@pytest.mark.parametrize("nth", [0, -1, 2**63, 1.0, True, "1"])
def test_what_is_no_allocation_s_number_is_refused(nth: object) -> None:
    with pytest.raises((TypeError, ValueError), match="nth must be"):
        debug.FailingMemory(nth)  # type: ignore[arg-type]


def test_every_source_has_a_name() -> None:
    assert [source.name for source in MemorySource] == ["ANY", "LIBEVENT", "OURS", "OPENSSL"]
