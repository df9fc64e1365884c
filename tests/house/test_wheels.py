"""The wheels where there is neither libevent nor a compiler: in a bare Debian, in one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import libevent_py
from libevent_py import lib
from tests.kit.once import once
from tests.kit.support import ROOT

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can make another root of the files"),
    pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="debootstrap is Debian's"),
]

#: Where a Python in the bare system finds what is installed there.
SITE = "opt/site"

#: Both ends of a connection whose certificate only the system's list makes trusted.
TRUSTED = """
from libevent_py import BufferEvent, BufferEventFlag, EventBase, Listener, TlsContext

told = []
with EventBase() as base:
    server = TlsContext(certfile="/opt/own.pem", keyfile="/opt/own.key", server_side=True)

    def accept(listener, fd, address):
        BufferEvent.tls(base, fd, server)

    def event(bev, what):
        told.append((what, bev.error))
        base.loopexit()

    listener = Listener(base, ("127.0.0.1", 0), accept)
    client = BufferEvent.tls(base, -1, TlsContext(), server_hostname="own.example", on_event=event)
    client.connect(listener.address)
    base.loopexit(20)
    base.dispatch()
assert told == [(BufferEventFlag.CONNECTED, None)], told
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The plain wheel and the binary one."""

    def make(out: Path) -> None:
        run(sys.executable, "vendor/wheels.py", out)

    return sorted(once(tmp_path_factory, "wheels", make).glob("*.whl"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, wheels: list[Path]) -> Path:
    """A bare Debian with Python, and with the wheels and cffi installed."""

    def make(root: Path) -> None:
        include = "--include=python3,ca-certificates,openssl"
        run("debootstrap", "--variant=minbase", include, "bookworm", root)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        pip += ["--no-deps", "--target", str(root / SITE), "--python-version", "3.11"]
        run(*pip, "--only-binary=:all:", *wheels, "cffi>=2.1", "pycparser")
        shutil.copytree(ROOT / "samples", root / "opt" / "samples")
        with (root / "etc" / "hosts").open("a") as hosts:
            hosts.write("127.0.0.1 localhost\n")

    return once(tmp_path_factory, "bare", make)


def below(root: Path, *command: str, **variables: str) -> str:
    """Return what *command* says in the bare system."""
    environment = [f"{name}={value}" for name, value in variables.items()]
    path = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PYTHONPATH=/{SITE}"]
    return run("chroot", root, "env", "-i", *path, *environment, *command)


def files(root: Path, **variables: str) -> dict[str, str]:
    """Return which files are in use in the bare system, by the doctor's report."""
    told = json.loads(below(root, "python3", "-m", "libevent_py", "doctor", "--json", **variables))
    assert told["broken"] == []
    found: dict[str, str] = told["files"]
    return found


def test_the_binary_wheel_has_libraries_licences_and_a_list_of_both(wheels: list[Path]) -> None:
    (binary,) = [wheel for wheel in wheels if wheel.name.startswith("libevent_py_binary")]
    assert "-cp310-abi3-manylinux" in binary.name
    with zipfile.ZipFile(binary) as archive:
        names = archive.namelist()
        (bom,) = [name for name in names if name.endswith(".cdx.json")]
        listed = {part["name"] for part in json.loads(archive.read(bom))["components"]}
    for part in ("libevent_core", "libevent_extra", "libevent_openssl", "libssl", "libcrypto"):
        assert [name for name in names if f".libs/{part}-" in name], part
    for licence in ("libevent.txt", "openssl.txt", "apache-2.0.txt", "libevent_py.txt"):
        assert [name for name in names if name.endswith(f"licences/{licence}")], licence
    assert any("libevent" in name for name in listed)
    assert any("ssl" in name for name in listed)


def test_nothing_that_it_does_without_is_there(bare: Path) -> None:
    libraries = [path.name for path in (bare / "usr" / "lib").rglob("libevent*")]
    assert libraries == []
    assert not (bare / "usr" / "bin" / "cc").exists()
    assert not (bare / "usr" / "bin" / "gcc").exists()


def test_its_own_libraries_are_in_use(bare: Path) -> None:
    for part, path in files(bare).items():
        if part not in ("python", "extension"):
            assert path.startswith(f"/{SITE}/libevent_py_binary"), part
    assert "epoll" in below(bare, "python3", "/opt/samples/methods.py")
    assert below(bare, "python3", "-m", "libevent_py", "samples", "run", "pair")


@pytest.mark.skipif(not lib.LIBEVENT_PY_HAVE_TLS, reason="built without TLS")
def test_what_the_system_trusts_is_trusted(bare: Path) -> None:
    own = bare / "usr" / "local" / "share" / "ca-certificates" / "own.crt"
    subject = ["-subj", "/CN=own.example", "-addext", "subjectAltName=DNS:own.example"]
    below(
        bare, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-keyout", "/opt/own.key", "-out", "/opt/own.pem", *subject,
    )  # fmt: skip
    with pytest.raises(AssertionError, match="certificate"):
        below(bare, "python3", "-c", TRUSTED)
    shutil.copyfile(bare / "opt" / "own.pem", own)
    below(bare, "update-ca-certificates")
    below(bare, "python3", "-c", TRUSTED)


def test_another_libevent_can_be_put_underneath(bare: Path) -> None:
    other = bare / "opt" / "other"
    other.mkdir(exist_ok=True)
    parts = ("event_core", "event_extra", "event_pthreads", "event_openssl")
    for part in parts:
        path = Path(libevent_py.vulnerabilities.probe.files()[part])
        shutil.copyfile(path, other / f"lib{part}-2.1.so.7")
    found = files(bare, LIBEVENT_PY_LIBEVENT="/opt/other")
    assert {found[part] for part in parts} == {f"/opt/other/lib{part}-2.1.so.7" for part in parts}


def test_a_directory_without_libevent_is_refused(bare: Path) -> None:
    with pytest.raises(AssertionError, match="must be a directory with libevent_core"):
        below(bare, "python3", "-c", "import libevent_py", LIBEVENT_PY_LIBEVENT="/opt")


def test_without_the_binary_package_the_error_names_it(bare: Path, wheels: list[Path]) -> None:
    (plain,) = [wheel for wheel in wheels if not wheel.name.startswith("libevent_py_binary")]
    with zipfile.ZipFile(plain) as archive:
        archive.extractall(bare / "opt" / "plain")
    with pytest.raises(AssertionError, match=r"pip install 'libevent_py\[binary\]'"):
        below(bare, "python3", "-c", f"import sys; sys.path[1:1] = ['/opt/plain']; "
            f"sys.path.remove('/{SITE}'); import libevent_py")  # fmt: skip
