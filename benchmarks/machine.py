"""What the figures were measured on."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import libevent_py
from benchmarks.build import COMPILER, PROGRAMS, library
from benchmarks.process import CONTENDER_CPU, CPUS, LOAD_CPU

PACKAGES = (
    "libevent_py",
    "cffi",
    "uvloop",
    "uvicorn",
    "httptools",
    "aiohttp",
    "granian",
    "waitress",
)


def facts() -> dict[str, object]:
    said = subprocess.run([PROGRAMS / "facts"], stdout=subprocess.PIPE, text=True, check=True)
    libevent, method = said.stdout.split()
    with libevent_py.EventBase() as base:
        package_method = base.method
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(CPUS),
        "cpu of the contenders": CONTENDER_CPU,
        "cpu of the load": LOAD_CPU,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": first_line([*COMPILER, "--version"]),
        "libevent": libevent,
        "libevent's file": library().name,
        "method": method,
        "libevent in the package": libevent_py.libevent_version,
        "method in the package": package_method,
        "packages": {name: installed(name) for name in PACKAGES},
    }


def processor() -> str:
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return names[0] if names else platform.machine()


def first_line(command: list[str]) -> str:
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return said.splitlines()[0]


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
