"""Have each allocation of each operation of a class fail, in each of its scenes.

``python -m tests.kit.failing_memory CLASS …`` does so, or with ``--all`` for all classes, in
processes of their own, one after the other. If one dies, it says at which operation and allocation,
and another one goes on with the next operation. With ``LIBEVENT_PY_COUNT_MEMORY`` in the
environment OpenSSL's memory fails, too.

The *n*-th allocation of an operation fails, for n = 1, 2, 3 and so on: alone, and then with all
that follow, until there are no more than that; and once all fail, and nothing is put aside. Each
time the operation raises `MemoryError` or a `LibeventError`, or succeeds with memory that was put
aside. If it has failed and is tried once more with memory, it does what it does anyway. When all
is closed, no block, object or descriptor is left, and nothing was printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import mmap
import os
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from typing import Any

from libevent_py import LibeventError, MemorySource, debug, errors, log
from libevent_py._core.references import release
from libevent_py._core.wakeup import wakeup
from tests.kit.operations import OPERATIONS
from tests.kit.scenes import SCENES, accept_all
from tests.kit.sweep import Try, leftovers, note_unraisable, told, unraisable

#: How long one try may take, in seconds: then it hangs.
PATIENCE = 60

#: What an operation may raise that gets no memory.
REFUSED = (MemoryError, LibeventError)

#: Which operations can't be tried once more, and why.
ONCE = {
    "HttpServerRequest.send_reply_start/and all": "its first part is done",
    "Rpc.resume": "its handler has failed, and so it is answered",
}

#: What libevent itself can't do if nothing at all is put aside, and what comes of it; see
#: docs/safety.md. It was put aside when the object was made, so it is there unless it is used up.
UNABLE = {
    ("DnsBase", "", "__enter__"): "it is closed, although MemoryError is raised",
    ("DnsBase", "", "__exit__"): "as __enter__",
    ("DnsBase", "used by others", "close"): "evdns never frees the lookups of others",
    ("DnsBase", "used by others", "__enter__"): "as close",
    ("DnsBase", "used by others", "__exit__"): "as close",
    ("DnsServerRequest", "", "respond"): "the query is dropped",
    ("DnsServerRequest", "", "respond/by an error"): "as respond",
    ("DnsServerRequest", "in its callback", "respond"): "as respond",
    ("DnsServerRequest", "in its callback", "respond/by an error"): "as respond",
    ("HttpConnection", "looking up", "close"): "evdns never frees the lookup",
    ("HttpConnection", "looking up", "__enter__"): "as close",
    ("HttpConnection", "looking up", "__exit__"): "as close",
    ("RpcServer", "", "__enter__"): "it is closed, although MemoryError is raised",
    ("RpcServer", "", "__exit__"): "as __enter__",
    ("Rpc", "", "__del__"): "evrpc reads a part of the answer that it did not get: NULL",
}

#: The exit status of a process in which something has failed that was not a crash.
FAILED = 3


class Starved(Try):
    """One operation, in a new scene, one of whose allocations fails."""

    def __init__(
        self, kind: str, scene: str, name: str, nth: int, onwards: bool, source: MemorySource
    ) -> None:
        super().__init__(kind, scene, name, "nothing")
        self.nth = nth
        self.onwards = onwards
        self.source = source
        #: Whether even what is put aside for such a case is gone.
        self.bare = False
        #: How many allocations have failed, and how many there have been.
        self.refusals = self.allocations = 0
        #: What the operation has raised when it was tried once more.
        self.again: BaseException | None = None
        #: Of what class is what it has raised; the exception itself would keep the scene.
        self.usual: type[BaseException] | None = None

    def operate(self) -> BaseException | None:
        try:
            self.result = self.operation(self.scene)
        except BaseException as error:
            return error
        return None

    def fail(self, once_more: bool) -> None:
        """Have the operation done while memory fails; then, with *once_more*, try it again."""

        def call() -> None:
            before = debug.memory(self.source).allocations
            if self.nth:
                with debug.FailingMemory(
                    self.nth,
                    onwards=self.onwards,
                    source=self.source,
                    put_aside=not self.bare,
                ) as failing:
                    self.outcome = self.operate()
                self.refusals = failing.refused
            else:
                self.outcome = self.operate()
            self.allocations = debug.memory(self.source).allocations - before
            if once_more and isinstance(self.outcome, REFUSED):
                traceback.clear_frames(self.outcome.__traceback__)
                self.again = self.operate()

        try:
            self.scene.enter(call)
        except MemoryError as error:  # from the loop that the operation has been called in
            if not self.refusals:
                raise
            self.outcome = self.outcome or error

    def finish(self) -> None:
        self.usual = kind_of(self.outcome)
        if self.again is not None:
            traceback.clear_frames(self.again.__traceback__)
        self.again = None
        super().finish()


def tried_again(kind: str, name: str) -> bool:
    """Tell whether the operation can be tried once more; what a finalizer is of is gone."""
    return name != "__del__" and f"{kind}.{name}" not in ONCE


def kind_of(error: BaseException | None) -> type[BaseException] | None:
    return None if error is None else type(error)


def name_of(kind: type[BaseException] | None) -> str:
    return "nothing" if kind is None else kind.__name__


def live_blocks() -> int:
    """Return how many blocks libevent and the package's own C have, once all is freed."""
    release()
    log.flush()
    return sum(debug.memory(source).blocks for source in (MemorySource.LIBEVENT, MemorySource.OURS))


