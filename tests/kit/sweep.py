"""Try the operations of a class with something else happening at each of their steps.

``python -m tests.kit.sweep CLASS …`` does so in another process, which may crash. Then the file
that LIBEVENT_PY_SWEEP_STATE names says what was being tried; the file must have 4096 bytes before.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import faulthandler
import functools
import gc
import mmap
import os
import re
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import BufferEvent, EventBase, LibeventError, debug, errors
from libevent_py._core import pointers
from libevent_py._core.dispatch import live, roots
from libevent_py._core.references import references, release
from libevent_py._core.wakeup import wakeup
from libevent_py.bufferevent.end import close_all
from tests.kit.interposing import Interposer
from tests.kit.operations import OPERATIONS, Operation
from tests.kit.scenes import ONCE_NOW, SCENES, Scene, accept_all

#: How long one try may take, in seconds: then it hangs.
PATIENCE = 60

#: What may come out of an operation that something has come in the middle of.
DOCUMENTED = (LibeventError, RuntimeError, ValueError)

#: What comes out of some besides.
BESIDES: dict[str, tuple[type[BaseException], ...]] = {
    "BufferEvent.connect": (OSError,),
    "BufferEvent.connect_hostname": (OSError,),
    "Buffer.write": (OSError,),
    # What ends a request unfreezes its body: nobody can tell any more that it was frozen.
    "HttpRequest.output_buffer=": (MemoryError,),
    "HttpServer.del_cb": (KeyError,),
    "HttpServer.remove_server_alias": (KeyError,),
    "Headers.__delitem__": (KeyError,),
    "Headers.pop": (KeyError,),
    "Headers.setdefault": (KeyError,),
    "Headers.__getitem__": (KeyError,),
    # What only another operation can bring about.
    "Query.__delitem__": (KeyError,),
    "Query.__getitem__": (KeyError,),
    "Query.pop": (KeyError,),
    "Query.setdefault": (KeyError,),
    "RpcServer.unregister": (KeyError,),
    "DnsBase.nameserver_add": (OSError,),
    "DnsBase.nameserver_ip_add": (OSError,),
    "DnsBase.nameserver_sockaddr_add": (OSError,),
}


#: What Python itself says in a `RuntimeError` of what has been changed while it was gone through.
PYTHONS_OWN = re.compile("changed size during iteration|mutated during iteration|keys changed")


class Failure(Exception):
    """What an operation has done that it must not."""


def is_documented(error: BaseException, name: str) -> bool:
    if isinstance(error, RecursionError | UnicodeError | NotImplementedError):
        return False
    if isinstance(error, RuntimeError) and PYTHONS_OWN.search(str(error)):
        return False
    group = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11 on
    if group is not None and isinstance(error, group):
        return all(is_documented(each, name) for each in error.exceptions)
    return isinstance(error, (*DOCUMENTED, *BESIDES.get(name.partition("/")[0], ())))


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class Try:
    """One operation, in a new scene, with one act at one of its steps."""

    #: Whether it comes where a signal handler can, and not at each instruction.
    signals = False

    def __init__(self, kind: str, scene: str, name: str, act: str) -> None:
        self.kind = kind
        self.name = name
        self.operation: Operation = OPERATIONS[kind][name]
        self.act_name = act
        self.scene = Scene()
        self.outcome: BaseException | None = None
        self.result: Any = None
        self.interposer: Interposer | None = None
        #: Whether all is closed that is on the base, before the base itself is.
        self.closes_all = kind != "EventBase" and name != "__del__"
        SCENES[kind][scene](self.scene)

    def acts(self) -> list[str]:
        """Return what can happen in this scene."""
        scene = self.scene
        names = ["drop", *(f"close {name}" for name in scene.closes), "interrupt"]
        if len(scene.closes) > 1:
            names.append("close all")
        return names + (["base.close", "base.loop"] if scene.base is not None else [])

    def act(self) -> None:
        """Do what is to happen in the middle."""
        name, scene = self.act_name, self.scene
        if name == "interrupt":
            raise KeyboardInterrupt
        if name == "drop":
            for attribute in (*scene.closes, "it", "base"):
                vars(scene).pop(attribute, None)
            gc.collect()
        elif name.startswith("base."):
            base = scene.base
            if base is not None:
                arguments = (ONCE_NOW,) if name == "base.loop" else ()
                self.refused(getattr(base, name.removeprefix("base.")), *arguments)
        elif name == "close all":
            for attribute in scene.closes:
                self.close(attribute)
        else:
            self.close(name.removeprefix("close "))

    def refused(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except RuntimeError as error:
            if not is_documented(error, self.name):
                raise
        except LibeventError:
            pass

    def close(self, attribute: str) -> None:
        """Close what the scene has as *attribute*, unless it can't be closed now."""
        thing = vars(self.scene).get(attribute)
        if thing is None:
            return
        try:
            getattr(thing, self.scene.closes[attribute])()
        except Exception as error:
            if not is_documented(error, self.name):
                raise Failure(f"close {attribute}: {told(error)}") from None

    def run(self, number: int, lines: bool) -> int:
        """Act at the step *number*; return how many steps there have been."""
        problems: list[BaseException] = []

        def act() -> None:
            try:
                self.act()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                problems.append(error)

        signals = self.signals or self.act_name == "interrupt"
        interposer = Interposer(act, number, lines=lines, signals=signals)
        self.interposer = interposer

        def call() -> None:
            try:
                self.result = interposer.run(self.operation, self.scene)
            except BaseException as error:
                self.outcome = error

        self.scene.enter(call)
        if problems:
            raise Failure(f"the act failed: {told(problems[0])}")
        self.judge(number >= 0)
        return interposer.steps

    def judge(self, acted: bool) -> None:
        error = self.outcome
        if isinstance(error, AttributeError) and isinstance(error.obj, Scene):
            return  # the scene's object is gone
        if error is None or is_documented(error, f"{self.kind}.{self.name}"):
            return
        if isinstance(error, KeyboardInterrupt) and self.act_name == "interrupt":
            return
        raise Failure(told(error))

    def finish(self) -> None:
        """Close all that there is, and look whether anything is left."""
        scene = self.scene
        if self.outcome is not None:
            traceback.clear_frames(self.outcome.__traceback__)
        self.outcome = None
        if self.act_name == "drop":
            self.result = None
            vars(scene).pop("it", None)
            for name in [name for name in vars(scene) if name not in ("stack", "closes")]:
                del vars(scene)[name]
        else:
            self.end_result()
            for name in reversed(scene.closes):
                self.close(name)
            base = scene.base
            if base is not None:
                self.end_base(base)
            vars(scene).pop("base", None)
            base = None
        stack = scene.stack
        vars(scene).clear()
        gc.collect()
        stack.close()
        accept_all()

    def end_result(self) -> None:
        result, self.result = self.result, None
        results = result if isinstance(result, (tuple, list)) else (result,)
        for each in results:
            close = getattr(each, "close", None)
            if isinstance(each, BufferEvent):
                close = functools.partial(close_all, each)
            if close is not None:
                try:
                    close()
                except Exception as error:
                    if not is_documented(error, self.name):
                        raise Failure(f"closing the result: {told(error)}") from None

    def end_base(self, base: EventBase) -> None:
        for _ in range(100):
            if base.closed or not (base._live or base._graveyard):
                break
            base.loop(ONCE_NOW)
        interrupted = self.act_name == "interrupt"
        if not base.closed and not interrupted and self.closes_all:
            self.expect_nothing(base)
        base.close()
        if not base.closed or base._graveyard:
            raise Failure("the base could not be closed")
        if not interrupted:
            self.expect_nothing(base)

    @staticmethod
    def expect_nothing(base: EventBase) -> None:
        left = [*base._live.values(), *(ref() for ref in base._ledger.values())]
        if left:
            raise Failure(f"left: {left}")


