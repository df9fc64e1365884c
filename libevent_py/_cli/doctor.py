"""The report of ``python -m libevent_py doctor``: libraries, files and vulnerabilities."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from libevent_py import (
    EventBase,
    EventFeature,
    Vulnerability,
    known_vulnerabilities,
    libevent_version,
)
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.tls import why_no_tls
from libevent_py.vulnerabilities import probe


def report() -> Iterator[str]:
    """Yield the report, line by line."""
    package, cffi = (importlib.metadata.version(name) for name in ("libevent_py", "cffi"))
    yield f"libevent_py {package}, cffi {cffi}, Python {platform.python_version()}"
    headers = ffi.string(lib.LIBEVENT_VERSION).decode()
    yield f"libevent {libevent_version}, compiled against {headers}"
    with EventBase() as base:
        methods = ", ".join(base.supported_methods())
        yield f"backends: {methods}; in use: {base.method}"
        features = " ".join(
            feature.name or "" for feature in EventFeature if feature & base.features
        )
        yield f"features of {base.method}: {features or 'none'}"
    yield f"TLS: {tls()}"
    yield ""
    yield from table([("python", sys.executable), *probe.files().items()])
    yield ""
    yield "Published vulnerabilities, tried out on this library:"
    yield from table([(hole.id, hole.state, told(hole)) for hole in known_vulnerabilities()])


def tls() -> str:
    """Return the name of the TLS library, and why it can't be used, if it can't."""
    openssl, reason = lib.evpy_openssl(), why_no_tls()
    name = ffi.string(openssl).decode() if openssl else "none"
    return name if reason is None else f"{name} ({reason})"


def told(hole: Vulnerability) -> str:
    """Return the summary of a vulnerability and, if its state is unknown, why."""
    return f"{hole.summary} ({hole.detail})" if hole.state == "unknown" else hole.summary


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield *rows* with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
