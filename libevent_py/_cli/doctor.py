"""``libevent-py doctor``: what is installed and where, what is missing, and what is broken."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from libevent_py import (
    EventBase,
    EventFeature,
    LibeventError,
    Vulnerability,
    known_vulnerabilities,
    libevent_version,
)
from libevent_py._cli.program import painted, program
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.tls import why_no_tls
from libevent_py.vulnerabilities import probe

PACKAGE = Path(__file__).parent.parent

#: What each extra is for, by its name.
EXTRAS = {
    "serve": "libevent_py.serve: its default engine, and WebSocket",
    "reload": "serve --reload without looking at files again and again",
    "testing": "pytest for the fixtures; trustme for those of TLS alone",
    "completion": "completion for shells",
}

#: The colours of what may be found.
COLOURS = {"vulnerable": "red", "fixed": "green", "unknown": "yellow"}


class Facts(NamedTuple):
    """What is installed, what is missing, and what is broken."""

    libevent_py: str
    cffi: str
    python: str
    libevent: str
    headers: str
    backends: list[str]
    backend: str | None
    features: list[str]
    tls: str | None
    #: Why there is no TLS.
    tls_missing: str | None
    tracing: bool
    #: The packages that are missing for each extra.
    extras: dict[str, list[str]]
    files: dict[str, str]
    vulnerabilities: list[Vulnerability]
    #: What should work and doesn't.
    broken: list[str]


def facts() -> Facts:
    """Find out what is to be reported."""
    broken: list[str] = []
    backend, features = None, []
    try:
        with EventBase() as base:
            backend = base.method
            features = [each.name or "" for each in EventFeature if each & base.features]
    except (LibeventError, OSError, MemoryError) as error:
        broken.append(f"no event base can be made: {error}")
    openssl, tls_missing = lib.evpy_openssl(), why_no_tls()
    if openssl and tls_missing is not None:
        broken.append(tls_missing)
    return Facts(
        importlib.metadata.version("libevent_py"),
        importlib.metadata.version("cffi"),
        platform.python_version(),
        libevent_version,
        ffi.string(lib.LIBEVENT_VERSION).decode(),
        list(EventBase.supported_methods()),
        backend,
        features,
        ffi.string(openssl).decode() if openssl else None,
        tls_missing,
        any(PACKAGE.glob("_trace/preload.*.so")),
        {extra: missing(extra) for extra in EXTRAS},
        {"python": sys.executable, **probe.files()},
        list(known_vulnerabilities()),
        broken,
    )


def missing(extra: str) -> list[str]:
    """Return the packages of *extra* that are not installed."""
    found = []
    for requirement in importlib.metadata.requires("libevent_py") or ():
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and re.search(rf"extra == ['\"]{extra}['\"]", requirement):
            try:
                importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                found.append(name[0])
    return found


def report(found: Facts) -> Iterator[str]:
    """Yield the report of what has been *found*, line by line."""
    yield f"libevent_py {found.libevent_py}, cffi {found.cffi}, Python {found.python}"
    yield f"libevent {found.libevent}, compiled against {found.headers}"
    yield f"backends: {', '.join(found.backends)}; in use: {found.backend or 'none'}"
    yield f"features of {found.backend}: {' '.join(found.features) or 'none'}"
    because = f" ({found.tls_missing})" if found.tls_missing else ""
    yield f"TLS: {found.tls or 'none'}{because}"
    yield ""
    yield from table(list(found.files.items()))
    yield ""
    yield from table([("tracing", "yes" if found.tracing else "no: built without its library")])
    yield from table(
        [
            (
                extra,
                EXTRAS[extra],
                f"missing: {' '.join(packages)}; pip install 'libevent_py[{extra}]'"
                if packages
                else "installed",
            )
            for extra, packages in found.extras.items()
        ]
    )
    yield ""
    yield "Published vulnerabilities, tried out on this library:"
    rows = table([(hole.id, hole.state, told(hole)) for hole in found.vulnerabilities])
    for hole, row in zip(found.vulnerabilities, rows, strict=True):
        yield row.replace(hole.state, painted(hole.state, COLOURS[hole.state]), 1)
    if found.broken:
        yield ""
        yield from (painted(f"Broken: {each}", "red") for each in found.broken)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("doctor"),
        description="Report what is installed and where, what is missing for what, and which "
        "published vulnerabilities the library has.",
        epilog="Exit status: 1 when something is broken that should work.",
    )
    made.add_argument("--json", action="store_true", help="the report as JSON")
    return made


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 1 if something is broken, else 0."""
    given = parser().parse_args(arguments)
    found = facts()
    if given.json:
        holes = [hole._asdict() for hole in found.vulnerabilities]
        print(json.dumps({**found._asdict(), "vulnerabilities": holes}, indent=2))
    else:
        for line in report(found):
            print(line)
    return 1 if found.broken else 0


def told(hole: Vulnerability) -> str:
    """Return the summary of a vulnerability and, if its state is unknown, why."""
    return f"{hole.summary} ({hole.detail})" if hole.state == "unknown" else hole.summary


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield *rows* with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
