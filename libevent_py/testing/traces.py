"""The calls to libevent that a test makes, as objects: see ``python -m libevent_py trace``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from libevent_py._cli.trace import is_named, parsed, traced, unknown_family
from libevent_py.enums import EventFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event

T = TypeVar("T")

#: How often a condition is tried while nothing happens, in seconds.
TICK = 0.01

#: The function that runs a loop.
LOOP = "event_base_loop"


class TracedCall(NamedTuple):
    """A call to a function of libevent's."""

    #: Which function it is, as ``"event_add"``.
    name: str
    #: As C writes them, ``ev#1`` or ``"text"``; those that the call has filled in come last.
    args: tuple[str, ...]
    #: None if there is none, or the call has not returned yet.
    result: str | None
    #: How many callbacks it is inside of.
    depth: int

    def __str__(self) -> str:
        result = "" if self.result is None else f" = {self.result}"
        return f"{self.name}({', '.join(self.args)}){result}"


class LibeventTrace:
    """The calls to libevent in this process that the trace in *path* tells, from now on.

    What `Until` itself calls is left out: its timer, and the loop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Where the lines begin that are left out, and those of what `Until` has asked for.
        self._left_out: set[int] = set()
        self._asked: set[int] = set()
        self.clear()

    def clear(self) -> None:
        """Forget the calls so far."""
        self._begin = self._end()
        self._left_out.clear()
        self._asked.clear()

    def _end(self) -> int:
        return self._path.stat().st_size

    def _from(self, begin: int) -> Iterator[tuple[int, str]]:
        """Yield the lines from *begin* on, and where each begins."""
        with open(self._path, "rb") as file:
            file.seek(begin)
            for line in file:
                yield begin, line.decode(errors="replace").rstrip("\n")
                begin += len(line)

    @property
    def lines(self) -> list[str]:
        """The lines of the trace so far."""
        return [line for at, line in self._from(self._begin) if at not in self._left_out]

    def _last(self, number: int) -> list[str]:
        """Return the last lines that aren't of conditions, which are the same again and again."""
        unseen = self._left_out | self._asked
        return [line for at, line in self._from(self._begin) if at not in unseen][-number:]

    def calls(self, *names: str) -> list[TracedCall]:
        """Return the calls so far, in the order in which they began; of *names*, if given.

        A name may be a function's, a family such as ``evbuffer``, or have wildcards. Raises
        `ValueError` for one that no function has.
        """
        for name in names:
            if not any(is_named(each, name) for each in traced()):
                raise ValueError(unknown_family(name))
        found: list[TracedCall] = []
        begun: list[int] = []
        for line in self.lines:
            said = parsed(line)
            args = tuple(map(str, said.get("args", ())))  # type: ignore[call-overload]
            result = said.get("result")
            if "call" in said:
                if said.get("unfinished"):
                    begun.append(len(found))
                depth = (len(line) - len(line.lstrip(" "))) // 2
                text = None if result is None else str(result)
                found.append(TracedCall(str(said["call"]), args, text, depth))
            elif "resumed" in said:
                # Of several threads, the last to begin is not always the first to end.
                at = next((i for i in reversed(begun) if found[i].name == said["resumed"]), None)
                if at is None:
                    continue
                begun.remove(at)
                text = None if result is None else str(result)
                found[at] = found[at]._replace(args=found[at].args + args, result=text)
        return [
            call for call in found if not names or any(is_named(call.name, name) for name in names)
        ]

    def callbacks(self) -> list[str]:
        """Return the callbacks that have begun so far, as ``on_read(bev#1)``, in their order."""
        return re.findall(r"^ *<- (.*)$", "\n".join(self.lines), re.MULTILINE)


class OwnCalls:
    """What one call of `Until` calls by itself, which is left out of *trace*, if there is one.

    Other threads' calls may come in between: a line is left out only if it names the timer, or is
    of the one call that is known to be made here.
    """

    def __init__(self, trace: LibeventTrace | None) -> None:
        self._trace = trace
        self._ticks: list[int] = []
        self._name: re.Pattern[str] | None = None

    @contextlib.contextmanager
    def timer(self, base: EventBase) -> Iterator[Event]:
        """Return a block in which an event of *base* wakes the loop every hundredth of a second."""
        begin = self._end()
        tick = Event(base, -1, EventFlag.PERSIST, self._ticked)
        try:
            tick.add(TICK)
            self._know(tick._key, begin)
            yield tick
        finally:
            with self.calls():
                tick.close()

    def _end(self) -> int:
        return 0 if self._trace is None else self._trace._end()

    def _ticked(self, *_: object) -> None:
        self._ticks.append(self._end())

    def _know(self, key: int, begin: int) -> None:
        """Find out what the trace calls the event of this *key*, and leave out what made it."""
        if self._trace is None:
            return
        made = re.compile(rf" *event_new\(.*, {key:#x}\) = (ev#\d+)")
        for match in filter(None, (made.match(line) for _, line in self._trace._from(begin))):
            self._name = re.compile(rf"{match[1]}\b")
        self._leave_out(begin)

    def _leave_out(self, begin: int) -> None:
        """Leave out what has been called for the timer since *begin*."""
        if self._trace is not None and self._name is not None:
            lines = self._trace._from(begin)
            self._trace._left_out.update(at for at, line in lines if self._name.search(line))

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Return a block whose calls for the timer are left out."""
        begin = self._end()
        yield
        self._leave_out(begin)

    def asked(self, condition: Callable[[], T]) -> T:
        """Return what *condition* returns, and note what it calls."""
        if self._trace is None:
            return condition()
        begin = self._end()
        try:
            return condition()
        finally:
            self._trace._asked.update(at for at, _ in self._trace._from(begin))

    @contextlib.contextmanager
    def loop(self) -> Iterator[None]:
        """Return a block that runs the loop, which is left out, but not what happens in it."""
        begin = self._end()
        try:
            yield
        finally:
            if self._trace is not None:
                self._trace._left_out.update(self._of_loop(list(self._trace._from(begin))))
            self._ticks.clear()

    def _of_loop(self, lines: list[tuple[int, str]]) -> Iterator[int]:
        """Yield where of *lines* those begin that are the loop's own, and its timer's callbacks."""
        yield from [at for at, line in lines if line.lstrip().startswith(f"{LOOP}(")][:1]
        yield from [at for at, line in lines if f"<... {LOOP} resumed>" in line][-1:]
        for tick in self._ticks:
            begun = [number for number, (at, _) in enumerate(lines) if at < tick][-1:]
            for number in begun:
                at, line = lines[number]
                yield at
                end = line.partition("<-")[0] + "-> "
                yield from [at for at, line in lines[number + 1 :] if line.startswith(end)][:1]
