"""What must be true after each input, whatever it is."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import EventBase, debug, errors
from libevent_py._core.dispatch import live, roots
from tests.kit.accounts import Account

Target = Callable[[bytes], None]

#: How often an input is tried that has left something: what is made once is there by then.
TRIES = 3


class Fault(Exception):
    """What must not be."""


class Checked:
    """A target that is held to what must be true: call it with an input."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.unraisable: list[BaseException | None] = []
        debug.count_memory()
        # Whatever libevent has to say of an input.
        logging.getLogger("libevent").setLevel(logging.CRITICAL + 1)
        sys.unraisablehook = lambda what: self.unraisable.append(what.exc_value)

    def __call__(self, data: bytes) -> None:
        for tried in range(TRIES):
            account = Account()
            self.target(data)
            try:
                self._check(account, data)
                return
            except AssertionError:
                gc.collect()
                try:
                    self._check(account, data)
                    return
                except AssertionError:
                    if tried == TRIES - 1:
                        raise

    def _check(self, account: Account, data: bytes) -> None:
        account.check_descriptors()
        # libevent frees the copy of an address with a scope behind our back: it still counts.
        account.check_blocks(spared=3 * data.count(b"%"))
        assert not errors.waiting(), "an exception is kept"
        assert not live.bases, f"entered: {live.bases}"
        assert not [base for base in roots if not base.closed], "a base is open"
        if self.unraisable:
            raise Fault("a finalizer has raised") from self.unraisable.pop()


@contextlib.contextmanager
def based(*expected: type[Exception]) -> Iterator[EventBase]:
    """Yield a base on which callbacks may raise nothing but what is *expected*; then close it."""
    raised: list[BaseException] = []

    def note(error: BaseException, _source: Any) -> None:
        if not isinstance(error, expected):
            raised.append(error)

    with EventBase() as base:
        base.on_error = note
        yield base
    if raised:
        raise raised[0]


class Ends:
    """Counts who was told of an end: each once."""

    def __init__(self) -> None:
        self.begun = 0
        self.told: Counter[int] = Counter()

    def begin(self) -> Callable[..., None]:
        """Return what is to be called once, with anything."""
        self.begun += 1
        number = self.begun

        def end(*_: object) -> None:
            self.told[number] += 1

        return end

    def check(self) -> None:
        """Check that each was told."""
        wrong = {n: self.told[n] for n in range(1, self.begun + 1) if self.told[n] != 1}
        if wrong:
            raise Fault(f"told so many times, of {self.begun}: {wrong}")
