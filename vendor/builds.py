"""Builds libevent from Debian's source in other ways than its packages are built.

``python vendor/builds.py NAME`` prints the directory with the libraries, for LD_LIBRARY_PATH; the
tests are run once more with each. The source is that of `vendor/libevent.toml`, fetched by apt and
verified. It is unpacked and built in a directory of the user's cache, once.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vendor.fetch import PINNED, digest

SOURCES: dict[str, dict[str, str]] = PINNED["source"]


class SourceError(Exception):
    """libevent's source can't be had or built, or is not the one that is pinned."""


class Build(NamedTuple):
    """A way to build libevent."""

    source: str
    flags: str
    compiler: str = "gcc"


#: The directory that a source is unpacked to, below the one that is named.
UNPACKED = "source"
#: How long one command may take, in seconds.
PATIENCE = 900.0
DEBIAN = "2.1.12-stable-8+deb12u1"
SANITIZED = "-fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize"

BUILDS = {
    # With its assertions, as Debian's own. It copies 0 bytes from NULL here and there, which no C
    # library minds.
    "asan": Build(DEBIAN, f"-O1 -g {SANITIZED}=address,undefined -fno-sanitize=nonnull-attribute"),
    "tsan": Build(DEBIAN, f"-O1 -g {SANITIZED}=thread"),
    # Without them: what they would have stopped goes on.
    "ndebug": Build(DEBIAN, "-O2 -g -DNDEBUG"),
    "2.1.13": Build("2.1.13-stable", "-O2 -g"),
    "gcov": Build(DEBIAN, "-O0 -g --coverage"),
    # By clang, which tells libFuzzer what has been reached in C.
    "fuzz": Build(
        DEBIAN,
        f"-O1 -g {SANITIZED}=fuzzer-no-link,address,undefined"
        " -fno-sanitize=nonnull-attribute,pointer-overflow,function",
        "clang",
    ),
}


def libraries(name: str) -> Path:
    """Return where the libraries of the build *name* are; build them if they aren't there yet."""
    build = BUILDS[name]
    recipe = repr((build, SOURCES[build.source], Path(__file__).read_text()))
    place = cache() / f"libevent-{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_name(f"{place.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "built").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            compile_in(unpack(build.source, place), build, place)
            (place / "built").touch()
    return place / "lib"


def cache() -> Path:
    """Return the directory in the user's cache in which libevent is unpacked and built."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "libevent_py")


def compile_in(source: Path, build: Build, place: Path) -> None:
    """Build the *source* as *build* says, and install it in *place*."""
    unneeded = ("static", "samples", "libevent-regress", "dependency-tracking")
    options = [f"--prefix={place}", *(f"--disable-{part}" for part in unneeded)]
    told = f"CC={build.compiler}", f"CFLAGS={build.flags}", f"LDFLAGS={build.flags}"
    run(source, "./configure", "--quiet", *options, *told)
    # What Debian changes for its own way to build asks for tools that we do without.
    still = [f"{tool}=true" for tool in ("ACLOCAL", "AUTOCONF", "AUTOHEADER", "AUTOMAKE")]
    run(source, "make", f"-j{os.cpu_count()}", *still, "install")


def unpack(version: str, place: Path) -> Path:
    """Unpack the source of *version* below *place*, with the patches if it is Debian's.

    Return where it is. Raise `SourceError` where apt can't fetch it, or where the files are not
    those that are pinned.
    """
    with tempfile.TemporaryDirectory(dir=place) as directory:
        fetched = Path(directory)
        download(version, fetched)
        for name, sha256 in SOURCES[version].items():
            found = digest((fetched / name).read_bytes())
            if found != sha256:
                raise SourceError(f"{name} is not the pinned one: its sha256 is {found}")
        release, *changes = (str(fetched / name) for name in SOURCES[version])
        source = place / UNPACKED
        source.mkdir()
        run(source, "tar", "-xf", release, "--strip-components=1")
        for change in changes:
            run(source, "tar", "-xf", change)
    patches = source / "debian" / "patches"
    for line in (patches / "series").read_text().splitlines() if changes else ():
        if line.strip() and not line.startswith("#"):
            run(source, "patch", "--quiet", "-p1", "-i", str(patches / line.split()[0]))
    return source


def download(version: str, place: Path) -> None:
    """Have apt download the source of *version* to *place*, from where its packages come.

    Neither root nor a line for sources in apt's own list is needed.
    """
    told = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    targets = run(place, "apt-get", "indextargets", "--format", told, "Identifier: Packages")
    lines = {line.rsplit(" ", 1)[0] for line in targets.splitlines() if line.endswith(" Debian")}
    if not lines:
        raise SourceError("apt knows no archive of Debian's: libevent's source is not to be had")
    # Newer versions are in the archive of what isn't released.
    lines |= {f"{line.split()[0]} sid main" for line in lines if "-" not in line.split()[1]}
    sources = place / "sources.list"
    sources.write_text("".join(f"deb-src {line}\n" for line in sorted(lines)))
    (place / "lists" / "partial").mkdir(parents=True)
    directories = f"SourceList={sources}", "SourceParts=/dev/null"
    options = [f"-oDir::Etc::{directory}" for directory in directories]
    options += [f"-oDir::State::Lists={place}/lists", f"-oDir::Cache={place}"]
    run(place, "apt-get", *options, "update")
    # Of what isn't released yet, only the newest version is kept; libevent's part stays the same.
    wanted = [f"libevent={version}"] if len(SOURCES[version]) > 1 else ["--tar-only", "libevent"]
    run(place, "apt-get", *options, "source", "--download-only", *wanted)


def run(place: Path, *command: str) -> str:
    """Run *command* in *place* and return what it prints."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=place, env=env, capture_output=True, text=True, timeout=PATIENCE
        )
    except FileNotFoundError:
        raise SourceError(f"{command[0]} is missing, which builds libevent's source") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"`{' '.join(command)}` did not end in {PATIENCE:.0f} s") from None
    if done.returncode != 0:
        raise SourceError(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Build libevent, and print where it is.")
    parser.add_argument("name", choices=BUILDS)
    try:
        print(libraries(parser.parse_args().name))
    except SourceError as error:
        sys.exit(f"vendor/builds.py: {error}")


if __name__ == "__main__":
    main()
