"""What must be true of a program at each of its steps, and at its end.

An `Account` knows the number of each exception that a callback has raised, and who was told of it;
each descriptor by its kind and by the step that opened it; and how many blocks of memory libevent
and the package's C have.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from libevent_py import debug
from libevent_py._core.dispatch import roots


class Numbered:
    """What callbacks raise: each has a number, and somebody must be told of it once."""

    number = 0


class Oops(Numbered, Exception):
    """What callbacks raise now and then."""


class Leave(Numbered, SystemExit):
    """What sys.exit() in a callback raises."""


class Break(Numbered, KeyboardInterrupt):
    """What Ctrl-C raises."""


class Descriptor(NamedTuple):
    """An open descriptor: what it is of, and what the program did when it was opened."""

    target: str
    owner: str

    @property
    def kind(self) -> str:
        """What kind of thing it is of: socket, pipe, [eventpoll], [eventfd], or a path."""
        kind, _, number = self.target.partition(":")
        return number if kind == "anon_inode" else kind


def members(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, or what is in it if it is a group."""
    inner = getattr(error, "exceptions", None)
    if inner is None:
        yield error
    for one in inner or ():
        yield from members(one)


def contexts(error: BaseException) -> Iterator[BaseException]:
    """Yield what *error* was raised amid, and that in turn."""
    seen, todo = {id(error)}, [error.__context__, error.__cause__]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield from members(one)
            todo += (one.__context__, one.__cause__)


class Account:
    """The account of one program."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        #: What has been raised, and where, by number; and how often somebody was told of it.
        self.raised: dict[int, str] = {}
        self.told: Counter[int] = Counter()
        #: What has come as the context of what isn't an Exception, which comes alone, or of what
        #: the package has raised itself.
        self.told_beside: set[int] = set()
        #: What has come as the context of what another callback has raised: nobody looks there.
        self.hidden: dict[int, str] = {}
        self.descriptors: dict[int, Descriptor] = {}
        self.step = "before"
        self.look()
        self._at_first = dict(self.descriptors)
        self._blocks = debug.memory().blocks

    def numbered(self, kind: type[Numbered], where: str) -> BaseException:
        """Return an exception of *kind* that is to be raised, and that somebody must be told of."""
        error = kind()
        error.number = next(self._numbers)
        self.raised[error.number] = where
        assert isinstance(error, BaseException)
        return error

    def tell(self, error: BaseException) -> None:
        """Note that somebody has been told of *error*."""
        for one in members(error):
            if isinstance(one, Numbered):
                self.told[one.number] += 1
        found = [one for one in contexts(error) if isinstance(one, Numbered)]
        if not isinstance(error, Exception) or not isinstance(error, Numbered):
            self.told_beside.update(one.number for one in found)
        else:
            self.hidden.update((one.number, repr(error)) for one in found)

    def look(self) -> None:
        """Look which descriptors are open, and note those that are new."""
        found = {}
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue  # it was that of the directory
            known = self.descriptors.get(fd)
            same = known is not None and known.target == target
            found[fd] = known if known and same else Descriptor(target, self.step)
        self.descriptors = found

    def sets(self) -> list[int]:
        """Return the descriptors of epoll sets at the last look."""
        return [fd for fd, one in self.descriptors.items() if one.kind == "[eventpoll]"]

    def check_bases(self) -> None:
        """Check that there is one epoll set for each base that is still there, and no other."""
        sets = self.sets()
        bases = [base for base in roots if not base.closed or base._condemned is not None]
        assert len(sets) == len(bases), f"{self.shown(sets)} for {bases}"

    def shown(self, fds: list[int]) -> str:
        return ", ".join(f"{fd} {self.descriptors[fd]}" for fd in fds)

    def check_exceptions(self) -> None:
        """Check that somebody has been told of each exception, and only once."""
        wrong = {
            number: f"{self.told[number]} times: {what}, {self.hidden.get(number, 'not hidden')}"
            for number, what in self.raised.items()
            if (self.told[number] or number in self.told_beside) != 1
        }
        assert not wrong, f"told of exceptions {wrong}"

    def check_descriptors(self) -> None:
        """Check that what has been opened has been closed."""
        self.look()
        left = [fd for fd in self.descriptors if self._at_first.get(fd) != self.descriptors[fd]]
        assert not left, f"descriptors are left: {self.shown(left)}"
        gone = [fd for fd in self._at_first if fd not in self.descriptors]
        assert not gone, f"descriptors of others were closed: {gone}"

    def check_blocks(self, spared: int = 0) -> None:
        """Check that there are no more blocks than before but the few that are *spared*."""
        more = debug.memory().blocks - self._blocks
        assert more <= spared, f"{more} blocks are left: {debug.memory_blocks()[-more:]}"
