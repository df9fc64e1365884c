"""The sdist is complete, and a wheel made from it works where nothing else of the project is."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.kit.once import once
from tests.kit.support import ROOT

#: It takes a minute to build it all.
pytestmark = pytest.mark.more

VERSION = importlib.metadata.version("libevent_py")
SCRIPT = """
import libevent_py
from libevent_py import EventBase, Event

fired = []
with EventBase() as base:
    timer = Event.timer(base, lambda event, fd, what: fired.append(what)).add(0.001)
    base.dispatch()
assert len(fired) == 1
print(libevent_py.__file__)
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= variables
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this tree, and the wheel made from that sdist."""

    def make(out: Path) -> None:
        build = [sys.executable, "-m", "build"]
        # Not optimized: that takes half of the time, and nothing here is about speed.
        run(*build, "--no-isolation", "--outdir", out, ROOT, cwd=out, CFLAGS="-O0")

    return once(tmp_path_factory, "dist", make)


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """The Python of a fresh virtual environment that has cffi, the one dependency."""
    venv.create(tmp_path / "venv", with_pip=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for name in ("cffi", "pycparser", "_cffi_backend"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if spec.submodule_search_locations else origin
        (site / origin.name).symlink_to(origin)
    (known,) = Path(str(importlib.metadata.distribution("cffi").locate_file(""))).glob(
        "cffi-*.dist-info"
    )
    (site / known.name).symlink_to(known)
    return tmp_path / "venv" / "bin" / "python"


def test_the_sdist_has_the_headers_and_what_builds_and_nothing_built(dist: Path) -> None:
    with tarfile.open(dist / f"libevent_py-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {
        "LICENSE",
        "Makefile",
        "build_ffi.py",
        "libevent_py/_c/event.c",
        "libevent_py/_c/not_declared.toml",
        "libevent_py/py.typed",
        "pyproject.toml",
        "samples/c/sample.h",
        "samples/c/upper_listener.c",
        "samples/upper_listener.py",
        "setup.py",
        "tests/house/test_packaging.py",
        "vendor/event-config.h.in",
        "vendor/fetch.py",
        "vendor/include/event2/event.h",
        "vendor/libevent.toml",
    }
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]
    # It is for the machine that made the sdist: a build takes or makes its own.
    assert not [name for name in names if "event-config" in name and not name.endswith(".in")]


def test_the_wheel_is_for_every_python_from_3_10_on_and_has_only_the_package(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.name.startswith(f"libevent_py-{VERSION}-cp310-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("libevent_py/")}
    assert {path.partition("/")[0] for path in names - package} == {
        f"libevent_py-{VERSION}.dist-info",
        "pytest_libevent.py",
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "libevent_py").rglob("*.py")}
    built = {
        "libevent_py/_trace/preload.abi3.so",
        "libevent_py/_ffi.abi3.so",
        "libevent_py/_ffi.pyi",
        "libevent_py/py.typed",
    }
    told = {str(path.relative_to(ROOT)) for path in (ROOT / "libevent_py" / "_c").glob("*.h")}
    told |= {"libevent_py/_c/not_declared.toml", "libevent_py/_c/not_wrapped.toml"}
    told |= {"libevent_py/_cli/port.toml"}
    told |= {f"libevent_py/_samples/{name}" for name in SAMPLES}
    assert package == modules | built | told


@pytest.mark.skipif(sys.platform != "linux", reason="it reads ELF files")
def test_what_is_built_names_nothing_of_the_machine_it_was_built_on(
    dist: Path, tmp_path: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(tmp_path, modules)
    assert len(modules) == 2
    for module in modules:
        dynamic = run("readelf", "--dynamic", tmp_path / module, cwd=tmp_path)
        assert "NEEDED" in dynamic
        assert not re.search("RUNPATH|RPATH", dynamic)
        assert ".debug_info" not in run("readelf", "--sections", "--wide", module, cwd=tmp_path)
        assert str(ROOT).encode() not in (tmp_path / module).read_bytes()


SAMPLES = {
    path.relative_to(ROOT / "samples").as_posix()
    for pattern in ("*.py", "c/*.c", "c/*.h")
    for path in (ROOT / "samples").glob(pattern)
    if path.name != "__init__.py"
}


#: What a user may write, and what a type checker must see in it.
PROGRAM = """
from __future__ import annotations

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    DnsResult,
    Event,
    EventBase,
    EventFlag,
    Listener,
    LoopFlag,
    lib,
)


def echo(bev: BufferEvent) -> None:
    bev.write(bev.read().upper())


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    print(f"{what}", what.names, bev.error)
    bev.close()


def accept(listener: Listener, fd: int, address: object) -> None:
    bev = BufferEvent(listener.base, fd, on_read=echo, on_event=on_event)
    bev.enable(EventFlag.READ | EventFlag.WRITE)


number: int = EventFlag.READ.value
result: DnsResult = DnsResult(0)
both: EventFlag = EventFlag.READ | EventFlag.PERSIST
with EventBase(method="poll", priorities=2) as base:
    Listener(base, ("127.0.0.1", 0), accept)
    event: Event = Event.timer(base, lambda event, fd, what: None).add(0.1)
    done: bool = base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    print(number, result, both, event.pending, done, lib.event_get_version())
"""

#: A program with a mistake in each line but the first, by type checkers' own words for it.
MISTAKES = """\
from libevent_py import *
EventBase(priorities="many")
flag: str = EventFlag.READ
EventBase().dispatches()
"""
CHECKERS = {
    "mypy": (
        ["mypy", "--strict", "--cache-dir", "cache"],
        {2: "arg-type", 3: "assignment", 4: "attr-defined"},
    ),
    "pyright": (
        ["pyright", "--pythonpath", sys.executable],
        {2: "reportArgumentType", 3: "reportAssignmentType", 4: "reportAttributeAccessIssue"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_the_package_from_anywhere(checker: str, tmp_path: Path) -> None:
    """In a clone set up by the Makefile, which installs it by a path that they read, too."""
    options, kinds = CHECKERS[checker]
    command = [sys.executable, "-m", *options]
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    run(*command, "program.py", cwd=tmp_path)
    done = subprocess.run(
        [*command, "mistakes.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr
    said = r"mistakes\.py:(\d+).*? error: (?s:.*?)[\[(]([\w-]+)[\])]$"
    found = re.findall(said, done.stdout, re.MULTILINE)
    assert {int(line): kind for line, kind in found} == kinds, done.stdout


def test_nearly_every_public_name_has_a_known_type(tmp_path: Path) -> None:
    """What is left are classes that objects have for a while, with bases that no checker knows."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "libevent_py", "--ignoreexternal"]
    done = subprocess.run(
        [*command, "--outputjson"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    told = json.loads(done.stdout)["typeCompleteness"]
    unknown = [
        symbol["name"]
        for symbol in told["symbols"]
        if symbol["isExported"] and (not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"])
    ]
    assert len(told["symbols"]) > 2000
    assert told["completenessScore"] >= 0.99, unknown


def test_the_wheel_works_in_a_fresh_environment(
    dist: Path, bare_python: Path, tmp_path: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    pip: list[str | Path] = [bare_python, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    where = run(bare_python, "-W", "error", "-c", SCRIPT, cwd=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
    script = bare_python.with_name("libevent-py")
    listed = run(script, "samples", cwd=tmp_path).splitlines()
    assert {f"{line.split()[0]}.py" for line in listed} == {n for n in SAMPLES if "/" not in n}
    assert "epoll" in run(script, "samples", "run", "methods", cwd=tmp_path)
    assert "libevent_py 0." in run(script, "doctor", cwd=tmp_path)
