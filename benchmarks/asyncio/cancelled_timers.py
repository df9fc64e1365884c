"""Timers by call_later, of which all are cancelled before they are due: a thousand in each turn."""

import asyncio

from benchmarks.asyncio.loop import loop
from benchmarks.contender import HOUR, processor_time, serve

IN_A_TURN = 1000


async def cancel(count: int) -> int:
    start = processor_time()
    for _ in range(count // IN_A_TURN):
        for timer in [loop.call_later(HOUR, print) for _ in range(IN_A_TURN)]:
            timer.cancel()
        await asyncio.sleep(0)
    return processor_time() - start


def sample(count: int) -> tuple[int, int]:
    return loop.run_until_complete(cancel(count)), count // IN_A_TURN * IN_A_TURN


serve(sample)
