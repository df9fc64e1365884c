"""A signal event that deletes itself when it has been called three times.

Then no event is left, and the loop ends.

Made of evsignal_new, event_add, event_get_signal, event_del and event_base_dispatch.

    python samples/signal_test.py, then Ctrl-C three times
"""

from __future__ import annotations

import signal
import sys

from libevent_py import Event, EventBase, EventFlag


def main(signum: int = signal.SIGINT, times: int = 3) -> None:
    left = times

    def on_signal(event: Event, signum: int, what: EventFlag) -> None:
        nonlocal left
        left -= 1
        print(f"got {signal.Signals(signum).name}, {left} to go", flush=True)
        if not left:
            event.delete()

    with EventBase() as base:
        Event.signal(base, signum, on_signal).add()
        print(f"waiting for {signal.Signals(signum).name}, {left} times", flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main()
