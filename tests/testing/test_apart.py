"""Tests that run in a process of their own, which nobody is to notice."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from libevent_py.testing.runs import ended
from tests.kit.pytests import pytest_of
from tests.kit.support import PATIENCE

APART = """
    import os
    import signal
    import warnings
    import pytest
    from libevent_py import Event, debug

    HERE = os.getpid()

    @pytest.fixture(scope="session")
    def file(tmp_path_factory):
        made = tmp_path_factory.mktemp("kept") / "file"
        made.write_text("")
        return made

    @pytest.fixture(scope="module")
    def number():
        return os.getpid()

    @pytest.fixture
    def breaks():
        yield
        raise OSError("at the end")

    class TestClass:
        def test_before(self, number, file):
            assert not debug.enabled("debug_mode")

        def test_debug(self, libevent_debug_mode, event_base, number):
            assert debug.enabled("debug_mode")
            assert number == os.getpid() != os.getppid()
            print("printed there")

    def test_after(number, file):
        assert not debug.enabled("debug_mode")
        assert file.exists()

    def test_fails(libevent_debug_mode):
        os.system("echo a program says; echo and more >&2")
        assert os.getpid() == 0

    @pytest.mark.filterwarnings("default")
    def test_warns(libevent_debug_mode):
        warnings.warn("of something", FutureWarning)
        warnings.warn(type("OwnWarning", (UserWarning,), {})("of mine"))

    def test_skips(libevent_debug_mode):
        pytest.skip("for no reason")

    @pytest.mark.xfail(strict=True)
    def test_xfails(libevent_debug_mode):
        assert False

    def test_breaks(libevent_debug_mode, breaks):
        pass

    @pytest.mark.parametrize("text", ["a/b", "[x]", "a::b"])
    def test_named(libevent_debug_mode, text):
        assert debug.enabled("debug_mode")

    def test_crashes(libevent_debug_mode):
        os.kill(os.getpid(), signal.SIGKILL)

    def test_ends(libevent_debug_mode):
        print("on its way", flush=True)
        os._exit(7)

    def test_late(request):
        request.getfixturevalue("libevent_debug_mode")
"""


@pytest.mark.more
@pytest.mark.parametrize("workers", [0, 2])
def test_a_test_runs_in_a_process_of_its_own(tmp_path: Path, workers: int) -> None:
    ran = pytest_of(
        tmp_path, APART, f"-n{workers}", "--junitxml=results.xml", f"--basetemp={tmp_path / 'base'}"
    )
    assert ran.outcomes == {
        "TestClass::test_before": "passed",
        "TestClass::test_debug": "passed",
        "test_after": "passed",
        "test_fails": "failed",
        "test_warns": "passed",
        "test_breaks": "error",
        "test_named[a/b]": "passed",
        "test_named[[x]]": "passed",
        "test_named[a::b]": "passed",
        "test_crashes": "failed",
        "test_ends": "failed",
        "test_late": "failed",
    }
    assert "1 skipped, 1 xfailed, 2 warnings, 1 error" in ran.said
    assert "for no reason" in ran.said
    assert "printed there" in ran.said
    assert "assert os.getpid() == 0" in ran.said
    assert "OSError: at the end" in ran.said
    assert "the test's own process was ended by SIGKILL" in ran.said
    assert "own process has exited with status 7. It has written:\non its way\n" in ran.said
    assert re.search(r"-- Captured stdout call -+\na program says\n-+ Captured stderr", ran.said)
    assert ": FutureWarning: of something\n" in ran.said
    assert ": UserWarning: OwnWarning: of mine\n" in ran.said
    assert "must be among a test's own fixtures" in ran.said
    written = (tmp_path / "results.xml").read_text()
    assert written.count("<testcase ") == 14


def test_a_process_of_its_own_is_not_seen(tmp_path: Path) -> None:
    code = """
        import os
        import pytest

        @pytest.mark.backends("poll", "select")
        def test_it(libevent_debug_mode, event_base):
            os.write(1, b"on its way;")
            if event_base.method == "select":
                os._exit(7)
            assert False
    """
    ran = pytest_of(tmp_path, code, "-s", "--libevent-table", "--pdb", "--tb=line")
    assert "test_it.py on its way;Fon its way;F\n" in ran.said
    assert ran.said.count("test session starts") == ran.said.count(" FAILURES ") == 1
    assert re.search(r"^test_it\.py::test_it +FAILED +FAILED$", ran.said, re.MULTILINE)


@pytest.mark.slow
def test_a_process_of_its_own_ends_with_the_run(tmp_path: Path) -> None:
    code = """
        import os
        import pathlib
        import signal

        def test_it(libevent_trace, until):
            pathlib.Path("pid").write_text(str(os.getpid()))
            if HUNG:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.killpg(0, signal.SIGINT)
            until(lambda: False, timeout=100)

        def test_later(event_base):
            pathlib.Path("later").touch()
    """
    for hung in False, True:
        file = tmp_path / "test_it.py"
        file.write_text(f"HUNG = {hung}\n" + textwrap.dedent(code))
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        with run:
            assert b"KeyboardInterrupt" in run.communicate(timeout=PATIENCE)[0]
        assert run.returncode == pytest.ExitCode.INTERRUPTED
        assert not Path("/proc", (tmp_path / "pid").read_text()).exists()
        (tmp_path / "pid").unlink()
    assert not (tmp_path / "later").exists()


def test_a_process_of_its_own_may_end_the_run(tmp_path: Path) -> None:
    code = """
        import pytest

        def test_exit(libevent_debug_mode):
            pytest.exit("enough", 7)

        def test_later():
            pass
    """
    ran = pytest_of(tmp_path, code)
    assert ran.status == 7
    assert "Exit: enough" in ran.said
    assert ran.outcomes == {}


@pytest.mark.more
def test_a_process_of_its_own_has_the_arguments_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import pytest\npytest.main(['test_it.py', '-n1', '-rA', '-p', 'no:cacheprovider'])\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(libevent_debug_mode): pass\n")
    done = subprocess.run(
        [sys.executable, "script.py", "--own"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "PASSED test_it.py::test_it" in done.stdout


def test_how_a_process_has_ended_is_told_in_words() -> None:
    assert ended(-9) == "was ended by SIGKILL"
    assert ended(128 + 6) == "was ended by SIGABRT"
    assert ended(7) == "has exited with status 7"
