"""Compile the C twins and the load generator against the libevent that the package runs on."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import libevent_py  # noqa: F401 - loads its libevent, for library() to find

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "benchmarks" / "c"
PROGRAMS = ROOT / "build" / "benchmarks"
FILES = PROGRAMS / "served"
SERVED = (1 << 30, 4 << 20)  # the bytes of the files there: each is called by its size
PEM = PROGRAMS / "server.pem"  # a certificate and its key
SECURED = ("https_hello",)  # the programs that speak TLS
OPENSSL = ("-lssl", "-lcrypto")
HEADERS = ROOT / "vendor" / "include"
COMPILER = shlex.split(os.environ.get("CC", "cc"))


def library(part: str = "core") -> Path:
    """Return the file of the libevent_core, or another part of it, in this very process."""
    mapped = re.search(rf"/\S*/libevent_{part}\S*", Path("/proc/self/maps").read_text())
    assert mapped, f"libevent_py is loaded, but no libevent_{part} with it"
    return Path(mapped.group())


def build() -> None:
    FILES.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.c")):
        if source.stem in SECURED:
            compile_program(source, [library(), library("extra"), library("openssl")], OPENSSL)
        else:
            compile_program(source, [library(), library("extra")])
    make_certificate()
    for size in SERVED:
        make_file(FILES / str(size), size)


def make_file(path: Path, size: int) -> None:
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(size)
    with path.open("rb") as file:  # nobody is to wait for the disk, or for the memory of the cache
        while file.read(1 << 20):
            pass


def make_certificate() -> None:
    key = PEM.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-days", "3650"]
    if not PEM.exists():
        made = subprocess.run(
            [*command, "-keyout", key], check=True, capture_output=True, text=True
        ).stdout
        fresh = PEM.with_suffix(f".{os.getpid()}")
        fresh.write_text(made + key.read_text())
        fresh.replace(PEM)
        key.unlink()


def compile_program(source: Path, libevent: list[Path], others: Sequence[str] = ()) -> None:
    # Under another name first: the program may be running in another run of the benchmarks.
    program = PROGRAMS / source.stem
    fresh = program.with_suffix(f".{os.getpid()}")
    flags = ["-O2", "-Wall", f"-I{HEADERS}", "-o", str(fresh), str(source)]
    flags += [*map(str, libevent), f"-Wl,-rpath,{libevent[0].parent}", *others]
    subprocess.run([*COMPILER, *flags], check=True)
    fresh.replace(program)
