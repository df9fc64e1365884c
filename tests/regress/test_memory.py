"""The rows of libevent's regression suite that replace its memory functions.

Of group ``main`` mm_functions, of ``finalize`` free_finalize, of ``dns`` the rows leak_…, and the
last halves of ``readln`` and ``callbacks`` of ``evbuffer``. Each runs in a process of its own.
"""

from __future__ import annotations

import pytest

from tests.kit.support import run_python
from tests.kit.variants import VARIANTS, Variant


def test_mm_functions() -> None:
    """A base and a configuration come from the functions that are set, and go back to them."""
    run_python(
        """
        from libevent_py import ffi, lib
        from tests.kit.raw_memory import Guarded, restore

        memory = Guarded()
        config = lib.event_config_new()
        assert lib.event_config_avoid_method(config, b"Nonesuch") == 0
        base = lib.event_base_new_with_config(config)
        assert base
        for pointer in base, config:
            memory.check(ffi.cast("void *", pointer))
        lib.event_config_free(config)
        lib.event_base_free(base)
        assert memory.wrong == []
        restore()
        """
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_assert_ok(variant: Variant) -> None:
    """What each test of libevent's own checks at its end reads nothing but what is written.

    C's rows ``add_file_…`` see that, as rows before them have set memory functions.
    """
    run_python(
        f"""
        import socket
        from libevent_py import ffi, lib
        from tests.kit.raw_memory import Filled, restore
        from tests.kit.variants import VARIANTS, assert_ok

        @ffi.callback("event_callback_fn")
        def never(fd, what, arg):
            raise AssertionError("called")

        (variant,) = [variant for variant in VARIANTS if variant.name == {variant.name!r}]
        config = variant.config()
        memory = Filled()
        base = lib.event_base_new_with_config(config.pointer)
        assert base
        pair = socket.socketpair()
        what = lib.EV_READ | lib.EV_PERSIST
        events = [lib.event_new(base, end.fileno(), what, never, ffi.NULL) for end in pair]
        for event in events:
            assert lib.event_add(event, ffi.NULL) == 0
            assert_ok(base)
        assert lib.event_base_loop(base, lib.EVLOOP_NONBLOCK) == 0
        assert_ok(base)
        for event in events:
            lib.event_free(event)
            assert_ok(base)
        lib.event_base_free(base)
        config.close()
        for end in pair:
            end.close()
        restore()
        """
    )


def test_free_finalize() -> None:
    """event_free_finalize() frees the event after its finalizer, event_finalize() doesn't."""
    run_python(
        """
        from libevent_py import ffi, lib
        from tests.kit.raw_memory import Counted, restore

        called = []

        @ffi.callback("event_callback_fn")
        def timer(fd, what, arg):
            called.append("timer")

        @ffi.callback("event_finalize_callback_fn")
        def finalize(ev, arg):
            called.append((ev, arg))
            assert ffi.cast("void *", ev) not in memory.freed

        memory = Counted()
        base = lib.event_base_new()
        args = [ffi.cast("void *", number) for number in (1, 2)]
        one, two = (lib.event_new(base, -1, 0, timer, arg) for arg in args)
        memory.freed.clear()
        assert lib.event_free_finalize(0, one, finalize) == 0
        assert lib.event_finalize(0, two, finalize) == 0
        assert lib.event_base_dispatch(base) == 1
        assert called == [(one, args[0]), (two, args[1])]
        assert memory.freed.count(ffi.cast("void *", one)) == 1
        assert ffi.cast("void *", two) not in memory.freed
        lib.event_free(two)
        assert memory.freed.count(ffi.cast("void *", two)) == 1
        lib.event_base_free(base)
        restore()
        """
    )


def test_readln() -> None:
    """Where there is no memory for a line, it stays, and can be had later."""
    run_python(
        """
        from libevent_py import ffi, lib
        from tests.kit.raw import copied, evbuffer, readln
        from tests.kit.raw_memory import Counted, restore

        text = b"one line\\ntwo lines\\nred line"
        buffer = evbuffer(text)
        memory = Counted()
        assert readln(buffer, lib.EVBUFFER_EOL_LF) == b"one line"
        memory.failing = True
        assert readln(buffer, lib.EVBUFFER_EOL_LF) is None
        memory.failing = False
        assert copied(buffer) == text[9:]
        assert readln(buffer, lib.EVBUFFER_EOL_LF) == b"two lines"
        restore()
        """
    )


def test_callbacks() -> None:
    """Where there is no memory for a callback, the buffer is without any, and as it was."""
    run_python(
        """
        from libevent_py import ffi, lib
        from tests.kit.raw import add, copied, evbuffer
        from tests.kit.raw_memory import Counted, restore

        @ffi.callback("evbuffer_cb")
        def never(buffer, before, now, arg):
            raise AssertionError("called")

        buffer = evbuffer(b"some text")
        memory = Counted()
        memory.failing = True
        assert lib.evbuffer_setcb(buffer, never, ffi.NULL) == -1
        assert lib.evbuffer_add(buffer, bytes(10000), 10000) == -1
        memory.failing = False
        assert copied(buffer) == b"some text"
        add(buffer, b", and more")
        assert copied(buffer) == b"some text, and more"
        restore()
        """
    )


LEAK = {
    "shutdown": "free(1)",
    "cancel": "cancel(); loop(); free(1)",
    "resume": "resume(); loop(); free(0); loop()",
    "cancel_and_resume": "cancel(); resume(); loop(); free(0); loop()",
    "resume_send_err": "resume(); loop(); free(1); loop()",
    "cancel_and_resume_send_err": "cancel(); resume(); loop(); free(1); loop()",
}

TOLD = {
    "shutdown": "SHUTDOWN",
    "cancel": "CANCEL",
    "resume": "none",
    "cancel_and_resume": "CANCEL",
    "resume_send_err": "SHUTDOWN",
    "cancel_and_resume_send_err": "CANCEL",
}


@pytest.mark.parametrize("steps", LEAK)
def test_leak(steps: str) -> None:
    """A lookup without a name server leaves no memory, however it ends."""
    output = run_python(
        f"""
        import os
        from libevent_py import ffi, lib
        from tests.kit.raw_memory import Counted, restore

        told = []

        @ffi.callback("evdns_callback_type")
        def callback(result, type, count, ttl, addresses, arg):
            told.append(result)

        lib.libevent_global_shutdown()
        memory = Counted()
        lib.event_enable_debug_mode()
        base = lib.event_base_new()
        dns = lib.evdns_base_new(base, 0)
        flags = lib.DNS_QUERY_NO_SEARCH
        lookup = lib.evdns_base_resolve_ipv4(dns, b"example.com", flags, callback, ffi.NULL)
        assert lookup and memory.blocks

        def cancel():
            lib.evdns_cancel_request(dns, lookup)

        def resume():
            assert lib.evdns_base_resume(dns) == 0

        def loop():
            assert lib.event_base_loop(base, lib.EVLOOP_NONBLOCK) in (0, 1)

        def free(tell):
            lib.evdns_base_free(dns, tell)

        {LEAK[steps]}
        loop()
        lib.event_base_free(base)
        lib.libevent_global_shutdown()
        assert memory.blocks == 0, memory.blocks
        restore()
        names = {{lib.DNS_ERR_CANCEL: "CANCEL", lib.DNS_ERR_SHUTDOWN: "SHUTDOWN"}}
        print(*([names[result] for result in told] or ["none"]), flush=True)
        os._exit(0)  # nothing of libevent's is left that Python could clean up
        """
    )
    assert output == f"{TOLD[steps]}\n"
