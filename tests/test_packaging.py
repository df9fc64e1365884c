"""The sdist is complete, and a wheel made from it works where nothing else of the project is."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = importlib.metadata.version("libevent_py")
SCRIPT = """
import libevent_py
from libevent_py import EventBase, Event

fired = []
with EventBase() as base:
    timer = Event.timer(base, lambda event, fd, what: fired.append(what)).add(0.001)
    base.dispatch()
assert len(fired) == 1
print(libevent_py.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this tree, and the wheel made from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    run(*command, cwd=out)
    return out


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """The Python of a fresh virtual environment that has cffi, the one dependency."""
    venv.create(tmp_path / "venv", with_pip=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for name in ("cffi", "pycparser", "_cffi_backend"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if spec.submodule_search_locations else origin
        (site / origin.name).symlink_to(origin)
    return tmp_path / "venv" / "bin" / "python"


def test_the_sdist_has_the_headers_and_what_builds_and_nothing_built(dist: Path) -> None:
    with tarfile.open(dist / f"libevent_py-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {
        "LICENSE",
        "Makefile",
        "build_ffi.py",
        "libevent_py/_c/event.c",
        "libevent_py/_c/not_declared.toml",
        "libevent_py/py.typed",
        "pyproject.toml",
        "setup.py",
        "tests/test_packaging.py",
        "vendor/fetch.py",
        "vendor/include/event2/event-config.h",
        "vendor/include/event2/event.h",
        "vendor/libevent.toml",
    }
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_the_wheel_is_for_every_python_from_3_10_on_and_has_only_the_package(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.name.startswith(f"libevent_py-{VERSION}-cp310-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("libevent_py/")}
    assert {path.partition("/")[0] for path in names - package} == {
        f"libevent_py-{VERSION}.dist-info"
    }
    modules = {f"libevent_py/{path.name}" for path in (ROOT / "libevent_py").glob("*.py")}
    built = {"libevent_py/_ffi.abi3.so", "libevent_py/_ffi.pyi", "libevent_py/py.typed"}
    reasons = {"libevent_py/_c/not_declared.toml", "libevent_py/_c/not_wrapped.toml"}
    assert package == modules | built | reasons


def test_the_wheel_works_in_a_fresh_environment(
    dist: Path, bare_python: Path, tmp_path: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    pip = [bare_python, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    where = run(bare_python, "-W", "error", "-c", SCRIPT, cwd=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
