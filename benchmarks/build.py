"""Compile the C twins and the load generator against the libevent that the package runs on."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import libevent_py  # noqa: F401 - loads its libevent_core, for library() to find

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "benchmarks" / "c"
PROGRAMS = ROOT / "build" / "benchmarks"
HEADERS = ROOT / "vendor" / "include"
COMPILER = shlex.split(os.environ.get("CC", "cc"))


def library() -> Path:
    """Return the file of the libevent_core in this very process."""
    mapped = re.search(r"/\S*/libevent_core\S*", Path("/proc/self/maps").read_text())
    assert mapped, "libevent_py is loaded, but no libevent_core with it"
    return Path(mapped.group())


def build() -> None:
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.c")):
        compile_program(source, library())


def compile_program(source: Path, libevent: Path) -> None:
    # Under another name first: the program may be running in another run of the benchmarks.
    program = PROGRAMS / source.stem
    fresh = program.with_suffix(f".{os.getpid()}")
    flags = ["-O2", "-Wall", f"-I{HEADERS}", "-o", str(fresh), str(source)]
    subprocess.run([*COMPILER, *flags, str(libevent), f"-Wl,-rpath,{libevent.parent}"], check=True)
    fresh.replace(program)
