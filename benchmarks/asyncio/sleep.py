"""A coroutine that sleeps for 0 seconds, again and again."""

import asyncio

from benchmarks.asyncio.loop import loop
from benchmarks.contender import processor_time, serve


async def sleep(count: int) -> int:
    start = processor_time()
    for _ in range(count):
        await asyncio.sleep(0)
    return processor_time() - start


def sample(count: int) -> tuple[int, int]:
    return loop.run_until_complete(sleep(count)), count


serve(sample)
