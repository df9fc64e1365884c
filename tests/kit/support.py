"""What all tests share: another Python process for what could end it, and bounded waiting."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from libevent_py import EventBase, EventConfig
from tests.kit.forking import Forking
from tests.kit.valgrind import ENVIRONMENT, VALGRIND, Valgrind

ROOT = Path(__file__).resolve().parent.parent.parent

#: Whether this process, and what it starts, runs with a sanitizer (`tests.kit.builds`), which finds
#: what valgrind does: valgrind can't run with it.
SANITIZED = "san.so" in os.environ.get("LD_PRELOAD", "")

#: How long anything may take that takes no time, in seconds: the machine is shared.
PATIENCE = 60.0


def shown(value: Any) -> str:
    """Return what stands for *value* in a test's name: the same in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def only(method: str, **options: Any) -> EventBase:
    """Return a base on the backend *method*, with the other *options* of `EventConfig`."""
    avoid = [name for name in EventBase.supported_methods() if name != method]
    with EventConfig(avoid=avoid, **options) as config:
        return EventBase(config)


#: As in pyproject.toml: tests make events and requests only to look at them, or to drop them.
WARNINGS = [
    *("-W", "error"),
    *("-W", "ignore:<Event at:ResourceWarning", "-W", "ignore:<HttpRequest at:ResourceWarning"),
]


#: What asyncio says in Python's development mode of a callback on a machine that has much to do.
BUSY = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)


def run_python(
    code: str,
    *arguments: str,
    valgrind: bool = False,
    status: int = 0,
    stderr: str | None = "",
    env: dict[str, str] | None = None,
    fresh: bool = False,
) -> str:
    """Run *code* in a Python of its own and return what it printed.

    It must exit with *status* and print *stderr* there, or with None anything. With *valgrind* it
    runs once more under valgrind, where an access to memory that isn't its own is an error. (With a
    sanitizer, it is one already.) Its process is forked from one that has imported the package, and
    nothing else, unless it is to be *fresh*, or has an environment of its own, *env*.
    """
    code = textwrap.dedent(code)
    environment = {**os.environ, "MALLOC_PERTURB_": "165", **(env or {})}
    server = None if fresh or env is not None or SANITIZED else _forking("plain", environment)
    if server is None:
        command = [sys.executable, "-X", "dev", *WARNINGS, "-c", code, *arguments]
        output = _run(command, environment, status, stderr)
    else:
        done = server.run(code, arguments, environment, 5 * PATIENCE)
        output = _checked(done.status, done.stdout, done.stderr, status, stderr)
    if valgrind and not SANITIZED:
        _check(code, arguments, environment, status, starts=env is not None)
    return output


#: The Pythons that fork, and the environment that each was started in.
_started: dict[str, tuple[Forking, dict[str, str]]] = {}


def _forking(kind: str, environment: Mapping[str, str]) -> Forking | None:
    """Return the Python of *kind* that forks, or None where it was started in another environment.

    Variables may be for the loader, or be read when something is imported.
    """
    env = {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
    server, began = _started.pop(kind, (None, env))
    if server is not None and not server.runs:
        server.close()
        server = None
    if server is None:
        if kind == "valgrind":
            server = Valgrind(WARNINGS, ROOT, env)
        else:
            server = Forking([sys.executable, "-X", "dev", *WARNINGS], ["libevent_py"], ROOT, env)
        began = env
    _started[kind] = server, began
    return server if env == began else None


def _check(
    code: str, arguments: Sequence[str], env: dict[str, str], status: int, starts: bool
) -> None:
    """Run *code* under valgrind, in a new Python where it *starts* in an environment of its own."""
    env = {**env, **ENVIRONMENT}
    server = None if starts else _forking("valgrind", env)
    if server is None:
        _run([*VALGRIND, sys.executable, *WARNINGS, "-c", code, *arguments], env, status, None)
    else:
        done = server.run(code, arguments, env, 5 * PATIENCE)
        _checked(done.status, done.stdout, done.stderr, status, None)


def end_forking() -> None:
    """End the Pythons that fork, if there are any."""
    while _started:
        _started.popitem()[1][0].close()


def _checked(ended: int, stdout: str, told: str, status: int, stderr: str | None) -> str:
    """Return *stdout* of a Python that has *ended* with *status*, and *told* just *stderr*."""
    assert ended == status, f"exit status {ended}\n{stdout}{told}"
    if stderr is not None:
        assert BUSY.sub("", told) == stderr
    return stdout


def _run(command: Sequence[str], env: dict[str, str], status: int, stderr: str | None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=5 * PATIENCE, cwd=ROOT, env=env
    )
    return _checked(done.returncode, done.stdout, done.stderr, status, stderr)


def run_c(source: str, place: Path, *libraries: str) -> str:
    """Return what the C program *source* prints, compiled in *place* with libevent_core.

    *libraries* are linked before it. It is what a test compares Python with.
    """
    program = _compile(source, place / "twin", *(f"-l{library}" for library in libraries))
    return subprocess.run(
        [program], stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE
    ).stdout


def program_of(source: str, place: Path, *flags: str) -> Path:
    """Return the program of the C code *source*, compiled in *place* with libevent_core."""
    return _compile(source, place / "program", *flags)


def library_of(source: str, place: Path) -> Path:
    """Return the shared library of the C code *source*, compiled in *place* with libevent_core."""
    return _compile(source, place / "library.so", "-shared", "-fPIC", "-pthread")


def _compile(source: str, made: Path, *flags: str) -> Path:
    file = made.with_suffix(".c")
    file.write_text(textwrap.dedent(source))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-Wall", "-o", str(made), str(file), *flags, "-levent_core"]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return made


def swept(tmp_path: Path, kind: str, *arguments: str, lines: bool = True) -> None:
    """Have `tests/kit/sweep.py` try *kind* by its *lines*, in a process of its own.

    Otherwise it is tried by its instructions, of which there are many more.
    """
    state = tmp_path / "state"
    state.write_bytes(bytes(4096))
    environment = {
        **os.environ,
        "LIBEVENT_PY_SWEEP_STATE": str(state),
        "MALLOC_PERTURB_": "165",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.kit.sweep", kind]
    done = subprocess.run(
        [*command, *(["--lines"] if lines else []), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    at = state.read_bytes().rstrip(b"\0").decode()
    assert done.returncode == 0, f"at {at}:\n{done.stdout}{done.stderr}"
    assert f"{kind}: " in done.stdout
    assert f"{kind}: 0 tries" not in done.stdout
