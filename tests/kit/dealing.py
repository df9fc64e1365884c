"""The order of the tests, so that no processor waits for another one at the end, nor for a lock.

pytest-xdist, with ``--dist worksteal``, gives each worker as many tests, in order, and one that is
done takes from the end of another's. So each begins with a share of what takes long, and all end
with what takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shares(
    long: Iterable[T], workers: int, together: Callable[[T], Hashable | None]
) -> list[list[T]]:
    """Return what each of the *workers* begins with of *long*.

    What *together* returns the same key for goes to the same worker: it shares what one of them
    makes, or would wait for. None is no key. What has the first key is for the first worker alone:
    most of them have that.
    """
    found: list[list[T]] = [[] for _ in range(workers)]
    others = found[1:] or found
    keys: dict[Hashable, list[T]] = {}
    alone: list[T] = []
    for each in long:
        key = together(each)
        if key is None:
            alone.append(each)
            continue
        if key not in keys:
            keys[key] = others[len(keys) % len(others)] if keys else found[0]
        keys[key].append(each)
    for each in alone:
        min(others, key=len).append(each)
    return found


def in_order(begun_with: Sequence[Sequence[T]], rest: Sequence[T]) -> list[T]:
    """Return all tests in such an order that each worker gets its own of *begun_with* first."""
    order: list[T] = []
    left = sum(map(len, begun_with)) + len(rest)
    at = 0
    for number, own in enumerate(begun_with):
        given = left // (len(begun_with) - number)
        filled = max(0, given - len(own))
        order += [*own, *rest[at : at + filled]]
        at += filled
        left -= max(given, len(own))
    return [*order, *rest[at:]]
