"""Which published holes the libevent in use has."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import NamedTuple

from libevent_py._core.described import described
from libevent_py.vulnerabilities import probe
from libevent_py.vulnerabilities.probe import State

#: How long the other Python may take, in seconds.
PATIENCE = 60

CODE = """
import sys
sys.path[:] = sys.argv[1:]
from libevent_py.vulnerabilities import probe
probe.main()
"""


@described(
    id="Its name, such as CVE-2026-63379, or where it has none GitHub's, or its issue's.",
    summary="What it is, in a few words.",
    state='Either "vulnerable", "fixed", or where that can\'t be told without harm "unknown".',
    detail="What was seen.",
)
class Vulnerability(NamedTuple):
    """A published hole in libevent, and whether it is in the library in use."""

    id: str
    summary: str
    state: State
    detail: str


def known_vulnerabilities() -> list[Vulnerability]:
    """Try which of the holes published for libevent 2.1.12 the library in use has.

    It tells by what the library does, not by its version, which distributions leave as it is when
    they mend the library. It is tried in a Python of its own on the same library, by probes that do
    no harm there either; that takes up to a second, at most a minute, and is done once in each
    process. Where it can't be, every state is "unknown" and ``detail`` says why.

    A library without these holes may have others.
    """
    return list(_tried())


@functools.cache
def _tried() -> tuple[Vulnerability, ...]:
    results, reason = _results()
    return tuple(
        Vulnerability(hole.id, hole.summary, *results.get(hole.id, ("unknown", reason)))
        for hole in probe.PROBES
    )


def _results() -> tuple[dict[str, tuple[State, str]], str]:
    """Return what the probes found by their names, and for those that found nothing why."""
    try:
        done = subprocess.run(
            [sys.executable or "", "-c", CODE, *sys.path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        return {}, f"the probes could not be run: {said.splitlines()[-1] if said else error}"
    if found["files"] != probe.files():
        return {}, f"another Python finds another libevent: {found['files']}"
    return {id: (state, detail) for id, (state, detail) in found["results"].items()}, ""
