"""The suites of other packages, which are run on `aio.EventLoop`.

A suite comes with its package's sdist, which is fetched from the registry once, and kept in the
user's cache: a version that is pinned, with a hash that is checked. The package itself is installed
beside it, for that suite alone, and so is what the suite needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.kit.support import PATIENCE, ROOT

#: How long a suite may take, in seconds.
LONG = 30 * PATIENCE


class Suite(NamedTuple):
    """A suite, where it is from, and what of it is run."""

    package: str
    version: str
    sha256: str
    #: What is installed for it.
    needs: tuple[str, ...]
    #: Which of its tests are run, as arguments of pytest's.
    tests: tuple[str, ...]


#: Left out: what runs on other loops than asyncio's.
ANYIO = Suite(
    "anyio",
    "4.16.0",
    "59bb03251907983d1603d27c3087ddb1e93299ea2163adcdba37899a4fb12ffb",
    ("idna", "psutil", "pytest-mock==3.17.0", "pytest-timeout==2.4.0", "typing_extensions"),
    ("-k", "not trio and not uvloop", "tests"),
)

#: Left out: what is about modes and markers of pytest's, not about loops, and takes minutes.
PYTEST_ASYNCIO = Suite(
    "pytest-asyncio",
    "1.5.0",
    "92c8fa83ca419fd0d4bd6a34df6520dae435841d3733c319343249492adf37f7",
    ("backports.asyncio.runner", "typing_extensions"),
    (
        *("-p", "no:anyio", "--ignore", "tests/markers", "--ignore", "tests/modes"),
        *("--ignore", "tests/hypothesis", "tests"),
    ),
)

SUITES = {suite.package: suite for suite in (ANYIO, PYTEST_ASYNCIO)}


def cache() -> Path:
    """Return the folder where suites are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(home) / "libevent_py" / "suites" / version


def fetched(suite: Suite) -> Path:
    """Return the folder of *suite*, with its tests, and in ``site`` what is installed for it."""
    place = cache() / f"{suite.package}-{suite.version}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
            made = Path(temporary) / "made"
            _fetch(suite, Path(temporary), made)
            made.rename(place)
    return place


def _fetch(suite: Suite, temporary: Path, made: Path) -> None:
    wanted = temporary / "wanted.txt"
    wanted.write_text(f"{suite.package}=={suite.version} --hash=sha256:{suite.sha256}\n")
    only_source = ("--no-binary", suite.package, "--no-deps")
    _pip("download", *only_source, "--require-hashes", "-r", str(wanted), "-d", str(temporary))
    (archive,) = temporary.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        if hasattr(tarfile, "data_filter"):
            opened.extractall(temporary / "unpacked", filter="data")
        else:
            opened.extractall(temporary / "unpacked")
    (folder,) = (temporary / "unpacked").iterdir()
    folder.rename(made)
    _pip("install", "--no-deps", "--target", str(made / "site"), str(archive), *suite.needs)
    shutil.copy(ROOT / "tests" / "kit" / "loop_in_place.py", made / "site")


def _pip(command: str, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", command, "--quiet"]
    done = subprocess.run(
        [*pip, *arguments], capture_output=True, text=True, timeout=10 * PATIENCE, check=False
    )
    assert done.returncode == 0, f"pip {command} {' '.join(arguments)}: {done.stderr}"


def _started(suite: Suite, place: str, *tests: str) -> subprocess.CompletedProcess[str]:
    folder = fetched(suite)
    shutil.copy(ROOT / "tests" / "kit" / "loop_in_place.py", folder / "site")
    command = [sys.executable, "-m", "pytest", "-rfE", "-p", "loop_in_place", "-p", "no:libevent"]
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(folder / "site"), "LIBEVENT_PY_PLACE": place}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


class Ran(NamedTuple):
    """What has come of a run of a suite."""

    passed: int
    failed: list[str]
    said: str


def run(suite: Suite) -> Ran:
    """Run *suite* on our loop."""
    done = _started(suite, "loop", *suite.tests)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1) and "loop: libevent_py.aio.loop" in said, said
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", said, re.MULTILINE)
    passed = re.search(r"(\d+) passed", said)
    assert passed and bool(failed) == bool(done.returncode), said
    return Ran(int(passed[1]), sorted({*failed}), said)


def passes(suite: Suite, test: str, place: str) -> bool:
    """Tell whether *test* of *suite*, alone, passes: on our loop, or for "none" on asyncio's."""
    return not _started(suite, place, test).returncode
