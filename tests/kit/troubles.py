"""Random programs in trouble: forks, threads, interrupts, stolen descriptors, failing memory.

`Troubled` goes before a world of `tests.kit.worlds`. At some of its steps something else happens,
in callbacks too, and what must be true is checked by an `Account` after each.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from libevent_py import Event, EventBase, debug, errors
from libevent_py._core.dispatch import live
from tests.kit.accounts import Account, Break, Leave, Numbered, Oops, members
from tests.kit.interposing import Interposer
from tests.kit.support import PATIENCE, SANITIZED
from tests.kit.worlds import ONE_ROUND, REFUSALS, World, walk
from tests.kit.worlds_of_http import Web, raised_here
from tests.kit.worlds_of_layers import Layers
from tests.kit.worlds_of_names import Names

#: How many blocks of memory an interrupt may leave (docs/safety.md).
SPARED = 4

#: What any thread may do.
SAFE: list[Callable[[World, EventBase], object]] = [
    lambda world, base: base.defer(world.callback),
    lambda world, base: base.loopbreak(),
    lambda world, base: base.loopexit(0),
    lambda world, base: base.loopcontinue(),
    lambda world, base: [event.active() for event in world.events if event.base is base],
]

#: What only the base's own thread may do.
REFUSED: list[tuple[str, Callable[[Any], object]]] = [
    ("bases", lambda base: base.once(print, timeout=0)),
    ("bases", lambda base: base.reinit()),
    ("bases", lambda base: Event.timer(base, print)),
    ("events", lambda event: event.add(1)),
    ("events", lambda event: event.delete()),
    ("events", lambda event: event.close()),
    ("events", lambda event: event.pending()),
    ("bevs", lambda bev: bev.write(b"by a thread")),
    ("bevs", lambda bev: bev.read()),
    ("bevs", lambda bev: bev.close()),
    ("bevs", lambda bev: bev.fd),
    ("listeners", lambda listener: listener.disable()),
    ("listeners", lambda listener: listener.close()),
    ("webs", lambda web: web.close()),
    ("connections", lambda connection: connection.close()),
    ("resolvers", lambda dns: dns.close()),
]


class Fault(AssertionError):
    """Something that must not happen has happened."""


class Troubled(World):
    """A world in which more goes wrong."""

    #: How many forks there may be in one program.
    FORKS = 2

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.account = Account()
        self.faults: list[BaseException] = []
        self.children: list[int] = []
        self.is_child = False
        #: The descriptors that have been closed behind their owners' backs.
        self.stolen: set[int] = set()
        #: Whether the number of one has come to be that of a base's epoll set, which its old owner
        #: may close: what waits to be called by that base is then never freed, as in C.
        self.maimed = False
        self.strangers: list[int] = []
        #: Whether there was no memory at all: libevent can't end everything then (docs/safety.md).
        self.starved = False
        self.counts = dict.fromkeys(["steps", "callbacks", "interrupts", "forks", "threads"], 0)
        #: What is done around the present step: not two of a kind at once.
        self.around: set[str] = set()

    # What must be true.

    def problem(self) -> BaseException:
        kind = self.random.choice([Oops] * 8 + [Leave, Break])
        return self.account.numbered(kind, " < ".join(callers()))

    def attempt(self, function: Callable[[], object]) -> None:
        again = None
        try:
            function()
        except BaseException as error:
            self.note(error)
            if self.depth and isinstance(error, Numbered) and self.random.random() < 0.5:
                again = self.account.numbered(type(error), f"again for {error.number}")
        if self.stolen and not self.maimed:
            with contextlib.suppress(OSError):  # there may be no descriptor for that just now
                self.account.look()
            self.maimed = not self.stolen.isdisjoint(self.account.sets())
        if again is not None:
            raise again  # not amid the other, of which somebody has been told

    def note(self, error: BaseException, source: object = None) -> None:
        """Note that somebody is told of *error*, and a fault if it is not to be expected."""
        self.account.tell(error)
        for one in members(error):
            if isinstance(one, (*REFUSALS, Numbered, MemoryError)) or in_a_world(one):
                continue
            if not (isinstance(one, TypeError) and self.stolen):  # a socket has another's address
                self.faults.append(one)

    def unraisable(self, what: Any) -> None:
        """Note what is raised in a finalizer: Python tells it only here."""
        self.note(what.exc_value)

    def callback(self, *arguments: object) -> None:
        self.counts["callbacks"] += 1
        super().callback(*arguments)

    def step(self) -> None:
        if self.random.random() < 0.1:
            self.attempt(self.trouble)
        else:
            self.counts["steps"] += 1
            super().step()

    def trouble(self) -> None:
        kind: Callable[[], None] = self.random.choice(self.TROUBLES)
        if kind.__name__ not in self.around:
            self.around.add(kind.__name__)
            try:
                kind(self)  # type: ignore[call-arg]
            finally:
                self.around.discard(kind.__name__)

    # Troubles.

    def fork(self) -> None:
        """Go on in two processes; the child with its parent's bases, or without them."""
        if self.is_child or self.counts["forks"] == self.FORKS:
            return
        if SANITIZED and self.counts["threads"]:
            return  # a thread may hold its allocator's lock, to the very end
        self.counts["forks"] += 1
        pid = os.fork()
        if pid:
            self.children.append(pid)
            return
        self.is_child = True
        self.children.clear()
        if self.random.random() < 0.7:
            for base in list(self.bases):
                self.attempt(base.reinit)

    def moment(self) -> int:
        """Return the number of a step of the package's Python: most calls have few."""
        return self.random.randrange(self.random.choice([20, 60, 300]))

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt anywhere in the package."""

        def act() -> None:
            self.counts["interrupts"] += 1
            raise self.account.numbered(Break, f"{interposer.where} < {' < '.join(callers())}")

        interposer = Interposer(act, self.moment(), signals=True)
        interposer.run(self.step)

    def amid(self) -> None:
        """Take a step in the middle of another, as the handler of a signal does."""

        def act() -> None:
            self.depth += 1
            try:
                self.step()
            finally:
                self.depth -= 1

        Interposer(act, self.moment(), signals=True).run(self.step)

    def collect(self) -> None:
        """Collect garbage anywhere in the package."""
        Interposer(gc.collect, self.moment()).run(self.step)

    def race(self) -> None:
        """Have a thread use a base whose loop runs: what it may do is done, all else refused."""
        bases = [base for base in self.bases if not base.closed]
        if not bases or self.depth:
            return
        base = self.random.choice(bases)
        chance = random.Random(self.random.random())

        def run() -> None:
            for _ in range(20):
                try:
                    if chance.random() < 0.5:
                        chance.choice(SAFE)(self, base)
                    else:
                        self.use(chance)
                except (errors.ClosedError, errors.ForkError):
                    pass
                except BaseException as error:
                    starving = "without_memory" in self.around and isinstance(error, MemoryError)
                    if not self.stolen and not starving:
                        self.faults.append(error)
                time.sleep(chance.random() * 0.0003)

        with self.beside(run):
            self.attempt(lambda: World.loop(self, base))

    def use(self, chance: random.Random) -> None:
        """Use something in a thread that doesn't own it."""
        kind, operation = chance.choice(REFUSED)
        things = [
            thing
            for thing in list(getattr(self, kind, ()))
            if is_alive(thing if kind == "bases" else thing.base)
        ]
        if things:
            thing = chance.choice(things)
            try:
                operation(thing)
            except errors.ThreadError:
                return
            if not thing.closed:
                code = operation.__code__
                raise Fault(f"a thread may use {thing} of another, line {code.co_firstlineno}")

    def hand_over(self) -> None:
        """Have a thread take the bases over, use them, and end."""

        def run() -> None:
            for base in list(self.bases):
                self.attempt(base.take_over)
            for _ in range(3):
                self.attempt(super(Troubled, self).step)

        if not self.depth:
            with self.beside(run):
                pass

    @contextlib.contextmanager
    def beside(self, function: Callable[[], object]) -> Iterator[None]:
        """Run *function* in a thread meanwhile."""
        self.counts["threads"] += 1
        pid = os.getpid()
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        try:
            yield
        finally:
            if os.getpid() == pid:
                thread.join(PATIENCE)
                if thread.is_alive():
                    self.faults.append(Fault("a thread hangs"))

    def without_descriptors(self) -> None:
        """Take some steps while there are no more descriptors, or one or two."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        taken: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        try:
            for fd in taken[: self.random.randrange(3)]:
                taken.remove(fd)
                os.close(fd)
            for _ in range(3):
                self.attempt(self.step)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)

    def without_memory(self) -> None:
        """Take a step in which an allocation fails."""
        if {"interrupt", "amid"} & self.around:
            return  # which could come before the end of a block is known
        nth, onwards = self.random.randrange(1, 40), self.random.random() < 0.2
        with debug.FailingMemory(nth, onwards=onwards) as failing:
            self.attempt(self.step)
        self.starved |= onwards and failing.refused > 0

    def steal(self) -> None:
        """Close a descriptor behind its owner's back, and often have its number used again."""
        kind: list[Any] = self.random.choice([self.bevs, self.events, self.listeners])
        if kind and "without_descriptors" not in self.around and self.random.random() < 0.3:
            fd = self.random.choice(kind).fd
            if fd > 2:
                self.stolen.add(fd)
                os.close(fd)
                if self.random.random() < 0.7:
                    self.strangers.append(os.open(os.devnull, os.O_RDONLY))

    TROUBLES: ClassVar[list[Any]] = [
        *[interrupt] * 4,
        *[amid] * 4,
        *[collect, race, hand_over, without_descriptors, without_memory, without_memory],
        *[fork, steal],
    ]

    # The program.

    def run(self, steps: int) -> None:
        """Take *steps*, end everything, and raise `Fault` unless all is as it must be."""
        sys.unraisablehook = self.unraisable
        for number in range(steps):
            self.account.step = f"step {number}"
            self.attempt(self.step)
            if live.bases != ():
                raise Fault(f"callbacks still lead to {live.bases}")
            if errors.waiting():
                raise Fault("an exception still waits, and nobody is in C")
            if not self.stolen and not self.is_child:
                self.account.look()
                self.account.check_bases()
            self.raise_faults()
        self.account.step = "the end"
        self.close_half()
        self.raise_faults()
        self.account.check_exceptions()
        if not self.is_child:
            self.check()
        self.drop_all()
        self.raise_faults()
        self.account.check_exceptions()
        if not self.stolen and not self.is_child:
            self.account.check_descriptors()
        if not self.is_child and not self.starved and not self.maimed:
            self.account.check_blocks(SPARED * self.counts["interrupts"])
        self.wait()

    def close_half(self) -> None:
        """Close half of the bases."""
        self.called = self.BUDGET  # callbacks only raise from here on
        for sock in self.sockets:
            self.attempt(sock.close)
        for base in self.bases:
            if not base.closed:
                base.on_error = self.note
        for base in self.bases[::2]:
            for _ in range(100):
                self.attempt(base.close)
                if base.closed:
                    break
            else:
                raise Fault(f"{base} can't be closed")

    def drop_all(self) -> None:
        """Drop everything."""
        for fd in self.strangers:
            with contextlib.suppress(OSError):
                os.close(fd)
        for name, things in list(vars(self).items()):
            if isinstance(things, list) and name not in ("faults", "children"):
                things.clear()
        for _ in range(4):  # finalizers of events may have kept something for the next time
            gc.collect()
        with EventBase() as base:
            base.loop(ONE_ROUND)

    def raise_faults(self) -> None:
        if self.faults:
            raise self.faults[0]

    def wait(self) -> None:
        """Wait for the children, which must be right, too."""
        for pid in self.children:
            _, status = os.waitpid(pid, 0)
            if status:
                raise Fault(f"a forked child ended with status {status}")


