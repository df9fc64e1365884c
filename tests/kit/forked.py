"""What a Python does that forks for scripts: see forking.py, which starts and asks it.

It imports little, as every script finds that imported already. No descriptor stays open between two
scripts, in either process, because tests look for those.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import socket
import sys

#: The files that a script's standard output and error are written to.
STREAMS = ("stdout", "stderr")


def script() -> str:
    """In each child of this process, return the next script; in this process, never return.

    Children find everything as the script of a new Python does: arguments, environment, standard
    streams, no other descriptor, and nothing that a collection would have to go through in vain.
    """
    for name in sys.argv[2:]:
        importlib.import_module(name)
    path, parent = sys.argv[1], os.getppid()
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}/socket")
        listening.listen()
        while True:
            while not select.select([listening], [], [], 5.0)[0]:
                if os.getppid() != parent:
                    os._exit(0)
            connection = listening.accept()[0]
            with connection, connection.makefile("r") as requests:
                request = json.loads(requests.readline())
                pid = os.fork()
                if not pid:
                    break
                connection.sendall(f"{pid}\n".encode())
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection.sendall(f"{status}\n".encode())
    for number, name in enumerate(STREAMS, 1):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        output = os.open(f"{path}/{name}", flags, 0o600)
        os.dup2(output, number)
        os.close(output)
    sys.argv[:] = ["-c", *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["environment"])
    atexit.register(gc.unfreeze)  # so that the end finds all that there is, as ever
    code: str = request["code"]
    return code