class Amid(Try):
    """One operation, and amid it another of the same object, as a signal handler would do it."""

    signals = True

    def __init__(self, kind: str, scene: str, name: str, act: str) -> None:
        super().__init__(kind, scene, name, act)
        #: What the operations in the middle have returned.
        self.others: list[Any] = []

        if "close" in name or "close" in act:  # it waits until what the other has written is sent
            self.closes_all = False

    def acts(self) -> list[str]:
        return [f"do {name}" for name in OPERATIONS[self.kind] if not name.startswith("__")]

    def act(self) -> None:
        name = self.act_name.removeprefix("do ")
        try:
            self.others.append(OPERATIONS[self.kind][name](self.scene))
        except Exception as error:
            gone = isinstance(error, AttributeError) and isinstance(error.obj, Scene)
            if not gone and not is_documented(error, f"{self.kind}.{name}"):
                raise

    def finish(self) -> None:
        own = self.result
        while self.others:
            self.result = self.others.pop()
            self.end_result()
        self.result = own
        own = None
        super().finish()


def lowest_free() -> int:
    """Return the lowest number that no descriptor has."""
    fd = os.dup(0)
    os.close(fd)
    return fd


def leftovers() -> dict[str, Any]:
    """Return what must be the same after each try."""
    return {
        "the lowest free descriptor": lowest_free(),
        "the bases that C may call": live.bases,
        "what callbacks have raised": list(errors.entered.here.raised),
        "the loop that runs": errors.entered.here.loop,
        "the bases": len(roots),
        "the pointers that are freed when let go": len(pointers._held),
        "what C refers to": len(references),
    }


