"""Debian's builds of libevent, for the same Python to use by LD_LIBRARY_PATH."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.support import PATIENCE

PACKAGES = [f"libevent-{part}-2.1-7" for part in ("core", "extra", "openssl", "pthreads")]

#: The version of 2020 as Debian has had it, and as mended in 2026.
UNPATCHED = "2.1.12-stable-8"
PATCHED = "2.1.12-stable-8+deb12u1"


def bring(version: str, place: Path) -> None:
    """Unpack the packages of a *version* below *place*."""
    for package in PACKAGES:
        _run(place, "apt-get", "download", f"{package}={version}")
    for file in place.glob("*.deb"):
        _run(place, "dpkg-deb", "-x", str(file), ".")


def libraries(place: Path) -> Path:
    """Return where the libraries are that have been unpacked below *place*."""
    (core,) = place.glob("usr/lib/*/libevent_core-2.1.so.7")
    return core.parent


def _run(place: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr}"
    return done.stdout
