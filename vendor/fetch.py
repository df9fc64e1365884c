"""Brings libevent's headers into vendor/include, if they are those vendor/libevent.toml lists.

A tree whose vendor/include is complete is verified and used as it is. Otherwise the headers come
from the installed development files. Where only the runtime libraries are, an sdist has all headers
but event-config.h, which libevent's build makes for one machine: that is then made of
vendor/event-config.h.in, without the network. Elsewhere they come from Debian's package
libevent-dev, which is unpacked without installing it.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VENDOR = Path(__file__).resolve().parent
VENDORED = VENDOR / "include"
#: The header that each build of libevent makes for itself, and what it is made of here.
CONFIG, MODEL = "event-config.h", VENDOR / "event-config.h.in"
PINNED: dict[str, Any] = tomllib.loads((VENDOR / "libevent.toml").read_text())
RELEASES: dict[str, dict[str, str]] = PINNED["release"]
PLACES = [Path("/usr/include"), Path("/usr/local/include"), Path("/opt/homebrew/include")]
#: How long one command may take, in seconds.
PATIENCE = 300.0
INSTALL = (
    "Install libevent's development files: `apt-get install libevent-dev` on Debian and Ubuntu, "
    "`dnf install libevent-devel` on Fedora, `apk add libevent-dev` on Alpine, "
    "`brew install libevent` on macOS."
)


class HeadersError(Exception):
    """There are no headers to build with, or not the ones that are pinned."""


def headers(anew: bool = False) -> Path:
    """Return vendor/include with verified headers; fetch them *anew*, or if there are none."""
    there = VENDORED.exists() and not anew
    try:
        if there and (VENDORED / "event2" / CONFIG).is_file():
            verify(VENDORED)
        elif (place := installed()) is not None and (not there or verifies(place)):
            take(place)
        elif there:
            complete()
        else:
            with debian_package() as place:
                take(place)
    except HeadersError as error:
        also = f" Or delete {VENDORED}: then they are fetched." if there else ""
        raise HeadersError(f"{error}{also}") from None
    return VENDORED


def verifies(include: Path) -> bool:
    """Tell whether the headers in ``include`` are those of a release; print why not."""
    try:
        verify(include)
    except HeadersError as error:
        print(f"libevent_py: built with its own copy of the headers, as {error}", file=sys.stderr)
        return False
    return True


def complete() -> None:
    """Verify the headers in vendor/include, which have no event-config.h, and make that."""
    event2 = VENDORED / "event2"
    release = alike(event2)
    numbers = [int(number) for number in release.partition("-")[0].split(".")]
    number = "0x" + "".join(f"{number:02x}" for number in (*numbers, 0))
    text = MODEL.read_text().replace("@VERSION@", release).replace("@NUMBER@", number)
    with tempfile.TemporaryDirectory(dir=VENDOR) as directory:  # nobody sees half of it
        Path(directory, CONFIG).write_text(text)
        Path(directory, CONFIG).rename(event2 / CONFIG)


def alike(event2: Path) -> str:
    """Return which release the headers in ``event2`` are of, by what they are alone."""
    refused = None
    for release in RELEASES:
        try:
            check(event2, release)
        except HeadersError as error:
            refused = refused or error
        else:
            return release
    assert refused is not None
    raise refused


def take(include: Path) -> None:
    """Verify the headers in ``include`` and put a copy of them in the place of vendor/include."""
    release = verify(include)
    configs = [path.name for path in (include / "event2").glob("event-config*.h")]
    with tempfile.TemporaryDirectory(dir=VENDOR) as directory:
        fresh = Path(directory, "include")
        (fresh / "event2").mkdir(parents=True)
        for name in [*RELEASES[release], *configs]:
            shutil.copyfile(include / "event2" / name, fresh / "event2" / name)
        if VENDORED.exists():
            shutil.rmtree(VENDORED)
        fresh.rename(VENDORED)


def verify(include: Path) -> str:
    """Return which release the headers in ``include`` are of; raise HeadersError for any other."""
    event2 = include / "event2"
    release = release_of(event2)
    check(event2, release)
    return release


def check(event2: Path, release: str) -> None:
    """Raise HeadersError unless the headers in ``event2`` are those of *release*."""
    for name, sha256 in RELEASES[release].items():
        header = event2 / name
        if not header.is_file():
            raise HeadersError(f"{header} is missing. {INSTALL}")
        content = header.read_bytes()
        if sha256 not in possible_hashes(content, release, name):
            raise HeadersError(
                f"{header} is not libevent {release}'s: its sha256 is {digest(content)}, the "
                f"release's is {sha256}, and no difference listed in vendor/libevent.toml "
                f"explains that. {INSTALL}"
            )


def release_of(event2: Path) -> str:
    # Where 32 and 64 bits share a directory, event-config.h only includes the right one of two.
    configs = sorted(event2.glob("event-config*.h"))
    if not (event2 / "event-config.h").is_file():
        raise HeadersError(f"{event2}/event-config.h is missing. {INSTALL}")
    defined = (re.search(r'#define EVENT__VERSION "(.+)"', path.read_text()) for path in configs)
    release = next((match[1] for match in defined if match), "an unknown release")
    if release not in RELEASES:
        raise HeadersError(
            f"{event2}/event-config.h is of libevent {release}; this package is built against "
            f"{' or '.join(RELEASES)}. {INSTALL}"
        )
    return release


def possible_hashes(content: bytes, release: str, name: str) -> Iterator[str]:
    """The sha256 of a header, and of what it was before a distribution's patch."""
    yield digest(content)
    for patch in PINNED["patch"]:
        if (patch["release"], patch["header"]) != (release, name):
            continue
        if "as_in" in patch and digest(content) == RELEASES[patch["as_in"]][name]:
            yield RELEASES[release][name]
        lines = content.splitlines(keepends=True)
        for number, line in patch.get("left_out", {}).items():
            lines.insert(int(number) - 1, line.encode() + b"\n")
        yield digest(b"".join(lines))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def installed() -> Path | None:
    """The include directory of libevent's installed development files."""
    if shutil.which("pkg-config"):
        asked = ["pkg-config", "--variable=includedir", "libevent_core"]
        answer = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        if answer and (Path(answer) / "event2" / "event.h").exists():
            return Path(answer)
    return next((place for place in PLACES if (place / "event2" / "event.h").exists()), None)


