"""Misuse of every public class, cell by cell: ``python -m tests.kit.misuse [CLASS …]``.

A cell is a class, an act and a scene. Each has a process of its own, forked from one that has
imported everything, so that a crash names its cell and harms no other. In the end of every cell all
is closed, nothing is left, and Python ends as ever, with nothing on its standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import inspect
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import libevent_py
from libevent_py import ClosedError, ForkError, LibeventError, ThreadError, debug, errors
from libevent_py._core.dispatch import live, roots
from libevent_py._core.references import release
from libevent_py._core.wakeup import wakeup
from tests.kit.busy import BUSY
from tests.kit.operations import OPERATIONS
from tests.kit.processes import descriptors, in_child
from tests.kit.scenes import (
    ONCE_NOW,
    SCENES,
    Maker,
    Scene,
    accept_all,
    file,
    listening,
    server_context,
)

#: How long a cell may take, in seconds: then it hangs.
PATIENCE = 60


class Oops(Exception):
    """What callbacks raise here."""


class Cell(NamedTuple):
    """One misuse of one class."""

    kind: str
    act: str
    scene: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.scene}): {self.act}"


class Done(NamedTuple):
    """How the process of a cell has ended."""

    cell: Cell
    status: int
    outcome: str
    stderr: str


Act = Callable[[Scene, str], str]


# What acts do.


def names_of(s: Scene) -> list[str]:
    """Return the names by which the scene has what it is about."""
    return [name for name, thing in vars(s).items() if thing is s.it]


def close(s: Scene) -> None:
    """Close what the scene is about, as it is closed."""
    how = next((s.closes[name] for name in names_of(s) if name in s.closes), "close")
    getattr(s.it, how, ignored)()


def ignored() -> None:
    """Close what has no way to be closed."""


def ended(thing: Any) -> str:
    """Return whether *thing* is at its end."""
    over = thing.closed if hasattr(thing, "closed") else not getattr(thing, "pending", False)
    return "closed" if over else "open"


def inside(s: Scene, function: Callable[[], str]) -> str:
    """Return what *function* returns where the scene is entered; raise what it raises."""
    told: list[str] = []
    try:
        s.enter(lambda: told.append(function()))
    except ClosedError:
        told.append("ClosedError")
    turn(s)
    return ", ".join(told)


#: What may be raised where something is refused.
REFUSALS = (RuntimeError, ValueError)


def refusal(error: Exception) -> str:
    """Return what it is that refuses something by *error*; raise that if it is something else."""
    if isinstance(error, LibeventError) or type(error) not in REFUSALS:
        raise error
    return f"refused by {type(error).__name__}"


def turn(s: Scene) -> None:
    """Let the loop go on for a while, if there is one that is this process's."""
    base = s.base
    for _ in range(5):
        if base is None or base.closed or base._parked is not None:
            return
        base.loop(ONCE_NOW)


#: Operations that end the object or change its owner: tried after the others.
LAST = re.compile(
    r"close|__enter__|__exit__|cancel|drop$|take_over|reinit|dispatch|loop$|turn|in_thread"
)

#: What always works, in whichever state.
ALWAYS = {"__reduce_ex__", "__repr__", "base", "closed"}

#: What is told where nothing has been refused.
EVERYTHING = "everything"


def makes(kind: str, name: str) -> bool:
    """Tell whether the operation *name* makes another object, and is not about the one there is."""
    name = name.partition("/")[0]
    method = inspect.getattr_static(getattr(libevent_py, kind, None), name, None)
    return name == "__init__" or isinstance(method, classmethod | staticmethod)


def refused(s: Scene, kind: str, by: type[Exception]) -> str:
    """Try all operations that the scene has the arguments of; tell which were not refused.

    They are refused *by* that, or by what says that an argument, a moment or an owner is wrong. One
    that raised something else is told with that.
    """
    done: list[str] = []
    denied: list[str] = []
    names = {name for name in OPERATIONS[kind] if name != "__del__"}
    if by is ClosedError:
        names = {name for name in names if not makes(kind, name)}
    for name in sorted(names, key=lambda name: (LAST.match(name) is not None, name)):
        try:
            OPERATIONS[kind][name](s)
        except AttributeError as error:
            if getattr(error, "obj", None) is not s:
                raise
            continue
        except Exception as error:
            assert name not in ALWAYS
            ended = isinstance(error, ClosedError) and LAST.match(name)  # by the one before
            if isinstance(error, by) and not LAST.match(name):
                denied.append(name)
            elif not (isinstance(error, by) or type(error) in REFUSALS or ended):
                done.append(f"{name} ({type(error).__name__})")
        else:
            done.append(name)
    if len(denied) < len(done) / 4:
        return f"{EVERYTHING} but {'; '.join(denied)}" if denied else EVERYTHING
    return "; ".join(sorted({*done} - ALWAYS))


# The acts.


