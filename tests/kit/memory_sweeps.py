"""What sweeps of failing memory share: each runs in another Python process, as it may crash."""

from __future__ import annotations

import textwrap
from typing import Any

from tests.kit.support import run_python

#: Fails each allocation of something in turn, alone and with all that follow, until nothing fails.
PRELUDE = """
    import gc
    import itertools
    import os
    import socket
    import tempfile
    import traceback
    import warnings
    from libevent_py import *
    from libevent_py import debug, rpc_message, tag, ffi, lib
    from libevent_py._core.references import release

    NOW = LoopFlag.NONBLOCK | LoopFlag.ONCE
    READ, WRITE = EventFlag.READ, EventFlag.WRITE
    warnings.simplefilter("ignore", ResourceWarning)  # what is not made leaves what it was made of
    debug.count_memory()
    gc.collect()
    gc.freeze()  # there are hundreds of collections

    def live():
        gc.collect()
        release()
        gc.collect()
        return {block for block in debug.memory_blocks() if block.source != MemorySource.OPENSSL}

    def turns(base, number=4):
        for _ in range(number):
            base.loop(NOW)

    def check_the_loop(base):
        fired = []
        base.once(lambda fd, what: fired.append(what), timeout=0.0)
        while not fired:
            base.loop(LoopFlag.ONCE)

    def attempt(make, begin, use, nth, onwards, source, may_succeed):
        before = live()
        base = EventBase()
        context = begin(base)
        if not nth:
            made, refused = make(base, context), 1
        else:
            made = None
            with debug.FailingMemory(nth, onwards=onwards, source=source) as failing:
                try:
                    made = make(base, context)
                except MemoryError as error:
                    assert failing.refused, f"nothing has failed: {error}"
                    traceback.clear_frames(error.__traceback__)
                else:
                    assert may_succeed or not failing.refused, f"{nth} has failed, {make} not"
            refused = failing.refused
        check_the_loop(base)
        if made is not None:
            use(base, made, context)
        del made, context
        base.close()
        del base
        assert live() == before, f"{nth}: {sorted(live() ^ before)}"
        return refused

    def nothing(base, *made):
        return None

    def sweep(make, begin=nothing, use=nothing, may_succeed=False, source=MemorySource.ANY):
        attempt(make, begin, use, 0, False, source, True)  # what is made once for the process
        for onwards in False, True:
            for nth in itertools.count(1):
                if not attempt(make, begin, use, nth, onwards, source, may_succeed):
                    break
        print(nth - 1)
"""


def swept(code: str, arguments: str = "", **how: Any) -> int:
    """Return how many allocations of *code*'s ``make`` have failed in turn."""
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(code) + f"\nsweep(make, {arguments})\n"
    return int(run_python(source, **how))


#: The same for a loop: what is set up before may lose a message, but nothing more.
LOOPS = """
    def run_loops(set_up, source=MemorySource.ANY, step=1):
        failed = told = 0
        for nth in itertools.count(0, step):
            before = live()
            base = EventBase()
            answers = []
            set_up(base, lambda answer: (answers.append(answer), base.closed or base.loopbreak()))
            base.loopexit(0.2)
            if not nth:
                base.dispatch()
                assert answers, "it doesn't work even where nothing fails"
                refused = 1
            else:
                with debug.FailingMemory(nth, source=source) as failing:
                    try:
                        base.dispatch()
                    except MemoryError as error:
                        failed += 1
                        traceback.clear_frames(error.__traceback__)
                refused = failing.refused
                if not answers:
                    base.loopexit(0.2)
                    base.dispatch()
            told += bool(answers)
            check_the_loop(base)
            base.close()
            del base
            if nth:
                assert live() == before, f"{nth}: {sorted(live() ^ before)}"
            if not refused:
                break
        print(nth - 1, failed, told)
"""


def looped(code: str, arguments: str = "", **how: Any) -> tuple[int, int, int]:
    """Return how many allocations in *code*'s loop have failed, raised and left an answer."""
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(LOOPS) + textwrap.dedent(code)
    printed = run_python(f"{source}\nrun_loops(set_up, {arguments})\n", **how)
    number, failed, told = printed.split()
    return int(number), int(failed), int(told)


#: The environment in which OpenSSL's memory is counted, too.
COUNTED = {"LIBEVENT_PY_COUNT_MEMORY": "1"}

__all__ = ["COUNTED", "looped", "swept"]
