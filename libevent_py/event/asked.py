"""A signal that makes the process say what its loops wait for: ``LIBEVENT_PY_EXPLAIN``.

Python calls the handler in the main thread, between any two steps of a method. So it only reads,
and writes straight to the descriptor: a stream could be in the middle of another write.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._core.dispatch import roots
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from types import FrameType

#: The environment variable: 1, or the name of the signal.
VARIABLE = "LIBEVENT_PY_EXPLAIN"
STANDARD_ERROR = 2


def _write(text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):  # nobody reads it
        while data:
            data = data[os.write(STANDARD_ERROR, data) :]


def _tell(base: EventBase) -> None:
    """Write what *base* has to explain, under its name, without a user's class having a say."""
    try:
        text = EventBase.explain(base)
    except errors.ClosedError:  # by other code, in the middle
        return
    except errors.ForkError as error:
        text = f"{error}\n"
    _write(f"{EventBase.__repr__(base)}\n{text}\n")


def _age(base: EventBase) -> int:
    """Return a number that is higher for each base made later."""
    return min(base._reactions, default=0)


def _on_signal(_signum: int, _frame: FrameType | None) -> None:
    bases = [base for base in list(roots) if isinstance(base, EventBase) and not base.closed]
    if not bases:
        _write(f"process {os.getpid()} has no event base\n")
    for base in sorted(bases, key=_age):
        try:
            _tell(base)
        except errors.ThreadError as error:
            _write(f"{EventBase.__repr__(base)}: {error}\n\n")
            with contextlib.suppress(errors.LibeventError):
                base.defer(functools.partial(_tell, base))


def listen() -> None:
    """Set the handler if the environment asks for it and the signal has none."""
    asked = os.environ.get(VARIABLE, "")
    name = "SIGUSR1" if asked == "1" else asked
    signum = getattr(signal, name, None) if name.startswith("SIG") else None
    if isinstance(signum, signal.Signals) and signal.getsignal(signum) is signal.SIG_DFL:
        with contextlib.suppress(ValueError, OSError):  # another thread, or SIGKILL
            signal.signal(signum, _on_signal)


listen()