#: What has been raised where nobody could take it.
unraisable: list[str] = []


def note_unraisable(args: Any) -> None:
    """Note what has been raised in a finalizer, unless it is the interrupt itself."""
    if not isinstance(args.exc_value, KeyboardInterrupt):
        unraisable.append(f"{args.object!r}: {told(args.exc_value)}")


class State:
    """What is being tried, where it is found when the process has died."""

    def __init__(self) -> None:
        path = os.environ.get("LIBEVENT_PY_SWEEP_STATE")
        self.memory: mmap.mmap | None = None
        if path:
            with open(path, "r+b") as file:
                self.memory = mmap.mmap(file.fileno(), 0)

    def note(self, text: str) -> None:
        if self.memory is not None:
            data = text.encode()[: len(self.memory)]
            self.memory[:] = data.ljust(len(self.memory), b"\0")


class Sweep:
    """The tries of a class."""

    #: What there was before the last try.
    before: dict[str, Any]

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.state = State()
        self.tries = 0
        self.failures: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}

    def attempt(
        self, kind: str, scene: str, name: str, act: str, number: int, *, first: bool = False
    ) -> tuple[int, list[str]]:
        """Make one try; return how many steps it took, and the acts that there are."""
        what = f"{kind} ({scene}): {name}, {act} at {number}"
        self.state.note(what)
        self.tries += 1
        steps, acts = 0, []
        blocks = debug.memory().blocks
        one = (Amid if self.arguments.others else Try)(kind, scene, name, act)
        try:
            acts = one.acts()
            steps = one.run(number, self.arguments.lines)
            if one.outcome is not None and number >= 0:
                self.note_outcome(f"{kind}.{name}", one.outcome)
        except Failure as failure:
            self.fail(what, one, str(failure))
        try:
            one.finish()
        except Exception as failure:
            self.fail(what, one, f"in the end: {told(failure)}")
            one.result = one.outcome = None
            stack = one.scene.stack
            with contextlib.suppress(Exception):
                one.scene.base.close()
            vars(one.scene).clear()
            gc.collect()
            stack.close()
        release()
        while unraisable:
            self.fail(what, one, f"in a finalizer: {unraisable.pop()}")
        now = leftovers()
        errors.entered.here.raised.clear()
        for text, before in self.before.items():
            if not first and now[text] != before:
                self.fail(what, one, f"{text}: {before} before, {now[text]} afterwards")
        self.before = leftovers()
        more = debug.memory().blocks - blocks
        if not first and more > 0:
            self.fail(what, one, f"memory: {more} blocks more afterwards")
        return steps, acts

    def note_outcome(self, name: str, error: BaseException) -> None:
        text = f"{type(error).__name__}: {str(error)[:90]}"
        self.outcomes[text] = self.outcomes.get(text, 0) + 1

    def fail(self, what: str, one: Try, text: str) -> None:
        where = one.interposer.where if one.interposer else None
        lines = text.splitlines()
        ours = [line for line in lines if "/libevent_py/" in line]
        key = "\n".join([*ours[-1:], re.sub(r"0x[0-9a-f]+", "", lines[-1])])
        self.failures[key] = self.failures.get(key, 0) + 1
        if self.failures[key] == 1:
            print(f"FAILED: {what}, {where}\n{text}", flush=True)

    def chosen(self, kind: str, scene: str, name: str, acts: list[str]) -> list[str]:
        """Return which of *acts* are to be tried: all, or a share that is the same each time."""
        share = self.arguments.share
        return [
            act for act in acts if zlib.crc32(f"{act} {name} {scene} {kind}".encode()) % share == 0
        ]

    def numbers(self, what: str, steps: int, most: int) -> Iterator[int]:
        """Yield which of the *steps* are to be tried: all, or some by a stride."""
        stride = max(1, -(-steps // most)) if most else 1
        yield from range(zlib.crc32(what.encode()) % stride, steps, stride)

    def run(self, kind: str) -> None:
        arguments = self.arguments
        for scene in SCENES[kind]:
            if arguments.scene is not None and arguments.scene != scene:
                continue
            for name in OPERATIONS[kind]:
                if arguments.only and name not in arguments.only:
                    continue
                self.before = leftovers()
                for first in (True, False):  # the first time, something may be made for good
                    _, acts = self.attempt(kind, scene, name, "close it", -1, first=first)
                for act in self.chosen(kind, scene, name, acts):
                    if arguments.act and act != arguments.act:
                        continue
                    faulthandler.dump_traceback_later(PATIENCE, exit=True)  # starts a thread
                    steps, _ = self.attempt(kind, scene, name, act, -1)
                    if arguments.step is not None:
                        self.attempt(kind, scene, name, act, arguments.step)
                        continue
                    for number in self.numbers(
                        f"{kind} {scene} {name} {act}", steps, arguments.most
                    ):
                        self.attempt(kind, scene, name, act, number)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="+", choices=OPERATIONS)
    add = parser.add_argument
    add("--lines", action="store_true", help="a step for each line, not for each instruction")
    add("--most", type=int, default=0, help="at most so many steps of each operation and act")
    add("--share", type=int, default=1, help="one of so many acts of all that there are")
    add("--others", action="store_true", help="the acts are the other operations of the class")
    add("--scene", help="only the scene of this name")
    add("--only", nargs="*", help="only the operations of these names")
    add("--act", help="only this act, as 'close all'")
    add("--step", type=int, help="only this step")
    add("--outcomes", action="store_true", help="tell in the end what has been raised")
    arguments = parser.parse_args()
    wakeup()
    debug.count_memory()
    sys.unraisablehook = note_unraisable
    sweep = Sweep(arguments)
    accept_all()
    gc.collect()
    gc.freeze()
    gc.disable()
    for kind in arguments.kinds:
        began = time.monotonic()
        sweep.tries = 0
        sweep.run(kind)
        print(f"{kind}: {sweep.tries} tries, {time.monotonic() - began:.1f} s")
    faulthandler.cancel_dump_traceback_later()
    for key, count in sweep.failures.items():
        print(f"{count} times: {key}")
    if arguments.outcomes:
        for text, count in sorted(sweep.outcomes.items()):
            print(f"{count:7d} {text}")
    sys.exit(bool(sweep.failures))


if __name__ == "__main__":
    main()
