"""The source distribution builds by each of the usual tools, with a network and without one.

Without a network nothing is fetched: neither what builds, which is there, nor libevent's headers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import libevent_py
from tests.kit.once import once
from tests.kit.support import ROOT

pytestmark = pytest.mark.more

VERSION = libevent_py.__version__
PYTHON = sys.executable
#: Another network for what follows, with nothing in it, and another view of the files.
ALONE = ["unshare", "--net", "--mount"]

needs_root = pytest.mark.skipif(
    os.getuid() != 0 or sys.platform != "linux", reason="only root can take the network away"
)

#: How each tool makes a wheel of {sdist}, or of {source}, to which it is unpacked, in {out}.
TOOLS = {
    "pip": [PYTHON, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "{out}", "{sdist}"],
    "uv": [PYTHON, "-m", "uv", "build", "--wheel", "--python", PYTHON, "-o", "{out}", "{sdist}"],
    "build": [PYTHON, "-m", "build", "--wheel", "--outdir", "{out}", "{source}"],
}
#: What each is told for building with what is there.
OFFLINE = {
    "pip": ["--no-index", "--no-build-isolation"],
    "uv": ["--offline", "--no-build-isolation"],
    "build": ["--no-isolation"],
}
#: Works only if the wheel in its argument does.
TRY = """
import sys
sys.path.insert(0, sys.argv[1])
import libevent_py
from libevent_py import Event, EventBase, TlsContext
assert libevent_py.__file__.startswith(sys.argv[1]), libevent_py.__file__
fired = []
with EventBase() as base:
    Event.timer(base, lambda event, fd, what: fired.append(what)).add(0.001)
    base.dispatch()
assert len(fired) == 1
"""


def run(*command: str | Path, cwd: Path) -> str:
    # Not optimized: that takes half of the time, and nothing here is about speed.
    env = {**os.environ, "CFLAGS": "-O0", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this tree."""

    def make(out: Path) -> None:
        run(PYTHON, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT, cwd=out)

    return once(tmp_path_factory, "sdist", make) / f"libevent_py-{VERSION}.tar.gz"


def works(out: Path, place: Path) -> None:
    """Fail unless the one wheel in *out* is as it should be."""
    (wheel,) = out.glob("*.whl")
    assert wheel.name.startswith(f"libevent_py-{VERSION}-cp310-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "installed")
    run(PYTHON, "-W", "error", "-c", TRY, place / "installed", cwd=place)


def made_by(tool: str, sdist: Path, place: Path) -> list[str]:
    """Return the command of *tool*, with the source distribution unpacked in *place*."""
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    source = place / sdist.name.removesuffix(".tar.gz")
    assert not [*source.glob("vendor/include/event2/event-config*")]
    told = {"sdist": sdist, "source": source, "out": place / "out"}
    return [part.format(**told) for part in TOOLS[tool]]


@pytest.mark.parametrize("tool", TOOLS)
def test_it_builds_with_what_the_tool_fetches(tool: str, sdist: Path, tmp_path: Path) -> None:
    run(*made_by(tool, sdist, tmp_path), cwd=tmp_path)
    works(tmp_path / "out", tmp_path)


@needs_root
@pytest.mark.parametrize("tool", TOOLS)
def test_it_builds_without_a_network(tool: str, sdist: Path, tmp_path: Path) -> None:
    command = made_by(tool, sdist, tmp_path) + OFFLINE[tool]
    run(*ALONE, *command, cwd=tmp_path)
    works(tmp_path / "out", tmp_path)


@needs_root
@pytest.mark.skipif(not Path("/usr/include/event2").is_dir(), reason="there is nothing to hide")
def test_it_builds_without_a_network_and_without_libevents_headers(
    sdist: Path, tmp_path: Path
) -> None:
    """With no more than libevent's runtime libraries."""
    command = made_by("build", sdist, tmp_path) + OFFLINE["build"]
    hide = "mount -t tmpfs none /usr/include/event2 && ! ls /usr/include/event2/* && exec "
    run(*ALONE, "sh", "-c", f'{hide} "$@"', "sh", *command, cwd=tmp_path)
    works(tmp_path / "out", tmp_path)
    (config,) = tmp_path.glob("libevent_py-*/vendor/include/event2/event-config.h")
    assert config.read_text().startswith("/* What libevent's public headers ask of")


@needs_root
def test_without_a_network_nothing_can_be_reached(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        reach = f"import socket; socket.create_connection({here.getsockname()})"
        run(PYTHON, "-c", reach, cwd=tmp_path)
        with pytest.raises(AssertionError, match="unreachable"):
            run(*ALONE, PYTHON, "-c", reach, cwd=tmp_path)
