"""Masters with their workers, started as users start them, and watched by their logs."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.kit.support import PATIENCE

#: What most tests serve: it says who answers.
APP = """
import os, time

VALUE = "first"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(0.6)
    if path == "/for-ever":
        time.sleep(3600)
    if path == "/die":
        os._exit(7)
    if path == "/orphan" and not os.fork():
        if not os.fork():
            time.sleep(0.05)
        os._exit(0)
    start_response("404 Not Found" if path == "/404" else "200 OK", [])
    return [f"{VALUE} {os.getpid()}".encode()]
"""


class Served:
    """A master, or whatever serves, and what it logs."""

    def __init__(self, command: Sequence[str], place: Path, **options: object) -> None:
        self.log = place / "log"
        # Without bytecode, which is stale if a source of the same size is written in a second.
        own = {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        env = {**os.environ, **own, **options.pop("env", {})}  # type: ignore[dict-item]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                command,
                cwd=place,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        #: The process that signals go to.
        self.pid = self.process.pid

    def said(self) -> str:
        """Return all that has been logged."""
        return self.log.read_text()

    def until(self, text: str, times: int = 1) -> str:
        """Wait until *text*, a regular expression, has been logged so often; return the last."""
        end = time.monotonic() + PATIENCE
        while len(found := re.findall(text, self.said())) < times:
            assert self.process.poll() is None or len(re.findall(text, self.said())) >= times, (
                f"{text!r} is missing: {self.said()}"
            )
            assert time.monotonic() < end, f"{text!r} is missing: {self.said()}"
            time.sleep(0.01)
        return str(found[-1])

    @property
    def port(self) -> int:
        """The port, once it is served."""
        return int(self.until(r"serving .* on https?://127\.0\.0\.1:(\d+)"))

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        return int(self.process.wait(PATIENCE))

    def get(self, path: str = "/") -> str:
        """Ask by a connection of its own; return the status and the body, as in "200 first 123"."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return f"{answer.status} {answer.read().decode()}"

    def workers(self) -> list[int]:
        """Return the process ids of all children."""
        return children_of(self.pid)


def children_of(pid: int) -> list[int]:
    """Return the ids of the children of *pid* that have not ended."""
    found = []
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if state_of(int(number)) != "Z":
                found.append(int(number))
    return found


def state_of(pid: int) -> str:
    """Return the state of the process *pid*, as "Z" for one that has not been waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """Tell whether the process *pid* is there, and has not ended."""
    try:
        return state_of(pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def started(command: Sequence[str], place: Path, **options: object) -> Iterator[Served]:
    """Start *command* in the directory *place*; afterwards it and all of its session are killed."""
    served = Served(command, place, **options)
    try:
        yield served
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGKILL)
        served.process.wait(PATIENCE)


def serve_command(*arguments: str) -> list[str]:
    """Return the command that serves "app:app" on a free port."""
    command = [sys.executable, "-X", "dev", "-m", "libevent_py", "serve", *arguments]
    if not {"--bind", "--unix", "--fd", "--activated"} & {*arguments}:
        command += ["--bind", "127.0.0.1:0"]
    return [*(word for word in command if word != "--activated"), "app:app"]


@contextlib.contextmanager
def mastered(place: Path, *arguments: str, app: str = APP, **options: object) -> Iterator[Served]:
    """Serve the source *app* in *place* by ``python -m libevent_py serve`` with *arguments*."""
    (place / "app.py").write_text(app)
    with started(serve_command(*arguments), place, **options) as served:
        yield served


#: A master with other constants, for what takes long by default.
HURRIED = """
import sys
from libevent_py.serve import master

for text in sys.argv.pop(1).split():
    name, _, value = text.partition("=")
    assert hasattr(master, name)
    setattr(master, name, float(value))

from libevent_py._cli.serve import main

sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def hurried(place: Path, constants: str, *arguments: str, app: str = APP) -> Iterator[Served]:
    """Do as `mastered` with *constants* such as "GRACE=0.1 STABLE=0"."""
    (place / "app.py").write_text(app)
    command = serve_command(*arguments)
    at = command.index("-m")
    command[at : at + 3] = ["-c", HURRIED, constants]
    with started(command, place) as served:
        yield served
