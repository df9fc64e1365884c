"""The options of the pytest plugin, and what it says of a test's base."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from libevent_py import EventBase
from libevent_py.testing.tables import row_of
from libevent_py.vulnerabilities import probe
from tests.kit.pytests import pytest_of
from tests.kit.support import PATIENCE

LEFT = """
    import gc
    import socket
    import pytest
    from libevent_py import Event, EventFlag, BufferEvent, HttpServer, Listener, lib

    kept = []
    fds = socket.socketpair()

    @pytest.fixture(scope="module", autouse=True)
    def closing():
        yield
        for each in fds:
            each.close()

    def test_object(event_base):
        kept.append(Event.timer(event_base, print))

    def test_pending(event_base):
        kept.append(Event.timer(event_base, print).add(3))

    def test_listener(event_base):
        Listener(event_base, ("127.0.0.1", 0), print)

    def test_once(event_base):
        event_base.once(print, timeout=5)

    def test_defer(event_base):
        event_base.defer(print)

    def test_server(event_base):
        kept.append(HttpServer(event_base))
        kept[-1].bind_socket("127.0.0.1", 0)

    def test_raw(event_base):
        bev = lib.bufferevent_socket_new(event_base.pointer, fds[0].fileno(), 0)
        lib.bufferevent_enable(bev, EventFlag.READ)
        kept.append(bev)  # or it would be a leak, which is no matter here

    def test_closed(event_base, bufferevent_pair, listener, http_server, dns_server):
        with Event.timer(event_base, print) as timer:
            timer.add(5)
        BufferEvent(event_base).close()

    def test_dropped(event_base):
        event = Event.timer(event_base, print).add(5)
        event.callback = lambda *_: event
        event.delete()

    def test_base_closed(event_base):
        kept.append(Event.timer(event_base, print))
        event_base.close()

    def test_failed(event_base):
        event = Event.timer(event_base, print).add(3)
        assert False

    def test_skipped(event_base):
        kept.append(Event.timer(event_base, print).add(3))
        pytest.skip("in its middle")

    @pytest.mark.xfail
    def test_xfailed(event_base):
        kept.append(Event.timer(event_base, print).add(3))
        assert False
"""


#: What is told of what each test leaves.
LEAVING = {
    "test_object": r"<Event at 0x\w+, timer, not pending, calls print>",
    "test_pending": r"<Event at 0x\w+, timer, pending TIMEOUT, calls print>",
    "test_listener": r"<Listener at 0x\w+, fd \d+, \('127.0.0.1', \d+\), calls print>",
    "test_once": r"once\(\): timer; due in [\d.]+ s; calls print",
    "test_defer": r"defer\(\): 1 wait to run: print",
    "test_server": r"<HttpServer at 0x\w+, on \('127.0.0.1', \d+\), 0 routes>",
    "test_raw": r"libevent's own: waits to read fd \d+, a UNIX stream socket of a pair",
}


def test_what_a_test_leaves_on_its_base_is_told(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, LEFT)
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    assert ran.outcomes == {
        **dict.fromkeys(LEAVING, "error"),
        **dict.fromkeys(["test_closed", "test_dropped", "test_base_closed"], "passed"),
        "test_failed": "failed",
    }
    assert "1 skipped, 1 xfailed, 7 errors" in ran.said
    told = re.findall(r"^the test has left .*:\n((?:  .*\n)+)", ran.said, re.MULTILINE)
    for lines, pattern in zip(told, LEAVING.values(), strict=True):
        assert re.fullmatch(f"  {pattern}\n", lines)


BACKENDS = """
    import unittest
    import pytest
    from libevent_py import EventBase

    def test_all(event_base, libevent_backend):
        assert libevent_backend in (None, event_base.method)

    @pytest.mark.backends
    def test_each(event_base):
        pass

    @pytest.mark.backends("select", "kqueue")
    @pytest.mark.parametrize("number", [1, 2])
    def test_some(event_base, number):
        assert event_base.method == "select"

    @pytest.mark.backends("poll")
    def test_fails(event_base):
        assert event_base.method == "epoll"

    @pytest.mark.backends("poll")
    def test_late(request):
        request.getfixturevalue("event_base")

    @pytest.mark.backends("poll", "select")
    def test_its_own(libevent_backend):
        with EventBase(method=libevent_backend) as base:
            assert base.method == libevent_backend

    @pytest.mark.backends("poll")
    def test_any():
        EventBase().close()

    @pytest.mark.backends("poll")
    class TestMarked:
        def test_with(self, event_base):
            assert event_base.method == "poll"

        def test_without(self):  # it is not marked itself
            pass

    @pytest.mark.backends("poll")
    @pytest.mark.usefixtures("event_base")
    class TestCase(unittest.TestCase):
        def test_once(self):
            pass

    def test_without():
        pass
