"""Event bases for tests: one per backend, each closed and looked at when the test has ended."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from libevent_py.event.base import EventBase
from libevent_py.event.explain import left_over

#: All of libevent's, wherever they are.
KNOWN = ("evport", "kqueue", "epoll", "devpoll", "poll", "select", "win32")


def named(wanted: str) -> list[str]:
    """Return the backends that the option ``--libevent-backends`` names."""
    supported = EventBase.supported_methods()
    if wanted == "all":
        return supported
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in names if name not in supported]
    if unknown or not names:
        raise pytest.UsageError(
            f"--libevent-backends: {wanted!r} is neither all nor some of {', '.join(supported)}"
        )
    return names


def parametrize(metafunc: pytest.Metafunc, marked: pytest.Mark | None, wanted: str | None) -> None:
    """Have the test of *metafunc* run once for each backend that is named."""
    supported = EventBase.supported_methods()
    names = named(wanted) if wanted else supported
    if marked is not None and marked.args:
        for name in marked.args:
            if name not in KNOWN:
                raise pytest.Collector.CollectError(
                    f"{metafunc.definition.nodeid}: the mark backends has {name!r}, which is none "
                    f"of {', '.join(KNOWN)}"
                )
        chosen = [name for name in marked.args if name in names or name not in supported]
        names = chosen or list(marked.args)
    wanted_here = set(named(wanted)) if wanted else set(supported)
    params = []
    for name in names:
        marks = []
        if name not in supported:
            marks.append(pytest.mark.skip(reason=f"this libevent has no {name} here"))
        elif name not in wanted_here:
            marks.append(pytest.mark.skip(reason=f"{name} is not among --libevent-backends"))
        params.append(pytest.param(name, marks=marks))
    metafunc.parametrize("libevent_backend", params, indirect=True)


def checked(backend: str | None, cut_short: Callable[[], bool]) -> Iterator[EventBase]:
    """Yield a base on *backend*; afterwards close it, and fail if something is left on it.

    If the test has failed, or was skipped in its middle, the traceback keeps its objects, and
    nothing is said of them.
    """
    base = EventBase(method=backend)
    left: list[str] = []
    try:
        yield base
        if not (base.closed or cut_short()):
            gc.collect()
            left = left_over(base)
    finally:
        base.close()
    if left:
        told = "\n".join(f"  {line}" for line in left)
        pytest.fail(f"the test has left on its event_base, and not closed:\n{told}", pytrace=False)
