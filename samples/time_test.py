"""A timer that is added again whenever it fires or, with -p, a persistent one.

The first waits from the moment of its callback, the second from the moment when it was due. So the
second doesn't drift.

Made of evtimer_new, event_add, evsignal_new, event_base_dispatch and event_base_loopexit.

    python samples/time_test.py [-p] [seconds]
"""

from __future__ import annotations

import argparse
import signal
import time

from libevent_py import Event, EventBase, EventFlag


def main(seconds: float = 2.0, persist: bool = False) -> None:
    last = time.monotonic()

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal last
        now = time.monotonic()
        print(f"{now - last:.3f} seconds have passed", flush=True)
        last = now
        if not persist:
            event.add(seconds)

    with EventBase() as base:
        Event.timer(base, on_timeout, persist=persist).add(seconds)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print(f"every {seconds:g} seconds, Ctrl-C to stop", flush=True)
        base.dispatch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=2.0)
    parser.add_argument("-p", dest="persist", action="store_true", help="a timer that persists")
    main(**vars(parser.parse_args()))
