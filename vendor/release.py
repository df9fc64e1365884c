"""Makes what is to be released, and checks it: ``python -m vendor.release [FOLDER]``.

All is made twice of what is committed: in another folder, with another umask and other times of the
files. What differs, what the packages lack or have too much, and what the tools of Python's
packages complain of, is told, and the exit status is 1. ``docs/releasing.md`` says what is left to
a person. It needs the extra "test", and the registry that pip installs cffi from.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

from vendor.fetch import RELEASES
from vendor.wheels import EPOCH, ROOT, WheelError, binary

#: What is committed, but of no use in a source distribution.
LEFT_OUT = {".gitignore"}
#: What the build adds to the source distribution, beside libevent's headers.
ADDED = {"PKG-INFO", "setup.cfg"}
#: The least part of all exported symbols whose types pyright must know.
KNOWN_TYPES = 0.99
#: What is in the stub of the compiled module for annotations only.
ANNOTATIONS = ("Arguments", "CData", "Given", "Memory", "Result")
#: How long one command may take, in seconds.
PATIENCE = 1200.0


class Wrong(Exception):
    """Something that must not be released as it is."""


class Made(NamedTuple):
    """What is released: the source distribution, and the wheels."""

    sdist: Path
    wheels: list[Path]


def run(*command: str | Path, cwd: Path = ROOT, umask: int = 0o022) -> str:
    """Return what a command says; raise `Wrong` with all of it if it fails."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=cwd, env=env, umask=umask, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        told = " ".join(map(str, command))
        raise Wrong(f"{told}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def python(module: str, *arguments: str | Path, cwd: Path = ROOT, umask: int = 0o022) -> str:
    """Return what a module says that is run as a program; raise `Wrong` if it fails."""
    return run(sys.executable, "-m", module, *arguments, cwd=cwd, umask=umask)


# Before anything is made.


def version(text: str) -> str:
    """Return the version in the package's source *text*."""
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if not found:
        raise Wrong("libevent_py/__init__.py has no __version__")
    return found[1]


def check_tree(root: Path = ROOT) -> None:
    """Raise `Wrong` if the working copy has what isn't committed: that would not be released."""
    changed = run("git", "status", "--porcelain", cwd=root)
    if changed:
        raise Wrong(f"not committed:\n{changed}")


def check_version(root: Path = ROOT, final: bool = False) -> None:
    """Raise `Wrong` unless the changelog has the version, or something unreleased.

    If it is the *final* check, it must have the version with a date, and git no tag of it.
    """
    told = version((root / "libevent_py" / "__init__.py").read_text())
    changes = (root / "CHANGELOG.md").read_text()
    heading = re.search(rf"^## {re.escape(told)} - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
    if final and not heading:
        raise Wrong(f'CHANGELOG.md has no heading "## {told} - YYYY-MM-DD"')
    if final and run("git", "tag", "--list", f"v{told}", cwd=root):
        raise Wrong(f"there is a tag v{told} already: __version__ is that of the last release")
    if not heading and not re.search(r"^## Unreleased\n+### ", changes, re.MULTILINE):
        raise Wrong(f'CHANGELOG.md has neither a heading for {told} nor anything "Unreleased"')


# Making it.


def make(place: Path, umask: int, when: float | None = None) -> Made:
    """Make all of what is committed below *place*, whose files have changed *when*."""
    source, out = place / "source", place / "out"
    source.mkdir(parents=True)
    out.mkdir()
    archive = place / "head.tar"
    run("git", "archive", f"--output={archive}", "HEAD")
    run("tar", "-xf", archive, cwd=source, umask=umask)
    for path in source.rglob("*"):
        kind = 0o777 if path.is_dir() or path.stat().st_mode & 0o100 else 0o666
        path.chmod(kind & ~umask)
        if when is not None:
            os.utime(path, (when, when))
    python("build", "--no-isolation", "--outdir", out, source, cwd=source, umask=umask)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Made(sdist, [wheel])


def make_binary(made: Made, umask: int) -> Made:
    """Make the wheel with the libraries, too."""
    before = os.umask(umask)
    try:
        return Made(made.sdist, [*made.wheels, binary(made.wheels[0], made.sdist.parent)])
    except WheelError as error:
        raise Wrong(str(error)) from None
    finally:
        os.umask(before)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_twins(one: Made, other: Made) -> None:
    """Raise `Wrong` if what was made twice isn't the same, and name the files in it that differ."""
    for left, right in zip((one.sdist, *one.wheels), (other.sdist, *other.wheels), strict=True):
        if left.name != right.name:
            raise Wrong(f"made twice, it has two names: {left.name} and {right.name}")
        if digest(left) != digest(right):
            was, now = members(left), members(right)
            names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
            differing = ", ".join(sorted(names)) or "the archives themselves"
            raise Wrong(f"made twice, {left.name} is not the same. What differs: {differing}")


def members(path: Path) -> dict[str, tuple[object, ...]]:
    """Return what an archive tells of each file in it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {
                each.filename: (each.CRC, each.date_time, each.external_attr)
                for each in wheel.infolist()
            }
    told: dict[str, tuple[object, ...]] = {}
    with tarfile.open(path) as sdist:
        for each in sdist:
            read = sdist.extractfile(each)
            content = hashlib.sha256(read.read()).hexdigest() if read else ""
            told[each.name] = (content, each.mtime, each.mode, each.uname, each.gname)
    return told


# What was made.


def check_sdist(made: Made, root: Path = ROOT) -> None:
    """Raise `Wrong` unless the source distribution is what is committed, and libevent's headers."""
    tracked = set(run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=root).splitlines())
    headers = {f"vendor/include/event2/{name}" for name in next(iter(RELEASES.values()))}
    with tarfile.open(made.sdist) as archive:
        names = {each.name.partition("/")[2] for each in archive if each.isfile()}
    names = {name for name in names if not name.startswith("libevent_py.egg-info/")}
    wanted = (tracked - LEFT_OUT) | headers | ADDED
    if lacking := sorted(wanted - names):
        raise Wrong(f"{made.sdist.name} lacks {', '.join(lacking)}")
    if strange := sorted(names - wanted):
        raise Wrong(f"{made.sdist.name} has what is not committed: {', '.join(strange)}")


def check_metadata(made: Made) -> None:
    """Raise `Wrong` for what the index would refuse, and for classifiers that there aren't."""
    python("twine", "--no-color", "check", "--strict", made.sdist, *made.wheels)
    from trove_classifiers import classifiers

    for wheel in made.wheels:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            told = Parser().parsestr(archive.read(name).decode())
        if unknown := set(told.get_all("Classifier", [])) - set(classifiers):
            raise Wrong(f"{wheel.name} has classifiers that there aren't: {', '.join(unknown)}")


def check_wheels(made: Made) -> None:
    """Raise `Wrong` for a wheel with what doesn't belong there, or that isn't for all its Pythons.

    Its modules may only use what the limited API has had since the Python of its tag.
    """
    for wheel in made.wheels:
        python("check_wheel_contents", wheel)
        report = python("abi3audit", "--strict", "--report", wheel)
        (told,) = json.loads(report)["specs"].values()
        audited = {each["name"] for each in told["wheel"]}
        with zipfile.ZipFile(wheel) as archive:
            modules = {name for name in archive.namelist() if name.endswith(".abi3.so")}
        if not modules or audited != {Path(name).name for name in modules}:
            raise Wrong(f"abi3audit has looked at {audited} of {modules}")


def check_types() -> None:
    """Raise `Wrong` if the types are not known, or not those of the compiled module.

    Elsewhere types stand in the code itself, which can't differ from it: only that module has a
    stub.
    """
    command = [sys.executable, "-m", "pyright", "--verifytypes", "libevent_py"]
    done = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    score = json.loads(done.stdout)["typeCompleteness"]["completenessScore"]
    if score < KNOWN_TYPES:
        raise Wrong(f"of {1 - score:.1%} of the symbols the type is not known: {' '.join(command)}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as allowed:
        allowed.write("".join(f"libevent_py._ffi.{name}\n" for name in ANNOTATIONS))
        allowed.flush()
        options = ["--mypy-config-file", "pyproject.toml", "--allowlist", allowed.name]
        python("mypy.stubtest", "libevent_py._ffi", *options)
    check_stub(Path("libevent_py", "_ffi.pyi").read_text())


def check_stub(stub: str) -> None:
    """Raise `Wrong` unless the *stub* has what ``lib`` and ``ffi`` have; stubtest can't tell."""
    from libevent_py._ffi import ffi, lib

    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}
    told = {
        name: {
            node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node.target)
            for node in classes[name].body
            if isinstance(node, (ast.FunctionDef, ast.AnnAssign))
        }
        for name in ("_Lib", "_FFI")
    }
    lacking, strange = set(dir(lib)) - told["_Lib"], told["_FFI"] - set(dir(ffi))
    if lib.LIBEVENT_PY_HAVE_TLS:
        strange |= told["_Lib"] - set(dir(lib))
    if lacking or strange:
        raise Wrong(f"_ffi.pyi lacks {sorted(lacking)}, and has too much: {sorted(strange)}")


