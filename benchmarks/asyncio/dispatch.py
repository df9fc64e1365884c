"""A callback that schedules itself with call_soon."""

from benchmarks.asyncio.loop import loop
from benchmarks.contender import processor_time, serve


def sample(count: int) -> tuple[int, int]:
    left = count

    def callback() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(callback)
        else:
            loop.stop()

    start = processor_time()
    loop.call_soon(callback)
    loop.run_forever()
    return processor_time() - start, count - left


serve(sample)