class Output:
    """What the process prints, by its standard output and error, into a file."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  (it stays open)
        for fd in (1, 2):
            os.dup2(self.file.fileno(), fd)

    def take(self) -> str:
        """Return what has been printed since this was last asked."""
        fd = self.file.fileno()
        if not os.fstat(fd).st_size:
            return ""
        text = os.pread(fd, 1 << 16, 0).decode(errors="replace")
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        return text


class Starving:
    """The tries of the operations of one class in one scene, in a process of their own."""

    def __init__(
        self, arguments: argparse.Namespace, state: mmap.mmap, output: Output, to: Any
    ) -> None:
        self.arguments = arguments
        self.state = state
        self.output = output
        self.to = to
        self.tries = self.faults = 0
        self.failures: set[str] = set()
        self.outcomes: dict[str, int] = {}
        #: Whether what fails is told.
        self.judging = True
        #: Whether the operation prints something anyway; None before that is known.
        self.usually_prints: bool | None = None

    def say(self, text: str) -> None:
        self.to.write(text + "\n")
        self.to.flush()

    def fail(self, what: str, text: str) -> None:
        if not self.judging:
            return
        key = what.partition(",")[0] + text.splitlines()[-1]
        if key not in self.failures:
            self.failures.add(key)
            self.say(f"FAILED: {what}\n{text}")

    def attempt(
        self,
        kind: str,
        scene: str,
        name: str,
        nth: int,
        onwards: bool,
        usual: type[BaseException] | None,
        bare: bool = False,
    ) -> Starved:
        """Make one try, and judge it by what is *usual* where memory does not fail."""
        source = MemorySource[self.arguments.source]
        what = f"{kind} ({scene}): {name}, {source.name} {nth}{' and on' if onwards else ''}"
        what += ", nothing put aside" if bare else ""
        self.state[:] = what.encode().ljust(len(self.state), b"\0")
        self.tries += 1
        before, blocks = leftovers(), live_blocks()
        known = {block.number for block in debug.memory_blocks()}
        one = Starved(kind, scene, name, nth, onwards, source)
        one.bare = bare
        try:
            one.fail(nth > 0 and tried_again(kind, name))
            self.judge(what, one, usual)
        except Exception as failure:
            self.fail(what, told(failure))
        try:
            one.finish()
        except Exception as failure:
            self.fail(what, f"in the end: {told(failure)}")
            raise SystemExit(FAILED) from None
        gc.collect()
        self.compare(what, before, blocks, known)
        self.faults += one.refusals
        return one

    def judge(self, what: str, one: Starved, usual: type[BaseException] | None) -> None:
        if not one.nth:
            return
        error = one.outcome
        known = error is None or isinstance(error, REFUSED) or kind_of(error) is usual
        if not known:
            self.fail(what, f"it raised {told(error)}")  # type: ignore[arg-type]
        if error is not None and not one.refusals and kind_of(error) is not usual:
            self.fail(what, f"nothing has failed, but it raised {told(error)}")
        if isinstance(error, REFUSED) and tried_again(one.kind, one.name):
            again = one.again
            if kind_of(again) is not usual:
                text = f"tried again, {name_of(kind_of(again))} instead of {name_of(usual)}"
                self.fail(what, text if again is None else f"{told(again)}{text}")
        if one.refusals:
            text = f"{one.kind}.{one.name}: {name_of(kind_of(error))}"
            self.outcomes[text] = self.outcomes.get(text, 0) + 1

    def compare(self, what: str, before: dict[str, Any], blocks: int, known: set[int]) -> None:
        """Compare what there is now with what there was *before*."""
        while unraisable:
            self.fail(what, f"in a finalizer: {unraisable.pop()}")
        if (now := live_blocks()) != blocks:
            new = [
                block
                for block in debug.memory_blocks()
                if block.number not in known and block.source != MemorySource.OPENSSL
            ]
            self.fail(what, f"{new}\n{now} blocks are left, {blocks} were there before")
        after = leftovers()
        errors.entered.here.raised.clear()
        for text, then in before.items():
            if after[text] != then:
                self.fail(what, f"{text}: {then} before, {after[text]} afterwards")
        printed = self.output.take()
        if self.usually_prints is None:
            self.usually_prints = bool(printed)
        if printed and not self.usually_prints:
            self.fail(what, f"it printed:\n{printed}")

    def numbers(self, what: str, allocations: int) -> Iterator[int]:
        """Yield which allocations are to fail: all, one after the other, or some by a stride."""
        most = self.arguments.most
        if self.arguments.nth:
            yield self.arguments.nth
        elif most and allocations > most:
            stride = -(-allocations // most)
            yield from range(1 + zlib.crc32(what.encode()) % stride, allocations + 1, stride)
        else:
            yield from itertools.count(1)

    def run(self, kind: str, scene: str, name: str) -> None:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        for self.judging in (False, True):  # the first time, something may be made for good
            self.usually_prints = None
            usual = self.attempt(kind, scene, name, 0, False, None)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        alone = self.arguments.unable
        for onwards in () if alone else (False, True):
            for nth in self.numbers(f"{kind} {scene} {name}", usual.allocations):
                one = self.attempt(kind, scene, name, nth, onwards, usual.usual)
                if not one.refusals:
                    break
                if nth > 20_000:
                    self.fail(f"{kind} ({scene}): {name}", "there is no end to it")
                    break
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
        if alone or (self.arguments.source == "ANY" and (kind, scene, name) not in UNABLE):
            self.attempt(kind, scene, name, 1, True, usual.usual, bare=True)


def chosen(arguments: argparse.Namespace, kind: str, scene: str) -> list[str]:
    """Return the operations of *kind* that are to be tried in *scene*.

    With ``--sample`` each is tried in one scene, which is the same each time.
    """
    if arguments.scene is not None and arguments.scene != scene:
        return []
    scenes = list(SCENES[kind])
    names = []
    for name in OPERATIONS[kind]:
        if arguments.only and name not in arguments.only:
            continue
        one = scenes[zlib.crc32(f"{name} of {kind}".encode()) % len(scenes)]
        if not arguments.sample or one == scene:
            names.append(name)
    return names


def work(
    arguments: argparse.Namespace,
    state: mmap.mmap,
    kind: str,
    scene: str,
    names: list[str],
    to: Any,
) -> None:
    """In a process of its own: try *names*, and say in the end how much that was."""
    output = Output()
    faulthandler.enable()
    wakeup()
    sys.unraisablehook = note_unraisable
    accept_all()
    gc.collect()
    gc.freeze()
    gc.disable()
    one = Starving(arguments, state, output, to)
    failed = False
    for name in names:
        one.run(kind, scene, name)
        failed = failed or bool(one.failures)
        state[:] = f"done {name}".encode().ljust(len(state), b"\0")
    if arguments.outcomes:
        for text, count in sorted(one.outcomes.items()):
            one.say(f"  {text} {count} times")
    one.say(f"+ {one.tries} {one.faults}")
    to.flush()
    os._exit(FAILED if failed else 0)


class Run:
    """All that is asked for, one process after the other."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.state = mmap.mmap(-1, 4096)
        self.failed = False
        self.tries = self.faults = 0

    def child(self, kind: str, scene: str, names: list[str]) -> int:
        """Try *names* in a forked child; return how it has ended."""
        sys.stdout.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            try:
                work(self.arguments, self.state, kind, scene, names, os.fdopen(writer, "w"))
            except BaseException as error:
                text = "" if isinstance(error, SystemExit) else told(error)
                os.write(writer, text.encode())
            finally:
                os._exit(FAILED)
        os.close(writer)
        with open(reader, errors="replace") as report:
            for line in report:
                if line.startswith("+ "):
                    tries, faults = map(int, line.split()[1:])
                    self.tries += tries
                    self.faults += faults
                elif not self.arguments.unable:
                    print(line, end="", flush=True)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def run_unable(self) -> None:
        """Try what is in `UNABLE`, and fail if it is done by now."""
        for kind, scene, name in UNABLE:
            if not self.child(kind, scene, [name]):
                self.failed = True
                print(f"{kind} ({scene}): {name} is done, and need not be in UNABLE")

    def run(self, kind: str) -> None:
        for scene in SCENES[kind]:
            names = chosen(self.arguments, kind, scene)
            while names:
                self.state[:] = bytes(len(self.state))
                status = self.child(kind, scene, names)
                self.failed = self.failed or status != 0
                at = bytes(self.state).rstrip(b"\0").decode()
                if at == f"done {names[-1]}":
                    break
                how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
                print(f"FAILED: {at}: {how}", flush=True)
                operation = at.partition("): ")[2].rpartition(", ")[0]
                names = names[names.index(operation) + 1 :] if operation in names else []


def main() -> None:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("kinds", nargs="*", choices=[*OPERATIONS, []])
    add("--all", action="store_true", help="all classes")
    add("--sample", action="store_true", help="each operation in one of its scenes only")
    add("--most", type=int, default=0, help="at most so many allocations of each operation")
    add("--source", default="ANY", choices=[source.name for source in MemorySource])
    add("--scene", help="only the scene of this name")
    add("--only", nargs="*", help="only the operations of these names")
    add("--nth", type=int, help="only this allocation")
    add("--unable", action="store_true", help="only what libevent can't do")
    add("--outcomes", action="store_true", help="tell what has been raised")
    arguments = parser.parse_args()
    debug.count_memory()
    run = Run(arguments)
    if arguments.unable:
        run.run_unable()
        sys.exit(bool(run.failed))
    for kind in OPERATIONS if arguments.all else arguments.kinds:
        began = time.monotonic()
        run.tries = run.faults = 0
        run.run(kind)
        took = time.monotonic() - began
        print(f"{kind}: {run.tries} tries, {run.faults} failures of memory, {took:.1f} s")
    sys.exit(bool(run.failed))


if __name__ == "__main__":
    main()
