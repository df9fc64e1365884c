"""Watches an application's files, in a process of its own: the master has no threads to fork.

`watchfiles` does it if it is there (``pip install 'libevent_py[reload]'``); else all files are
looked at twice a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence

#: How often files are looked at without watchfiles, in seconds; and the parent process with it.
PERIOD = 0.5

#: Directories in which nobody edits an application.
LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages"})

#: What files of an application are called.
ENDINGS = (".py", ".pyi", ".toml", ".env", ".html", ".jinja2")


def is_watched(path: str) -> bool:
    """Tell whether the file *path* may be a part of an application."""
    return path.endswith(ENDINGS)


#: When each file was changed, and its size.
Times = dict[str, tuple[int, int]]


def times(places: Sequence[str]) -> Times:
    """Return when each file below *places* was changed, and its size."""
    found = {}
    for place in places:
        for where, directories, files in os.walk(place):
            directories[:] = [
                name for name in directories if name not in LEFT_OUT and not name.startswith(".")
            ]
            for name in files:
                path = os.path.join(where, name)
                if is_watched(path):
                    with contextlib.suppress(FileNotFoundError):  # it has just been removed
                        status = os.stat(path)
                        found[path] = status.st_mtime_ns, status.st_size
    return found


def differing(before: Times, now: Times) -> set[str]:
    """Return the files that have changed, come or gone."""
    return {path for path, _ in before.items() ^ now.items()}


def by_looking(places: Sequence[str]) -> Iterator[set[str]]:
    """Yield what has changed below *places*, again and again; often an empty set."""
    before = times(places)
    yield set()
    while True:
        time.sleep(PERIOD)
        now = times(places)
        yield differing(before, now)
        before = now


def by_watchfiles(places: Sequence[str]) -> Iterator[set[str]]:
    """Do the same by `watchfiles`; `ModuleNotFoundError` if it isn't there."""
    import watchfiles

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the master says what has changed
    found = watchfiles.watch(
        *places,
        watch_filter=lambda _change, path: is_watched(path) and not LEFT_OUT & {*path.split("/")},
        yield_on_timeout=True,
        rust_timeout=int(PERIOD * 1000),
        raise_interrupt=False,
    )
    return ({path for _, path in changes} for changes in found)


def watch(places: Sequence[str], before: Times, fd: int) -> None:
    """Write each file that changes below *places* to *fd*, a line each, while the parent lives.

    A file that has changed since *before* is the first: the parent's workers may have read it
    before that. An empty line tells that whatever changes from now on is seen.
    """
    parent = os.getppid()
    try:
        changes = by_watchfiles(places)
    except ModuleNotFoundError:
        changes = by_looking(places)
    changed = next(changes)  # neither looks at anything before it is asked for the first time
    os.write(fd, b"\n")
    changed |= differing(before, times(places))
    while os.getppid() == parent:
        for path in sorted(changed):
            os.write(fd, os.fsencode(path) + b"\n")
        changed = next(changes)
