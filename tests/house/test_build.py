"""build_ffi.py finds OpenSSL, or says what is missing and builds the rest."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from libevent_py import lib
from tests.kit.support import PATIENCE, ROOT

#: What the compiler is told of TLS.
ASK = """
import build_ffi
macros = dict(build_ffi.ffibuilder._assigned_source[3]["define_macros"])
print(macros["LIBEVENT_PY_HAVE_OPENSSL"], macros["LIBEVENT_PY_HAVE_TLS"])
"""

with_libevent_openssl = pytest.mark.skipif(
    not lib.LIBEVENT_PY_HAVE_TLS, reason="there is no TLS to be left out"
)


def ask(**environment: str) -> tuple[str, str]:
    """Return what is built, and what the build complains of."""
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def refused(code: str = "import build_ffi", **environment: str) -> str:
    """Return what a build says that can't be made."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_a_compiler_the_build_says_what_to_install() -> None:
    said = refused(CC="/nowhere/cc")
    assert said.startswith("libevent_py: There is no C compiler: ")
    assert "/nowhere/cc" in said
    assert "apt-get install gcc libc6-dev" in said


def test_a_compiler_that_fails_is_quoted() -> None:
    said = refused(LDFLAGS="-lthere_is_no_such_library")
    assert said.startswith("libevent_py: The C compiler can't make a shared library: ")
    assert "lthere_is_no_such_library" in said


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A copy of what a build needs, whose headers are for another kind of machine."""
    for name in ("build_ffi.py", "vendor/fetch.py", "vendor/libevent.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "vendor" / "include", tmp_path / "vendor" / "include")
    shutil.copytree(ROOT / "libevent_py" / "_c", tmp_path / "libevent_py" / "_c")
    config = tmp_path / "vendor" / "include" / "event2" / "event-config.h"
    size = struct.calcsize("l")
    changed = config.read_text().replace(f"SIZEOF_LONG {size}\n", f"SIZEOF_LONG {12 - size}\n")
    assert changed != config.read_text()
    config.write_text(changed)
    return tmp_path


@pytest.mark.slow
def test_headers_for_another_kind_of_machine_are_fetched_anew(foreign: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=foreign, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    config = Path("vendor", "include", "event2", "event-config.h")
    assert (foreign / config).read_text() == (ROOT / config).read_text()


@pytest.mark.slow
# On 32 bits nothing is made: the size of off_t can't be known, so the build refuses, and says so.
@pytest.mark.skipif(struct.calcsize("P") != 8, reason="it is for 64 bits")
def test_what_is_made_for_event_config_says_what_the_real_one_says(foreign: Path) -> None:
    """With either, libevent declares the same, and what its headers ask has the same value."""
    include = foreign / "vendor" / "include"
    config = include / "event2" / "event-config.h"
    names = sorted(path.name for path in (include / "event2").glob("*.h"))
    names = [name for name in names if not name.startswith("event-config")]
    source = "".join(f"#include <event2/{name}>\n" for name in names)
    used = {
        name
        for header in names
        for name in re.findall(r"\bEVENT__\w+", (include / "event2" / header).read_text())
    }
    source += "".join(f"ASK {name}_IS {name}\n" for name in sorted(used))

    def told() -> list[str]:
        command = ["gcc", "-E", "-P", "-D_GNU_SOURCE", "-I", str(include), "-x", "c", "-"]
        done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        # Not what the system's own headers declare: that depends on which was included first.
        ours = r"^ASK .*|^.*\b(?:ev|ev\w*_|bufferevent\w*)\w+ ?\(.*"
        return re.findall(ours, done.stdout, re.MULTILINE)

    shutil.copy2(ROOT / "vendor" / "include" / "event2" / "event-config.h", config)
    real = told()
    config.unlink()
    command = "from vendor import fetch; fetch.complete(); import build_ffi; "
    command += "print(build_ffi.fits(fetch.VENDORED))"
    shutil.copy2(ROOT / "vendor" / "event-config.h.in", foreign / "vendor")
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=foreign, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True\n", done.stderr
    assert len(real) > 400
    assert told() == real


@pytest.mark.slow
def test_where_only_such_headers_are_found_the_build_says_so(foreign: Path) -> None:
    only = "from vendor import fetch; fetch.installed = lambda: fetch.VENDORED; import build_ffi"
    done = subprocess.run(
        [sys.executable, "-c", only],
        cwd=foreign,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "event-config.h is for another kind of machine than the compiler" in done.stderr


#: Runs setup.py as a free-threaded Python would, and tells what it asks setuptools for.
FREE_THREADED = """
import runpy, setuptools, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = {disabled}
setuptools.setup = lambda **given: print(
    given["options"], [extension.py_limited_api for extension in given["ext_modules"]]
)
runpy.run_path("setup.py")
"""


@pytest.mark.parametrize(
    ("disabled", "asked"),
    [(0, "{'bdist_wheel': {'py_limited_api': 'cp310'}} [True]"), (1, "{} [False]")],
)
def test_a_free_threaded_python_has_no_limited_api(disabled: int, asked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREE_THREADED.format(disabled=disabled)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.strip() == (asked if sys.platform == "linux" else asked[:-7] + "[]"), done


@pytest.mark.slow
def test_the_build_finds_what_this_module_was_built_with() -> None:
    built = f"{lib.LIBEVENT_PY_HAVE_OPENSSL} {lib.LIBEVENT_PY_HAVE_TLS}"
    complaint = "" if lib.LIBEVENT_PY_HAVE_TLS else "libevent_py: no TLS, because "
    assert ask()[0] == built
    assert ask()[1].startswith(complaint)


@pytest.mark.slow
@with_libevent_openssl
def test_without_openssls_headers_only_tls_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "openssl").mkdir()
    (tmp_path / "openssl" / "ssl.h").write_text("#error there is none\n")
    built, complaint = ask(CPPFLAGS=f"-I{tmp_path}")
    assert built == "1 0"
    assert "libevent_py: no TLS, because there are no development files" in complaint
    assert "apt-get install libssl-dev" in complaint


@pytest.mark.slow
@with_libevent_openssl
def test_another_openssl_than_libevents_is_not_linked_with(tmp_path: Path) -> None:
    for name in ("ssl", "crypto"):
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,lib{name}.so.0"]
        command += ["-o", str(tmp_path / f"lib{name}.so")]
        source = "void *SSL_new(void *ctx) { return ctx; }\n"
        subprocess.run(command, input=source, text=True, check=True, timeout=PATIENCE)
    built, complaint = ask(LDFLAGS=f"-L{tmp_path}")
    assert built == "1 0"
    assert "of the OpenSSL that libevent_openssl is linked with" in complaint