"""


def test_tests_run_on_the_backends_that_are_marked(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, BACKENDS)
    methods = EventBase.supported_methods()
    assert ran.outcomes == {
        "test_all": "passed",
        **{f"test_each[{method}]": "passed" for method in methods},
        "test_some[select-1]": "passed",
        "test_some[select-2]": "passed",
        "test_fails[poll]": "failed",
        "test_late": "error",
        "test_its_own[poll]": "passed",
        "test_its_own[select]": "passed",
        "test_any": "error",
        "TestMarked::test_with[poll]": "passed",
        "TestMarked::test_without": "passed",
        "TestCase::test_once": "error",
        "test_without": "passed",
    }
    assert ran.said.count("\nthe mark backends needs a test that can run more than once") == 1
    asks = "\nthe mark backends needs a test that asks for event_base or libevent_backend"
    assert ran.said.count(asks) == 2
    assert ran.said.count("this libevent has no kqueue here") == 1
    assert "2 skipped" in ran.said


def test_all_tests_run_on_the_backends_of_the_option(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, BACKENDS, "--libevent-backends", "epoll, select")
    assert ran.outcomes == {
        "test_all[epoll]": "passed",
        "test_all[select]": "passed",
        "test_each[epoll]": "passed",
        "test_each[select]": "passed",
        "test_some[select-1]": "passed",
        "test_some[select-2]": "passed",
        "test_late": "error",
        "test_its_own[select]": "passed",
        "test_any": "error",
        "TestMarked::test_without": "passed",
        "TestCase::test_once": "error",
        "test_without": "passed",
    }
    assert "poll is not among --libevent-backends" in ran.said


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.more)])
def test_a_table_has_the_results_by_backend(tmp_path: Path, workers: int) -> None:
    ran = pytest_of(tmp_path, BACKENDS, "--libevent-table", f"-n{workers}")
    table = ran.said.partition("libevent's backends ==")[2].split("\n")[1:]
    rows = {tuple(line.split()) for line in table[: table.index(next(filter(is_head, table)))]}
    assert rows == {
        ("epoll", "poll", "select"),
        ("test_it.py::test_all", "passed", "passed", "passed"),
        ("test_it.py::test_each", "passed", "passed", "passed"),
        ("test_it.py::test_some[1]", "-", "-", "passed"),
        ("test_it.py::test_some[2]", "-", "-", "passed"),
        ("test_it.py::test_fails", "-", "FAILED", "-"),
        ("test_it.py::test_its_own", "-", "passed", "passed"),
        ("test_it.py::TestMarked::test_with", "-", "passed", "-"),
    } or "kqueue" in str(rows)


def is_head(line: str) -> bool:
    return line.startswith("===")


def test_a_row_is_named_without_its_backend() -> None:
    assert row_of("a.py::test[epoll]", "epoll") == "a.py::test"
    assert row_of("a.py::test[1-epoll-x]", "epoll") == "a.py::test[1-x]"


def test_a_table_without_backends_says_so(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, "def test_it(): pass", "--libevent-table")
    assert "no test has used event_base on a backend that it names" in ran.said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--libevent-backends", "kqueue"],
            "ERROR: --libevent-backends: 'kqueue' is neither all nor some of epoll, poll, select",
        ),
        (["--libevent", "/"], "ERROR: there is no libevent in /: give the directory of its .so"),
        (["--libevent-compare", "/"], "ERROR: there is no libevent in /: give the directory"),
        (
            ["--libevent=/", "--libevent-compare=/"],
            "ERROR: --libevent and --libevent-compare: give one of them",
        ),
    ],
)
def test_bad_options_are_told(tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = pytest_of(tmp_path, "def test_it(): pass", *arguments)
    assert ran.status == pytest.ExitCode.USAGE_ERROR
    assert said in ran.said
    assert "Traceback" not in ran.said


def test_an_unknown_backend_in_a_mark_is_told(tmp_path: Path) -> None:
    code = """
        import pytest

        @pytest.mark.backends("epol")
        def test_it(event_base):
            pass
    """
    ran = pytest_of(tmp_path, code)
    assert ran.status == pytest.ExitCode.INTERRUPTED
    assert "the mark backends has 'epol', which is none of evport, kqueue, epoll" in ran.said
    assert "Traceback" not in ran.said


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies of libevent's libraries, as another build of them."""
    place = tmp_path_factory.mktemp("libevent")
    for part, file in probe.files().items():
        if part.startswith("event_"):
            shutil.copy(file, place)
    return place