@contextmanager
def debian_package() -> Iterator[Path]:
    """The include directory of Debian's libevent-dev, downloaded and unpacked, not installed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise HeadersError(f"libevent's headers are not installed. {INSTALL}")
    with tempfile.TemporaryDirectory() as directory:
        run(["apt-get", "download", "libevent-dev"], directory)
        (package,) = Path(directory).glob("*.deb")
        run(["dpkg-deb", "-x", package.name, "."], directory)
        yield Path(directory, "usr", "include")


def run(command: list[str], directory: str) -> None:
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=directory, env=env, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise HeadersError(
            f"libevent's headers are not installed, and `{' '.join(command)}` did not end in "
            f"{PATIENCE:.0f} s. {INSTALL}"
        ) from None
    if done.returncode != 0:
        said = " ".join(line for line in done.stderr.splitlines() if not line.startswith("W:"))
        raise HeadersError(
            f"libevent's headers are not installed, and `{' '.join(command)}` failed ({said}). "
            f"{INSTALL}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and verify libevent's headers.")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="where event2/ is")
    source = parser.parse_args().source
    try:
        take(source) if source else headers()
        print(f"{VENDORED}: libevent {verify(VENDORED)}")
    except HeadersError as error:
        sys.exit(f"vendor/fetch.py: {error}")


if __name__ == "__main__":
    main()
