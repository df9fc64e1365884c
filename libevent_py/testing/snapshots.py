"""What events an event base has, to be compared with what it has later."""

from __future__ import annotations

from typing import ClassVar

from libevent_py.enums import EventFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.event.explain import callback_text


class Snapshot:
    """The events of *base* that are pending or active now; ``after - before`` tells what differs.

    Two snapshots are equal if they have the same events, which wait for the same.
    """

    def __init__(self, base: EventBase) -> None:
        self._lines = {event: line_of(event) for event in base.events()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._lines == other._lines

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # as all that is equal by what it holds

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self._lines)} events>"

    def __str__(self) -> str:
        return "\n".join(self._lines.values())

    def __sub__(self, before: Snapshot) -> str:
        """Return what has changed since *before*: lines with "-" were there, lines with "+" are."""
        lines = []
        for event, line in before._lines.items():
            if self._lines.get(event) != line:
                lines.append(f"- {line}")
                if event in self._lines:
                    lines.append(f"+ {self._lines[event]}")
        lines += [f"+ {line}" for event, line in self._lines.items() if event not in before._lines]
        return "\n".join(lines)


def line_of(event: Event) -> str:
    """Return what there is to say of *event*, without what changes by itself."""
    what, pending = event.what, event.pending
    waits = [flag.name or "" for flag in EventFlag if flag & what and flag.name != "TIMEOUT"]
    aim = f"signal {event.signum}" if event.signum is not None else f"fd {event.fd}"
    parts = [aim if event.fd >= 0 else "timer", "|".join(waits)]
    if pending & EventFlag.TIMEOUT:
        parts.append("with a timeout")
    parts.append(f"calls {callback_text(event.callback)}")
    return f"Event #{event._key}: {', '.join(filter(None, parts))}"


def compared(left: object, right: object) -> list[str]:
    """Return how two snapshots differ, for pytest."""
    assert isinstance(left, Snapshot) and isinstance(right, Snapshot)
    return [
        "the events differ (- only on the right, + only on the left):",
        *(left - right).split("\n"),
    ]