WHERE = """
    import os
    import warnings
    from libevent_py.vulnerabilities import probe

    def test_same(event_base):
        pass

    def test_where():
        place = os.path.dirname(probe.files()["event_core"])
        assert place != os.environ["COPIED"]

    def test_fails_always():
        assert False, f"as ever: {object()}"
"""


@pytest.mark.parametrize(
    "how", ["=", "file", *(pytest.param(how, marks=pytest.mark.more) for how in (" ", "xdist"))]
)
def test_tests_run_on_another_build(tmp_path: Path, copied: Path, how: str) -> None:
    arguments = [f"--libevent={copied}"]
    if how == " ":
        arguments = ["--libevent", str(copied)]
    elif how == "file":
        (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = --libevent {copied}\n")
        arguments = []
    elif how == "xdist":
        arguments.append("-n2")
    ran = pytest_of(tmp_path, WHERE, *arguments, env={"COPIED": str(copied)})
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    assert ran.outcomes == {
        "test_same": "passed",
        "test_where": "failed",
        "test_fails_always": "failed",
    }
    assert ran.said.count("test session starts") == 1
    assert f"rootdir: {tmp_path}\n" in ran.said
    assert re.search(rf"^libevent: 2\.1\.\S+, {re.escape(str(copied))}/", ran.said, re.MULTILINE)


@pytest.mark.more
def test_two_builds_are_compared(tmp_path: Path, copied: Path) -> None:
    ran = pytest_of(tmp_path, WHERE, "--libevent-compare", str(copied), env={"COPIED": str(copied)})
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    said = ran.said[ran.said.index("========== libevent") :].splitlines()
    assert re.fullmatch(rf"=+ libevent \S+ and \S+ in {re.escape(str(copied))} =+", said[0])
    assert said[1] == "test_it.py::test_where"
    assert re.fullmatch(r"  2\.1\.\S+: passed", said[2])
    assert re.fullmatch(r"  2\.1\.\S+ in \S+: failed: AssertionError: assert .*", said[3])
    assert said[4] == "2 tests are the same, 1 differ"


@pytest.mark.more
def test_builds_that_behave_alike_are_the_same(tmp_path: Path, copied: Path) -> None:
    ran = pytest_of(tmp_path, "def test_it(event_base): pass", "--libevent-compare", str(copied))
    assert ran.status == 0
    assert ran.said.endswith("1 tests are the same, 0 differ\n")


@pytest.mark.more
def test_a_comparison_runs_what_failed_last_on_both(tmp_path: Path, copied: Path) -> None:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(WHERE))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--lf", f"--libevent-compare={copied}"],
        cwd=tmp_path,
        env={**os.environ, "COPIED": str(copied)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.endswith("2 tests are the same, 1 differ\n"), done.stdout


@pytest.mark.slow
def test_a_comparison_and_its_child_end_together(tmp_path: Path, copied: Path) -> None:
    code = """
        import os
        import signal
        import time

        def test_it():
            if WHOLE:
                os.killpg(0, signal.SIGINT)
            else:
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(100)
    """
    for whole, status in (True, pytest.ExitCode.INTERRUPTED), (False, 128 + signal.SIGTERM):
        (tmp_path / "test_it.py").write_text(f"WHOLE = {whole}\n" + textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "test_it.py", f"--libevent-compare={copied}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, done.stdout
        assert done.stdout.count("test session starts") == 1
        assert "differ" not in done.stdout
    assert "libevent_py: the tests' process was ended by SIGTERM" in done.stdout


def test_nothing_is_loaded_for_tests_that_use_nothing(tmp_path: Path) -> None:
    code = """
        import sys

        def test_it():
            assert "pytest_libevent" in sys.modules
            assert not [name for name in sys.modules if name.startswith("libevent_py")]
    """
    assert pytest_of(tmp_path, code).status == 0


def test_the_plugin_is_found_by_its_entry_point() -> None:
    (point,) = [
        point
        for point in importlib.metadata.entry_points(group="pytest11")
        if point.name == "libevent"
    ]
    assert point.value == "pytest_libevent"


def test_certificates_say_which_package_they_need(tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ImportError('no trustme')\n")
    code = "def test_it(tls_context): pass"
    ran = pytest_of(tmp_path, code, env={"PYTHONPATH": str(tmp_path)})
    assert "pip install 'libevent_py[testing]'" in ran.said


def test_help_has_the_options(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    options = set(re.findall(r"--libevent[\w-]*", done.stdout))
    assert options == {
        "--libevent",
        "--libevent-backends",
        "--libevent-compare",
        "--libevent-table",
    }
