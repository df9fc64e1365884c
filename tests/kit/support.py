"""What all tests share: another Python process for what could end it, and bounded waiting."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from libevent_py import EventBase, EventConfig
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


#: For a test with ``valgrind=valgrind``: `make test` runs it plain, `make more` under valgrind.
VALGRIND_TAKES_LONG = pytest.mark.parametrize(
    "valgrind",
    [pytest.param(False, id="plain"), pytest.param(True, id="valgrind", marks=pytest.mark.more)],
)

#: What asyncio says in Python's development mode of a callback on a machine that has much to do.
BUSY = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)


def run_python(
    code: str,
    *arguments: str,
    valgrind: bool = False,
    status: int = 0,
    stderr: str | None = "",
    env: dict[str, str] | None = None,
) -> str:
    """Run *code* in a Python of its own and return what it printed.

    It must exit with *status* and print *stderr* there, or with None anything. With *valgrind* it
    runs once more under valgrind, where an access to memory that isn't its own is an error. (With a
    sanitizer, it is one already.)
    """
    code = textwrap.dedent(code)
    environment = {**os.environ, "MALLOC_PERTURB_": "165", **(env or {})}
    command = [sys.executable, "-X", "dev", *WARNINGS, "-c", code, *arguments]
    output = _run(command, environment, status, stderr)
    if valgrind and not SANITIZED:
        _check(code, arguments, environment, status, starts=env is not None)
    return output


_checkers: list[Valgrind] = []


def _check(
    code: str, arguments: Sequence[str], env: dict[str, str], status: int, starts: bool
) -> None:
    """Run *code* under valgrind: where it *starts* in another environment, in a Python so started.

    Variables may be for the loader, or be read when something is imported.
    """
    env = {**env, **ENVIRONMENT}
    if starts:
        _run([*VALGRIND, sys.executable, *WARNINGS, "-c", code, *arguments], env, status, None)
        return
    while _checkers and not _checkers[0].runs:
        _checkers.pop().close()
    if not _checkers:
        _checkers.append(Valgrind(WARNINGS, ROOT, env))
    done = _checkers[0].run(code, arguments, env, 5 * PATIENCE)
    assert done.status == status, f"exit status {done.status}\n{done.told}"


def end_valgrind() -> None:
    """End the Python under valgrind, if there is one."""
    while _checkers:
        _checkers.pop().close()


def _run(command: Sequence[str], env: dict[str, str], status: int, stderr: str | None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=5 * PATIENCE, cwd=ROOT, env=env
    )
    assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    if stderr is not None:
        assert BUSY.sub("", done.stderr) == stderr
    return done.stdout


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


def swept(tmp_path: Path, kind: str, *arguments: str) -> None:
    """Have `tests/kit/sweep.py` try *kind* by its lines, in a process of its own."""
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
        [*command, "--lines", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    at = state.read_bytes().rstrip(b"\0").decode()
    assert done.returncode == 0, f"at {at}:\n{done.stdout}{done.stderr}"
    assert f"{kind}: " in done.stdout