def close_inside(s: Scene, _kind: str) -> str:
    """Close it twice in its own callback."""

    def act() -> str:
        try:
            close(s)
            close(s)
        except REFUSALS as error:
            return refusal(error)
        return ended(s.it)

    return inside(s, act)


def drop_inside(s: Scene, _kind: str) -> str:
    """Drop it in its own callback, and collect what nobody has."""

    def act() -> str:
        with contextlib.suppress(TypeError):
            refs.append(weakref.ref(s.it))
        for name in names_of(s):
            delattr(s, name)
            s.closes.pop(name, None)
        gc.collect()
        return "dropped"

    refs: list[Any] = []
    inside(s, act)
    gc.collect()
    return ("kept" if refs[0]() is not None else "gone") if refs else "unknown"


def close_base_first(s: Scene, kind: str) -> str:
    """Close the base, if there is one, and then the object."""
    if s.base is None:
        return "no base"
    s.base.close()
    outcome = ended(s.it)
    try:
        close(s)
    except REFUSALS as error:
        return f"{outcome}, {refusal(error)}"
    assert ended(s.it) in ("closed", outcome)
    return outcome


def use_after_close(s: Scene, kind: str) -> str:
    """Close it, and try all operations."""
    try:
        close(s)
    except REFUSALS as error:
        return refusal(error)
    return refused(s, kind, ClosedError)


def fork(s: Scene, kind: str) -> str:
    """Try all operations in a forked child; the parent goes on."""
    return refused_in_child(s, lambda: refused(s, kind, ForkError))


def refused_in_child(s: Scene, function: Callable[[], str]) -> str:
    """Return what *function* returns in a child, which then closes everything."""

    def child() -> None:
        told = function()
        finish(s)
        writer.write(told)
        writer.flush()

    with tempfile.TemporaryFile("w+") as writer:
        in_child(child)
        writer.seek(0)
        outcome = writer.read()
    turn(s)
    return outcome


def fork_inside(s: Scene, _kind: str) -> str:
    """Fork in its callback, and go on in the child without `reinit`, and in the parent."""
    return forked_inside(s, lambda: None)


def reinit_in_child(s: Scene, _kind: str) -> str:
    """Fork in its callback, and go on in the child after `reinit`, and in the parent."""
    return forked_inside(s, lambda: s.base.reinit() if s.base is not None else None)


def forked_inside(s: Scene, prepare: Callable[[], object]) -> str:
    """Return how it goes on in a child that has been forked where the scene is entered."""
    reader, writer = os.pipe()
    pid = -1

    def act() -> str:
        nonlocal pid
        pid = os.fork()
        if not pid:
            signal.alarm(PATIENCE)
            prepare()
        return "went on"

    try:
        outcome = inside(s, act)
    except ForkError:
        outcome = "stopped"
    except BaseException:
        if pid:
            raise
        outcome = traceback.format_exc()
    if not pid:
        try:
            finish(s)
        except BaseException:
            outcome += traceback.format_exc()
        os.write(writer, outcome.encode()[-60_000:])
        os._exit(0)
    assert outcome == "went on"
    os.close(writer)
    with open(reader) as told:
        outcome = told.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child has ended with {status}"
    return outcome


def use_in_thread(s: Scene, kind: str) -> str:
    """Try all operations in another thread."""
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(refused(s, kind, ThreadError)))
    thread.start()
    thread.join(PATIENCE)
    return told[0]


def use_in_thread_inside(s: Scene, kind: str) -> str:
    """Try all operations in another thread, while its callback runs.

    What is on no base has a lock of its own, for which that thread may have to wait.
    """
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(refused(s, kind, ThreadError)))

    def act() -> str:
        thread.start()
        if hasattr(s.it, "base") or s.it is s.base:
            thread.join(PATIENCE)
        return ""

    inside(s, act)
    thread.join(PATIENCE)
    return told[0]


def raise_inside(s: Scene, _kind: str) -> str:
    """Raise in its callback: the exception comes out once."""

    def act() -> None:
        raise Oops

    base, told = s.base, ""
    try:
        s.enter(act)
    except Oops:
        told = "raised"
    turn(s)
    assert base is None or base is s.base
    return told


def report_inside(s: Scene, _kind: str) -> str:
    """Raise in its callback where there is an `on_error`, which gets it once."""
    told: list[str] = []

    def act() -> None:
        raise Oops

    def on_error(error: Exception, source: object) -> None:
        assert isinstance(error, Oops)
        told.append(f"told of {type(source).__name__}")

    if s.base is not None and s.base.on_error is None:
        s.base.on_error = on_error
    try:
        s.enter(act)
    except Oops:
        told.append("raised")
    turn(s)
    return ", ".join(told)


def reinit_inside(s: Scene, _kind: str) -> str:
    """Call `reinit` in its callback."""

    def act() -> str:
        if s.base is None:
            return "no base"
        s.base.reinit()
        return "went on"

    return inside(s, act)


def exit_inside(s: Scene, _kind: str) -> str:
    """Call `sys.exit` in its callback, and end with everything open."""
    s.enter(lambda: sys.exit(0))
    return "not raised"


