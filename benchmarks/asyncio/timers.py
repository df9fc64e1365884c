"""One-shot timers, scheduled and fired, by call_later."""

from benchmarks.asyncio.loop import loop
from benchmarks.contender import DELAYS, delays, processor_time, serve


def sample(count: int) -> tuple[int, int]:
    fired = 0

    def callback() -> None:
        nonlocal fired
        fired += 1

    start = processor_time()
    for delay in delays(count):
        loop.call_later(delay, callback)
    loop.call_later(max(DELAYS) + 0.010, loop.stop)  # after the last of them
    loop.run_forever()
    return processor_time() - start, fired


serve(sample)
