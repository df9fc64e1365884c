"""All servers under good and bad clients at once, for some seconds; `make soak` takes longer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.soak.__main__ import LONG, Failed, check, soak

REST: dict[str, Any] = {
    "seconds": LONG,
    "memory": 50 << 20,
    "descriptors": 20,
    "objects": 10,
    "blocks of libevent": 100,
    "blocks of Python": 100_000,
}


@pytest.mark.more
def test_nothing_grows_and_no_byte_is_lost_whatever_others_do() -> None:
    report = soak(3.0, length=1.0, held=100, number=1, warm=1)
    done = report["clients"]["done"]
    assert all(done[kind] for kind in ("http", "https", "echo", "proxy", "dns", "misbehaved"))
    assert report["clients"]["bytes"] > 100_000
    assert report["servers"]["done"]["held"] == 100


@pytest.mark.parametrize("name", ["descriptors", "objects", "blocks of libevent"])
def test_one_more_at_rest_is_seen(name: str) -> None:
    check([REST, REST])
    with pytest.raises(Failed, match=name):
        check([REST, REST, {**REST, name: REST[name] + 1}])


@pytest.mark.parametrize("name", ["memory", "blocks of Python"])
def test_memory_that_grows_is_seen(name: str) -> None:
    rests = [{**REST, name: REST[name] * (100 + number) // 100} for number in range(9)]
    with pytest.raises(Failed, match=name):
        check(rests)
    check([{**REST, name: REST[name] + number} for number in range(9)])


def test_memory_may_grow_at_first() -> None:
    check([{**REST, "seconds": 60.0, "memory": number << 20} for number in range(50, 59)])
