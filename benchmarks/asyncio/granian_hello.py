""" "Hello, World!" by a bare application on granian, with one worker: ``granian_hello INTERFACE``.

The worker is a process of its own, whose time is what counts: it says which. It ends with its
parent, which is killed in the end.
"""

import ctypes
import os
import signal
import socket
import sys
from typing import Any

from granian import Granian
from granian.constants import Interfaces

from benchmarks.applications import APPLICATIONS

interface = sys.argv[1]
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]


PR_SET_PDEATHSIG = 1


def load(*_: object) -> Any:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    print(port, os.getpid(), flush=True)
    return APPLICATIONS[interface]


server = Granian(
    "benchmarks.applications:" + interface,
    port=port,
    interface=Interfaces(interface),
    websockets=False,
    log_enabled=False,
)
server.serve(target_loader=load)
