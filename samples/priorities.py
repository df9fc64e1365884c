"""Priorities: the most urgent of the active events is always called next.

Three events are made active at once, the least urgent first. The second one's callback makes the
first active again, which is then called before the third.

Made of event_base_priority_init, evuser_new, event_priority_set, event_active and
event_base_dispatch.

    python samples/priorities.py
"""

from __future__ import annotations

import sys

from libevent_py import Event, EventBase, EventFlag


def main() -> None:
    def on_urgent(event: Event, fd: int, what: EventFlag) -> None:
        print("urgent")

    def on_normal(event: Event, fd: int, what: EventFlag) -> None:
        print("normal, which has something urgent to do")
        urgent.active()

    def on_idle(event: Event, fd: int, what: EventFlag) -> None:
        print("idle")

    with EventBase(priorities=3) as base:
        urgent = Event.user(base, on_urgent)
        normal = Event.user(base, on_normal)
        idle = Event.user(base, on_idle)
        urgent.priority, normal.priority, idle.priority = 0, 1, 2
        for event in (idle, normal, urgent):
            event.active()
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main()