def callers() -> Iterator[str]:
    """Yield the names of the functions that are under way, the innermost first."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_back is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


def in_a_world(error: BaseException) -> bool:
    """Tell whether a world has raised *error*: a thing was of another kind, or there was none."""
    return isinstance(error, (AttributeError, IndexError, KeyError)) and raised_here(error)


def is_alive(base: EventBase) -> bool:
    """Tell whether *base* is open, and the main thread's."""
    main = threading.main_thread().ident
    return not base.closed and base._thread == main and base._parked is None


#: More often than in worlds whose steps are many more.
LOOPS: list[tuple[str, Callable[[Any, Any], object]]] = [("bases", World.loop)] * 15


class TroubledObjects(Troubled):
    OPERATIONS: ClassVar = [*World.OPERATIONS, *LOOPS]


class TroubledLayers(Troubled, Layers):
    OPERATIONS: ClassVar = [*Layers.OPERATIONS, *LOOPS]


class TroubledNames(Troubled, Names):
    OPERATIONS: ClassVar = [*Names.OPERATIONS, *LOOPS]


class TroubledWeb(Troubled, Web):
    OPERATIONS: ClassVar = [*Web.OPERATIONS, *LOOPS]


WORLDS: dict[str, type[Troubled]] = {
    "objects": TroubledObjects,
    "layers": TroubledLayers,
    "names": TroubledNames,
    "web": TroubledWeb,
}


def prepare() -> None:
    """Make this process ready to fork programs off: whatever is done once is done."""
    faulthandler.enable()
    warnings.simplefilter("ignore", ResourceWarning)  # sockets are dropped, too
    logging.getLogger("libevent_py").addHandler(logging.NullHandler())
    signal.signal(signal.SIGUSR1, lambda *_: None)
    debug.count_memory()
    for kind in World, Layers, Names, Web:
        walk(kind, 1, 100)
    gc.collect()


def program(world: str, seed: int, steps: int) -> dict[str, int]:
    """Run one program in this process, and return what it did."""
    one = WORLDS[world](seed)
    gc.set_threshold(one.random.choice([700, 700, 60, 7]))
    try:
        one.run(steps)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    if one.is_child:
        os._exit(0)
    return one.counts
