"""What systemd tells a service, and is told by it, as `sd_listen_fds` and `sd_notify` do.

Other supervisors do the same.
"""

from __future__ import annotations

import os
import socket

#: The first of the descriptors that are passed on.
FIRST = 3

#: What no worker, and no program that it starts, should take for its own.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def passed_on() -> dict[int, str]:
    """Return the descriptors that were passed on to this process, each with its name.

    The names come from ``FileDescriptorName=``; without one it is "". The variables are removed
    from the environment, and the descriptors aren't passed on any further: so this finds them once.
    Raises `ValueError` if the variables make no sense.
    """
    pid, count, names = (os.environ.get(name, "") for name in VARIABLES)
    if not pid and not count:
        return {}
    if pid.isascii() and pid.isdigit() and int(pid) != os.getpid():
        return {}  # they are meant for a parent process
    if not all(text.isascii() and text.isdigit() for text in (pid, count)):
        raise ValueError(f"LISTEN_PID and LISTEN_FDS must be numbers, not {pid!r} and {count!r}")
    listed = names.split(":") if names else []
    for name in VARIABLES:
        os.environ.pop(name, None)
    found = {}
    for place in range(int(count)):
        fd = FIRST + place
        os.set_inheritable(fd, False)
        found[fd] = listed[place] if place < len(listed) else ""
    return found


class Supervisor:
    """Whoever listens at NOTIFY_SOCKET, or nobody."""

    def __init__(self) -> None:
        """Remember the address, and remove it from the environment: workers have nothing to say."""
        path = os.environ.pop("NOTIFY_SOCKET", "")
        if path and path[0] not in "/@":
            raise ValueError(f'NOTIFY_SOCKET must begin with "/" or "@", not {path!r}')
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def tell(self, *assignments: str) -> None:
        """Send *assignments*, such as "READY=1"; raise `OSError` if that fails."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(self._address)
            sock.sendall("\n".join(assignments).encode())