def check_fresh(made: Made) -> None:
    """Raise `Wrong` unless the wheels work in an empty environment, with what pip brings."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        python("venv", place / "venv", cwd=place)
        fresh = place / "venv" / "bin"
        pip: list[str | Path] = [fresh / "python", "-m", "pip", "--disable-pip-version-check"]
        run(*pip, "install", "--quiet", *made.wheels, cwd=place)
        run(*pip, "check", cwd=place)
        run(fresh / "libevent-py", "doctor", cwd=place)
        run(fresh / "libevent-py", "samples", "run", "methods", cwd=place)


def release(out: Path, final: bool, plain: bool, say: Callable[[str], None] = print) -> int:
    """Make and check all, and put what is made into *out*; return how many checks failed.

    With *plain*, there is no wheel with libraries, which only Debian can make.
    """
    failed = 0

    def tried(what: str, check: Callable[[], object]) -> bool:
        nonlocal failed
        began = time.monotonic()
        try:
            check()
        except (Wrong, subprocess.TimeoutExpired) as error:
            failed += 1
            say(f"FAILED  {what}: {error}")
            return False
        say(f"ok      {what} ({time.monotonic() - began:.0f} s)")
        return True

    tried("all is committed", check_tree)
    tried("the version and the changelog", lambda: check_version(final=final))
    with tempfile.TemporaryDirectory() as directory:
        places = Path(directory, "one"), Path(directory, "another", "deeper")
        made: list[Made] = []

        def build() -> None:
            for place, umask, when in zip(places, (0o022, 0o077), (None, 1e9), strict=True):
                one = make(place, umask, when)
                made.append(one if plain else make_binary(one, umask))

        if not tried("it can be built", build):
            return failed
        tried("the same bytes twice", lambda: check_twins(*made))
        tried("what is in the source distribution", lambda: check_sdist(made[0]))
        tried("metadata", lambda: check_metadata(made[0]))
        tried("what is in the wheels, and their ABI", lambda: check_wheels(made[0]))
        tried("types", check_types)
        tried("an empty environment", lambda: check_fresh(made[0]))
        out.mkdir(parents=True, exist_ok=True)
        sums = ""
        for path in (made[0].sdist, *made[0].wheels):
            shutil.copy2(path, out / path.name)
            sums += f"{digest(path)}  {path.name}\n"
        (out / "SHA256SUMS").write_text(sums)
        say(sums.rstrip())
    return failed


def main() -> None:
    """Make and check all, and say what is left to do."""
    parser = argparse.ArgumentParser(prog="python -m vendor.release", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist")
    parser.add_argument("--final", action="store_true", help="the changelog must have the version")
    parser.add_argument("--plain", action="store_true", help="no wheel with libraries")
    told = parser.parse_args()
    out = told.folder.resolve()
    installed = importlib.metadata.version("libevent_py")
    if failed := release(out, told.final, told.plain):
        sys.exit(f"vendor/release.py: {failed} checks of libevent_py {installed} failed")
    print(f"All is well, and in {out}. docs/releasing.md says what is left to do by hand.")


if __name__ == "__main__":
    main()
