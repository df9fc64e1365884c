"""``python -m libevent_py doctor`` says what is in use, where it is, and what ails it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import libevent_py
from libevent_py import EventBase, EventFeature, Vulnerability, ffi, lib
from libevent_py.__main__ import main
from libevent_py._cli import doctor
from libevent_py._cli.doctor import facts, report, table
from libevent_py.vulnerabilities import probe
from tests.kit.support import PATIENCE, ROOT


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """The report."""
    return list(report(facts()))


def test_it_begins_with_versions(lines: list[str]) -> None:
    package, cffi = (importlib.metadata.version(name) for name in ("libevent_py", "cffi"))
    assert lines[0] == f"libevent_py {package}, cffi {cffi}, Python {platform.python_version()}"
    headers = ffi.string(lib.LIBEVENT_VERSION).decode()
    assert lines[1] == f"libevent {libevent_py.libevent_version}, compiled against {headers}"


def test_it_names_the_backends_and_what_the_one_in_use_can_do(lines: list[str]) -> None:
    with EventBase() as base:
        methods = ", ".join(EventBase.supported_methods())
        assert lines[2] == f"backends: {methods}; in use: {base.method}"
        name, _, features = lines[3].partition(": ")
        assert name == f"features of {base.method}"
        found = EventFeature(0)
        for feature in features.split():
            found |= EventFeature[feature]
        assert found == base.features


# The build leaves TLS out where there is no OpenSSL for it; then no library has a name.
@pytest.mark.skipif(not lib.LIBEVENT_PY_HAVE_TLS, reason="built without TLS")
def test_it_names_the_tls_library(lines: list[str]) -> None:
    assert lines[4].startswith("TLS: OpenSSL ")


def test_it_says_where_everything_was_loaded_from(lines: list[str]) -> None:
    found = dict(line.split(None, 1) for line in lines[6 : 6 + len(probe.files()) + 1])
    assert found == {"python": sys.executable, **probe.files()}
    for part, file in found.items():
        assert Path(file).is_file(), part


def test_it_ends_with_the_published_holes(lines: list[str]) -> None:
    holes = libevent_py.known_vulnerabilities()
    told = lines[-len(holes) :]
    for hole, line in zip(holes, told, strict=True):
        assert line.split()[:2] == [hole.id, hole.state]
        assert hole.summary in line
        assert (hole.detail in line) == (hole.state == "unknown")
    assert lines[-len(holes) - 1].startswith("Published vulnerabilities")


def test_columns_stand_below_each_other() -> None:
    rows: list[tuple[str, ...]] = [("a", "bb", "c"), ("aaa", "b", "cc")]
    assert list(table(rows)) == ["a    bb  c", "aaa  b   cc"]


def test_without_tls_it_says_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Without:
        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def evpy_openssl(self) -> object:
            return ffi.NULL

    monkeypatch.setattr(doctor, "lib", Without())
    assert list(report(facts()))[4] == "TLS: none"


def test_why_a_hole_is_unknown_is_told() -> None:
    hole = Vulnerability("CVE-0", "A hole", "unknown", "nobody looked")
    assert doctor.told(hole) == "A hole (nobody looked)"
    assert doctor.told(hole._replace(state="fixed")) == "A hole"


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == lines
    assert output.err == ""


def test_it_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["libevent"] == libevent_py.libevent_version
    assert told["backends"] == list(EventBase.supported_methods())
    assert told["files"] == {"python": sys.executable, **probe.files()}
    assert [hole["id"] for hole in told["vulnerabilities"]] == [
        hole.id for hole in libevent_py.known_vulnerabilities()
    ]
    assert told["broken"] == []


def test_what_is_broken_ends_the_report_and_is_the_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "why_no_tls", lambda: "two versions of OpenSSL")
    for method in EventBase.supported_methods():
        monkeypatch.setenv(f"EVENT_NO{method.upper()}", "1")
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "in use: none" in lines[2]
    *_, base, tls = lines
    assert base.startswith("Broken: no event base can be made: event_base_new_with_config")
    if lib.LIBEVENT_PY_HAVE_TLS:
        assert tls == "Broken: two versions of OpenSSL"


def test_what_an_extra_misses_is_told_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["cffi>=1", "nowhere-at-all>=2; extra == 'testing'", 'pytest; extra == "testing"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    assert doctor.missing("testing") == ["nowhere-at-all"]
    found = facts()
    assert found.extras["completion"] == []
    (line,) = [line for line in report(found) if line.startswith("testing ")]
    assert line.endswith("missing: nowhere-at-all; pip install 'libevent_py[testing]'")


def test_it_runs_as_a_program_whatever_is_found(lines: list[str]) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "libevent_py", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines
