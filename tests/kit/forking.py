"""Scripts in processes of their own that don't each start Python: one starts, and forks for them.

It has imported the package, and little else has happened in it. So a script finds nearly what that
of a new Python does, its process can't break the others, and it ends as ever: Python is finalized
there, and the exit status is its own. What that Python does is in forked.py.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.kit.forked import STREAMS

#: How long the first script may have to wait for the start, in seconds: the machine is shared.
START = 180.0

#: What the process does from its start on; the name is the only one that scripts find.
MAIN = "from tests.kit.forked import script; exec(compile(script(), '<string>', 'exec'))"


class Done(NamedTuple):
    """How a script has ended, and what it has written to its standard output and error."""

    status: int
    stdout: str
    stderr: str


class Forking:
    """A Python that forks for scripts, and the directory where it is spoken to.

    It is started as *command*, to which its code and arguments are added, and imports *imported*.
    """

    def __init__(
        self,
        command: Sequence[str],
        imported: Sequence[str],
        root: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="forking-")
        self.path = Path(self._place.name)
        self._log = self.path / "started.log"
        command = [part.replace("{path}", str(self.path)) for part in command]
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [*command, "-c", MAIN, str(self.path), *imported],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=root,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """The number of the process that forks."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def run(
        self, code: str, arguments: Sequence[str], environment: Mapping[str, str], patience: float
    ) -> Done:
        """Run the script *code* in a child; kill it when it has taken *patience* seconds."""
        request = {
            "code": code,
            "arguments": arguments,
            "environment": dict(environment),
        }
        with self._connected() as connection, connection.makefile("r") as answers:
            connection.sendall(json.dumps(request).encode() + b"\n")
            pid = int(answers.readline() or self._fail("it has not forked"))
            connection.settimeout(None)
            late = not select.select([connection], [], [], patience)[0]
            if late:
                os.kill(pid, signal.SIGKILL)
            status = int(answers.readline() or self._fail("it has not told how a child ended"))
        stdout, stderr = ((self.path / name).read_text(errors="replace") for name in STREAMS)
        if late:
            stderr += f"killed after {patience} seconds\n"
        return Done(status, stdout, stderr)

    def _connected(self) -> socket.socket:
        """Return a connection to the process, once it has started."""
        address = str(self.path / "socket")
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
        logs = [self._log, *self.path.glob("*.valgrind")]
        told = "".join(log.read_text(errors="replace") for log in logs)
        raise RuntimeError(f"the Python that forks: {what}\n{told}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._place.cleanup()
