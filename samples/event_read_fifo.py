"""A persistent event that reads a named pipe, which is made at the start and removed at the end.

The pipe is opened for writing, too: so it isn't at its end when a writer closes it, and the next
writer can open it.

Made of event_new, event_add, evsignal_new, event_base_dispatch and event_base_loopbreak.

    python samples/event_read_fifo.py [path]
    echo hello > event.fifo
"""

from __future__ import annotations

import os
import signal
import sys

from libevent_py import Event, EventBase, EventFlag


def on_readable(event: Event, fd: int, what: EventFlag) -> None:
    sys.stdout.buffer.write(b"read: " + os.read(fd, 4096))
    sys.stdout.buffer.flush()


def main(path: str = "event.fifo") -> None:
    try:
        os.mkfifo(path, 0o600)
    except OSError as error:  # such as: a file of this name is there
        sys.exit(f"{path}: {error.strerror}")
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with EventBase() as base:
            Event(base, fifo, EventFlag.READ | EventFlag.PERSIST, on_readable).add()
            Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopbreak()).add()
            print(f"reading {path}, Ctrl-C to stop", flush=True)
            base.dispatch()
    finally:
        os.close(fifo)
        os.unlink(path)


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
