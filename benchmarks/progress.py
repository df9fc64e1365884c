"""How far a long run is: a bar on a terminal, a line now and then elsewhere.

Both go to standard error, so that what a run finds out can be piped away. The bar is tqdm's, of the
extras "bench", "soak" and "test"; without it there are lines on a terminal, too.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

#: What the bar shows of a run that counts something, and of one that takes a given time.
COUNTED = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
TIMED = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
#: How many columns there are where a terminal doesn't say, and after how many seconds a line comes.
COLUMNS, EVERY = 80, 30.0


class Progress:
    """How far a run is that has a name and a total, of something counted or in seconds."""

    def __init__(
        self, name: str, total: float, unit: str = "s", every: float | None = EVERY
    ) -> None:
        """Begin, for *total* of *unit*; a line comes after *every* seconds, or never with None."""
        self.name, self.total, self.unit, self.every = name, total, unit, every
        self.done = 0.0
        self._told = time.monotonic()
        self._shown = (0.0, "")
        self._bar: Any = None
        if sys.stderr.isatty() and find_spec("tqdm"):
            from tqdm import tqdm

            # No thread and no lock between processes: the runs fork, and count what they have.
            tqdm.monitor_interval = 0
            tqdm.set_lock(threading.RLock())
            self._bar = tqdm(
                total=total,
                desc=name,
                bar_format=TIMED if unit == "s" else COUNTED,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
            )
            if not self._bar.format_dict["ncols"]:  # a terminal without a size
                self._bar.dynamic_ncols, self._bar.ncols = None, COLUMNS

    def reach(self, done: float, said: str = "") -> None:
        """Show that *done* of the total is done, and what is *said* of it."""
        self.done = min(done, self.total)
        if self._bar is not None:
            number = self.done if self.unit == "s" else int(self.done)
            if (number, said) != self._shown:
                self._shown = number, said
                self._bar.n = number
                self._bar.set_postfix_str(said, refresh=True)
        elif self.every is not None and time.monotonic() >= self._told + self.every:
            self._told = time.monotonic()
            more = f", {said}" if said else ""
            print(
                f"{self.name}: {self.done:,.0f} of {self.total:,.0f} {self.unit}{more}",
                file=sys.stderr,
                flush=True,
            )

    def add(self, more: float, said: str = "") -> None:
        """Show that *more* of the total is done, and what is *said* of it."""
        self.reach(self.done + more, said)

    def say(self, text: str) -> None:
        """Print *text* on standard output, above the bar if there is one."""
        with self._aside():
            print(text, flush=True)

    def _aside(self) -> AbstractContextManager[Any]:
        """Return a block in which the bar is out of the way."""
        if self._bar is None:
            return nullcontext()
        aside: AbstractContextManager[Any] = self._bar.external_write_mode(file=sys.stdout)
        return aside

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
