"""Scripts under valgrind: one Python starts there, imports the package, and forks for each of them.

Starting Python takes ten seconds under valgrind, a fork no time. Each script still has its own
process: so it can't break the others, and its exit status is its own. No descriptor stays open
between two scripts, in either process, because tests look for those.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

#: An access to memory that isn't its own is an error of a program, and then its exit status.
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--undef-value-errors=no"]

#: What is set there: Python is to allocate by malloc, which valgrind watches, and glibc not to
#: compare wide strings faster than valgrind understands.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-EVEX,-AVX512VL",
    "PYTHONMALLOC": "malloc",
}

#: How long the first script may have to wait for the start, in seconds: the machine is shared.
START = 180.0

#: What it imports for all, as many scripts are of what test modules have.
IMPORTED = ["libevent_py", "pytest", *(f"tests.kit.{name}" for name in ("scenes", "http_peers"))]

#: What the process does from its start on; the name is the only one that scripts find.
MAIN = "from tests.kit.valgrind import script; exec(compile(script(), '<string>', 'exec'))"


class Done(NamedTuple):
    """How a script has ended."""

    status: int
    told: str


class Valgrind:
    """A Python under valgrind that forks for scripts, and the directory where it is spoken to."""

    def __init__(self, options: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="valgrind-")
        self._path = Path(self._place.name)
        self._log = self._path / "started.log"
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [
                    *(*VALGRIND, f"--log-file={self._path}/%p.valgrind"),
                    *(sys.executable, *options, "-c", MAIN, str(self._path)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=root,
                env=environment,
            )

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def run(
        self, code: str, arguments: Sequence[str], environment: Mapping[str, str], patience: float
    ) -> Done:
        """Run the script *code* in a child; kill it when it has taken *patience* seconds."""
        output = self._path / "output"
        request = {
            "code": code,
            "arguments": arguments,
            "environment": dict(environment),
            "output": str(output),
        }
        with self._connected() as connection, connection.makefile("r") as answers:
            connection.sendall(json.dumps(request).encode() + b"\n")
            pid = int(answers.readline() or self._fail("it has not forked"))
            connection.settimeout(None)
            late = not select.select([connection], [], [], patience)[0]
            if late:
                os.kill(pid, signal.SIGKILL)
            status = int(answers.readline() or self._fail("it has not told how a child ended"))
        told = output.read_text(errors="replace")
        for log in sorted(self._path.glob("*.valgrind")):
            if log.stem != str(self._process.pid):
                told += log.read_text(errors="replace")
                log.unlink()
        if late:
            told += f"killed after {patience} seconds\n"
        return Done(status, told)

    def _connected(self) -> socket.socket:
        """Return a connection to the process, once it has started."""
        address = str(self._path / "socket")
        while self.runs:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(START)
            try:
                connection.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):  # not yet
                connection.close()
                with_patience = select.select([], [], [], 0.05)
                assert not any(with_patience)
            else:
                return connection
        self._fail("it has ended")

    def _fail(self, what: str) -> NoReturn:
        logs = [self._log, *self._path.glob("*.valgrind")]
        told = "".join(log.read_text(errors="replace") for log in logs)
        raise RuntimeError(f"the Python under valgrind: {what}\n{told}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._place.cleanup()


# What the process itself does.


def script() -> str:
    """In each child of this process, return the next script; in this process, never return.

    Children find everything as the script of a new Python does: arguments, environment, standard
    streams, no other descriptor, and nothing that a collection would have to go through in vain.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    path, parent = Path(sys.argv[1]), os.getppid()
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path / "socket"))
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
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv[:] = ["-c", *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["environment"])
    atexit.register(gc.unfreeze)  # so that the end finds all that there is, as ever
    code: str = request["code"]
    return code
