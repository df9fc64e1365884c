"""Holes are found where they are, and only there, without doing what they let others do."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py import Event, EventBase, Vulnerability
from libevent_py.vulnerabilities import known, probe
from tests.kit.support import PATIENCE, run_python

MENDED = {f"CVE-2026-633{number}" for number in (79, 81, 82, 83, 84, 85, 87, 88)}
#: Of 2.1.13's fix, Debian has one half, which has a number: the other is about chunks.
BARE_LF = "GHSA-jcwh-pvf2-73p2"
#: This was mended long ago, but not for 2.1.
NOT_MENDED = {BARE_LF, "libevent#1231"}
#: In a sample program.
NOT_IN_THE_LIBRARY = "GHSA-5rgj-2c58-7jrc"

STATES = """
import libevent_py
for hole in libevent_py.known_vulnerabilities():
    print(hole.id, hole.state)
print(libevent_py.vulnerabilities.probe.files())
"""


@pytest.fixture
def _asked_anew() -> Any:
    """Forget what was found out before, and afterwards what was found out meanwhile."""
    known._tried.cache_clear()
    yield
    known._tried.cache_clear()


def states(libraries: Path) -> dict[str, str]:
    """Return the states of all holes of the *libraries*, which are sure to be those in use."""
    output = run_python(STATES, env={"LD_LIBRARY_PATH": str(libraries)})
    *lines, files = output.splitlines()
    for part in ("event_core", "event_extra", "event_pthreads", "event_openssl"):
        assert f"{libraries}/lib{part}-2.1.so.7" in files
    return dict(line.split() for line in lines)


def test_the_library_of_2020_has_all_holes(unpatched: Path) -> None:
    found = states(unpatched)
    assert found.pop(NOT_IN_THE_LIBRARY) == "unknown"
    assert found == dict.fromkeys(MENDED | NOT_MENDED, "vulnerable")


@pytest.mark.more
def test_the_library_mended_under_the_same_version_number_has_all_but_two_fixed(
    patched: Path,
) -> None:
    found = states(patched)
    assert found.pop(NOT_IN_THE_LIBRARY) == "unknown"
    assert found == dict.fromkeys(MENDED, "fixed") | dict.fromkeys(NOT_MENDED, "vulnerable")


@pytest.mark.more
def test_the_probes_touch_no_memory_but_their_own_where_the_holes_are(unpatched: Path) -> None:
    output = run_python(
        """
        import os
        from libevent_py.vulnerabilities import probe

        probe.PATIENCE = 300
        for process, reader in [probe.start(each) for each in probe.PROBES]:
            # Valgrind makes the status 99 where it found something.
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            print(status, os.read(reader, 99).split(b'"')[1].decode())
            assert status == 0
        """,
        env={"LD_LIBRARY_PATH": str(unpatched)},
        valgrind=True,
        stderr=None,
    )
    assert output.splitlines() == ["0 vulnerable"] * 10 + ["0 unknown"]


def test_each_hole_is_told_by_name_state_and_reason() -> None:
    holes = libevent_py.known_vulnerabilities()
    assert {hole.id for hole in holes} == {*MENDED, *NOT_MENDED, NOT_IN_THE_LIBRARY}
    assert len({hole.summary for hole in holes}) == len(holes)
    for hole in holes:
        assert isinstance(hole, Vulnerability)
        assert hole.state in ("vulnerable", "fixed", "unknown")
        assert hole.detail


def test_it_is_tried_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = libevent_py.known_vulnerabilities()
    monkeypatch.setattr(known, "_results", None)
    assert libevent_py.known_vulnerabilities() == first


def test_the_list_is_the_callers_own() -> None:
    libevent_py.known_vulnerabilities().clear()
    assert libevent_py.known_vulnerabilities()


@pytest.mark.usefixtures("_asked_anew")
def test_it_can_be_asked_in_a_callback_of_a_running_loop(base: EventBase) -> None:
    found: list[list[Vulnerability]] = []
    Event.timer(base, lambda *_: found.append(libevent_py.known_vulnerabilities())).add(0)
    base.dispatch()
    assert "unknown" not in {hole.state for hole in found[0] if hole.id in MENDED}


@pytest.mark.usefixtures("_asked_anew")
def test_it_can_be_asked_in_another_thread() -> None:
    found: list[list[Vulnerability]] = []
    thread = threading.Thread(target=lambda: found.append(libevent_py.known_vulnerabilities()))
    thread.start()
    thread.join(PATIENCE)
    assert "unknown" not in {hole.state for hole in found[0] if hole.id in MENDED}


def test_it_can_be_asked_where_signals_are_ignored_and_blocked(patched: Path) -> None:
    output = run_python(
        """
        import signal

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        """
        + STATES.replace("\n", "\n        "),
        env={"LD_LIBRARY_PATH": str(patched)},
    )
    assert "CVE-2026-63379 fixed\n" in output


# What can't be found out is unknown.


def unknown() -> str:
    """Return why nothing is known of any hole."""
    (reason,) = {
        hole.detail for hole in libevent_py.known_vulnerabilities() if hole.state == "unknown"
    }
    assert all(hole.state == "unknown" for hole in libevent_py.known_vulnerabilities())
    return reason


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize("executable", ["/nowhere/python", "", None])
def test_without_another_python_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert unknown().startswith("the probes could not be run: [Errno ")


@pytest.mark.usefixtures("_asked_anew")
def test_the_last_words_of_a_python_that_fails_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "CODE", "raise SystemExit('it is\\nMonday')")
    assert unknown() == "the probes could not be run: Monday"


@pytest.mark.usefixtures("_asked_anew")
def test_a_python_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "PATIENCE", 0.2)
    monkeypatch.setattr(known, "CODE", "import time; time.sleep(60)")
    assert "timed out" in unknown()


@pytest.mark.usefixtures("_asked_anew")
def test_what_is_found_out_about_another_library_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = {**probe.files(), "event_core": "/elsewhere"}
    monkeypatch.setattr(probe, "files", lambda: elsewhere)
    assert unknown().startswith("another Python finds another libevent: ")


def outcome(code: str) -> str:
    """Return what is said of a probe that runs *code*."""
    return run_python(
        f"""
        import os, signal, time
        from libevent_py.vulnerabilities import probe
        from libevent_py import errors, lib

        def run():
            {code}

        probe.PATIENCE = 1
        print(*probe.collect(*probe.start(probe.Probe("", "", run))))
        """
    ).strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("return 'fixed', 'seen'", "fixed seen"),
        ("1 / 0", "unknown ZeroDivisionError: division by zero"),
        ("raise SystemExit", "unknown SystemExit: "),
        ("os.kill(os.getpid(), signal.SIGKILL)", "unknown the probe ended with status -9"),
        ("time.sleep(60)", "unknown the probe ended with status -14"),
        ("os._exit(3)", "unknown the probe ended with status 3"),
    ],
)
def test_whatever_a_probe_does_it_is_told(code: str, result: str) -> None:
    assert outcome(code) == result.strip()


def test_a_probe_that_gets_no_answer_in_time_is_unknown() -> None:
    code = "_ = [*probe.turns(errors.new(lib.event_base_new))]"
    assert outcome(code) == "unknown TimeoutError: libevent did not answer"


def test_without_a_loopback_interface_what_needs_it_is_unknown() -> None:
    output = run_python(
        """
        import socket
        from libevent_py.vulnerabilities import probe

        def refuse(*_, **__):
            raise OSError(99, "Cannot assign requested address")

        socket.create_server = refuse
        for each in probe.PROBES:
            state, detail = probe.collect(*probe.start(each))
            if "Cannot assign" in detail:
                print(each.id, state)
        """
    )
    assert dict(line.split() for line in output.splitlines()) == dict.fromkeys(
        ["CVE-2026-63379", "CVE-2026-63382", BARE_LF], "unknown"
    )


def test_the_files_in_use_are_known() -> None:
    found = probe.files()
    assert found["extension"] == libevent_py._ffi.__file__
    assert set(found) <= set(probe.PARTS)
    assert all(os.path.exists(file) for file in found.values())
