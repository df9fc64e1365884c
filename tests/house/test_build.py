"""build_ffi.py finds OpenSSL, or says what is missing and builds the rest."""

from __future__ import annotations

import os
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
