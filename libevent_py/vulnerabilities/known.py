"""Which published vulnerabilities the libevent in use has."""

from __future__ import annotations

import functools
import json
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
    id="Its CVE number, such as CVE-2026-63379; without one, GitHub's id or that of the issue.",
    summary="What it is, in a few words.",
    state='"vulnerable", "fixed", or "unknown" if it can\'t be tried without harm.',
    detail="What the probe has seen.",
)
class Vulnerability(NamedTuple):
    """A published vulnerability of libevent, and whether the library in use has it."""

    id: str
    summary: str
    state: State
    detail: str


def known_vulnerabilities() -> list[Vulnerability]:
    """Find out which vulnerabilities published for libevent 2.1.12 the library in use has.

    What the library does counts, not its version, because distributions fix the library without
    changing the version. Harmless probes run in another Python process on the same library. That
    takes up to a second, at most a minute, and is done once in each process. If the probes can't be
    run, every state is "unknown" and ``detail`` says why.

    A library without these vulnerabilities may have others.
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
    """Return the probes' results by id, and why those that are missing found nothing."""
    import subprocess  # not whenever the package is imported

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