def exit_busy(s: Scene, _kind: str) -> str:
    """End with everything open."""
    sys.exit(0)


#: For each act what makes its scenes.
REST = {
    kind: {name: make for name, make in scenes.items() if name not in BUSY[kind]}
    for kind, scenes in SCENES.items()
    if kind != "tag"
}

ACTS: dict[Act, dict[str, dict[str, Maker]]] = {
    close_inside: BUSY,
    drop_inside: BUSY,
    close_base_first: REST,
    use_after_close: REST,
    fork: REST,
    fork_inside: BUSY,
    reinit_in_child: BUSY,
    use_in_thread: REST,
    use_in_thread_inside: BUSY,
    raise_inside: BUSY,
    report_inside: BUSY,
    reinit_inside: BUSY,
    exit_inside: BUSY,
    exit_busy: REST,
}

BY_NAME = {act.__name__.replace("_", " "): act for act in ACTS}

#: The acts that end the process with everything open.
EXITS = {exit_inside, exit_busy}


def cells(kinds: list[str]) -> Iterator[Cell]:
    """Yield all cells of *kinds*."""
    for kind in kinds:
        for name, act in BY_NAME.items():
            for scene in ACTS[act][kind]:
                yield Cell(kind, name, scene)


# One cell.


def left() -> dict[str, object]:
    """Return what must be the same after each cell."""
    for _ in range(2):
        gc.collect()
        release()
    blocks = debug.memory_blocks() if debug.counts_memory() else []
    return {
        "bases that C may call": live.bases,
        "exceptions that are kept": list(errors.entered.here.raised),
        "bases": [root for root in roots if not root.closed],
        "descriptors": descriptors(),
        "blocks": {(block.number, block.size, block.source) for block in blocks},
    }


def finish(s: Scene) -> None:
    """Close everything; what another owns may have been closed by that, or is the parent's."""
    for name in reversed(s.closes):
        thing = vars(s).get(name)
        if thing is not None:
            with contextlib.suppress(ForkError, ValueError):
                getattr(thing, s.closes[name])()
    base = s.base
    if base is not None:
        turn(s)
        base.close()
        assert base.closed
        assert not base._graveyard
        assert not base._live, base._live
        assert not base._ledger, [ref() for ref in base._ledger.values()]
    stack = s.stack
    vars(s).clear()
    stack.close()
    accept_all()


def run(cell: Cell) -> str:
    """Do *cell*, and return what has come of it."""
    act = BY_NAME[cell.act]
    before = left()
    scene = Scene()
    ACTS[act][cell.kind][cell.scene](scene)
    outcome = act(scene, cell.kind)
    finish(scene)
    del scene
    after = left()
    for what, value in before.items():
        assert after[what] == value, f"{what}: {value} before, {after[what]} afterwards"
    return outcome


def warm_up() -> None:
    """Make what all cells share, once for the process."""
    warnings.filterwarnings("ignore", "unclosed", ResourceWarning)  # where all is left open
    debug.count_memory()
    wakeup()
    listening(), file(), server_context()
    run(Cell("HttpConnection", "reinit inside", "in a request's callback"))
    run(Cell("BufferEvent", "reinit inside", "in on_event, TLS"))
    run(Cell("DnsLookup", "reinit inside", "in its callback"))
    gc.collect()
    gc.freeze()


# All cells.


class Runner:
    """What forks for each cell."""

    def __init__(self) -> None:
        self.output, self.told = (os.memfd_create(name) for name in ("stderr", "told"))

    def run(self, cell: Cell) -> Done:
        """Have *cell* done in a child, which never returns from here but by an exception."""
        for fd in self.output, self.told:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
        pid = os.fork()
        if not pid:
            signal.alarm(PATIENCE)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what operations print
            os.dup2(self.output, 2)
            os.write(self.told, run(cell).encode())
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        accept_all()
        outcome, stderr = (
            os.pread(fd, 100_000, 0).decode(errors="replace") for fd in (self.told, self.output)
        )
        return Done(cell, os.waitstatus_to_exitcode(status), outcome, stderr)


def chosen(cell: Cell, share: int) -> bool:
    """Tell whether *cell* is among one of *share*: the same each time."""
    return zlib.crc32(str(cell).encode()) % share == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(REST), help="classes; else all")
    parser.add_argument("--share", type=int, default=1, help="one of so many cells")
    parser.add_argument("--act", choices=BY_NAME, help="only this act")
    parser.add_argument("--scene", help="only this scene")
    arguments = parser.parse_args()
    warm_up()
    runner = Runner()
    for cell in cells(arguments.kinds):
        act, scene = arguments.act or cell.act, arguments.scene or cell.scene
        if chosen(cell, arguments.share) and (act, scene) == (cell.act, cell.scene):
            began = time.monotonic()
            done = runner.run(cell)
            print(json.dumps([*cell, *done[1:], time.monotonic() - began]), flush=True)


if __name__ == "__main__":
    main()
