"""Runs of pytest in other processes: a single test, or all of them on another build of libevent.

A test runs apart when it needs what a process can't undo, debug mode, or must have from its start,
the tracer. The child is this pytest once more, with the same arguments; it runs the one test and
writes its reports to a file, as pytest-xdist's workers send theirs. So the test passes, fails or is
skipped here as it did there. The child captures nothing: what it writes, from whatever language,
goes to two files, of which each report gets its part, and which are whole after a crash.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO, TypeAlias

import pytest

from libevent_py import debug, libevent_version
from libevent_py._cli.trace import TraceError, environment, python
from libevent_py.testing.tables import BACKEND, Table
from libevent_py.vulnerabilities import probe

Report: TypeAlias = "pytest.TestReport | pytest.CollectReport"

#: What a child must not do once more: these write files, or choose tests by what has failed.
ONCE = ("lfplugin", "nfplugin", "stepwiseplugin")

#: What a child writes, each to a file.
OUTPUTS = ("stdout", "stderr")

#: How long a child that is interrupted may take to end, in seconds.
GRACE = 3.0


class Child(NamedTuple):
    """What a child is to do, as its option says."""

    node: str
    needs: list[str]
    place: str

    @property
    def reports(self) -> Path:
        """The file for its reports."""
        return Path(self.place, "reports")

    @property
    def trace(self) -> Path:
        """The file for its trace."""
        return Path(self.place, "trace")

    def output(self, name: str) -> Path:
        """Return the file for its stdout or stderr; there is none if nothing is captured."""
        return Path(self.place, name)

    @classmethod
    def of(cls, config: pytest.Config) -> Child | None:
        """Return what this process is to do; None if it is no child."""
        said = config.option.libevent_child
        return cls(*json.loads(said)) if said else None


def configure(config: pytest.Config) -> None:
    """Register what the options ask for."""
    child, results = Child.of(config), config.option.libevent_results
    is_worker = hasattr(config, "workerinput")
    if child is not None:
        config.option.xmlpath = None
        config.option.usepdb = config.option.trace = False  # there is nobody to talk to
        for name in ONCE:
            config.pluginmanager.set_blocked(name)
            plugin = config.pluginmanager.get_plugin(name)
            if plugin is not None:
                config.pluginmanager.unregister(plugin)
        if "debug" in child.needs:
            debug.enable_debug_mode()
        config.pluginmanager.register(Reporter(config, child))
        return
    if results and not is_worker:
        config.pluginmanager.register(Results(results))
        if (cache := getattr(config, "cache", None)) is not None:
            cache.set = lambda key, value: None  # --lf is to choose the same tests the next time
    if config.option.libevent_table and not is_worker:
        config.pluginmanager.register(Table())


def header() -> str:
    """Return which libevent the tests run on, for the top of a run."""
    return f"libevent: {libevent_version}, {probe.files()['event_core']}"


def check_apart(config: pytest.Config, what: str) -> Path:
    """Return the file of the trace; raise unless this test runs apart, with *what*."""
    child = Child.of(config)
    if child is None or what not in child.needs:
        raise RuntimeError(
            "libevent_debug_mode and libevent_trace must be among a test's own fixtures, which are "
            "known before it runs: ask for them as arguments"
        )
    return child.trace


def main(config: pytest.Config) -> int | None:
    """Run the tests on another libevent; None if they, or a child's test, are to run here."""
    child = Child.of(config)
    if child is not None:
        config.args = [child.node]
        return None
    if config.option.libevent_results:
        return None  # a child of a comparison
    try:
        if config.option.libevent_compare and config.option.libevent:
            raise pytest.UsageError("--libevent and --libevent-compare: give one of them")
        if config.option.libevent_compare:
            return compare(config, config.option.libevent_compare)
        directory = config.option.libevent
        if os.environ.get("LD_LIBRARY_PATH", "").split(":")[0] == os.path.abspath(directory):
            return None  # this is the child, which has the same options
        return run(config, environment(directory, None))[0]
    except TraceError as error:
        raise pytest.UsageError(str(error)) from error


def run(config: pytest.Config, environ: Mapping[str, str], *more: str) -> tuple[int, bool]:
    """Run these tests in a child with *environ* and *more* arguments.

    Return its exit status, and whether Ctrl-C has ended it.
    """
    sys.stdout.flush()
    process = subprocess.Popen(
        [*python(), "-m", "pytest", *arguments(config), *more],
        env=environ,
        cwd=config.invocation_params.dir,
    )
    interrupts: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches the child as well; what ends this process is passed on to it.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if status < 0:
        print(f"libevent_py: the tests' process {ended(status)}", file=sys.stderr)
        status = 128 - status
    return status, bool(interrupts) and status != pytest.ExitCode.OK


def arguments(config: pytest.Config) -> list[str]:
    """Return the arguments of this run, without the one that has it run twice.

    ``--libevent DIR`` becomes ``--libevent=DIR``: pytest, which looks for its rootdir before it
    knows the options of plugins, takes the former's DIR for a folder of tests.
    """
    given = getattr(config, "workerinput", {}).get("libevent_arguments")
    left: list[str] = []
    following = iter(map(str, config.invocation_params.args if given is None else given))
    for argument in following:
        if argument == "--libevent-compare":
            next(following, None)
        elif argument == "--libevent":
            left.append(f"--libevent={next(following, '')}")
        elif not argument.startswith("--libevent-compare="):
            left.append(argument)
    return left


# One test in a process of its own.


class Reporter:
    """Write the reports of a child to its file, with what the test has written meanwhile.

    What pytest itself says is shown only if something has gone wrong with it.
    """

    def __init__(self, config: pytest.Config, child: Child) -> None:
        self._config = config
        self._child = child
        self._seen = {name: 0 for name in OUTPUTS if child.output(name).exists()}
        self._said = io.StringIO()
        self._status: int = pytest.ExitCode.OK

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Keep what pytest says."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and not self._config.getini("log_cli"):
            terminal._tw._file = self._said

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Note how it has ended."""
        self._status = exitstatus

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Write that the test has ended the whole run, by `pytest.exit` or as Ctrl-C does."""
        error = excinfo.value
        self._write({"ends": str(error), "returncode": getattr(error, "returncode", None)})
        self._said.truncate(0)

    def pytest_unconfigure(self) -> None:
        """Tell what pytest has said if it could not run the test."""
        if self._status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            sys.stderr.write(self._said.getvalue())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write *report*."""
        for name in self._seen:
            getattr(sys, name).flush()
            with open(self._child.output(name), "rb") as file:
                file.seek(self._seen[name])
                text = file.read().decode(errors="replace")
                self._seen[name] = file.tell()
            if text:
                report.sections.append((f"Captured {name} {report.when}", text))
        self._write(
            self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        )

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Write a warning; those of a collection come here as well."""
        if when == "runtest":
            said = warning_message
            kind = (said.category.__module__, said.category.__qualname__)
            what = (str(said.message), *kind, said.filename, said.lineno)
            self._write({"warning": what, "nodeid": nodeid, "location": location})

    def _write(self, data: object) -> None:
        with open(self._child.reports, "ab") as file:
            pickle.dump(data, file)


def warn(config: pytest.Config, data: Mapping[str, Any]) -> None:
    """Pass on a warning that a child has written."""
    text, module, name, filename, line = data["warning"]
    category: Any = getattr(sys.modules.get(module), name, None)
    try:
        message = category(text)
    except TypeError:  # unknown here, or made from something else
        message, category = UserWarning(f"{name}: {text}"), UserWarning
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={
            "warning_message": warnings.WarningMessage(message, category, filename, line),
            "when": "runtest",
            "nodeid": data["nodeid"],
            "location": data["location"],
        }
    )


def apart(item: pytest.Item, nextitem: pytest.Item | None, needs: Sequence[str]) -> None:
    """Run *item* in a child that has what it *needs*, and report what came of it."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports(item, needs):
        hook.pytest_runtest_logreport(report=report)
    # What is set up here for the tests before, and not needed by the next one.
    torn = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem), when="teardown"
    )
    if torn.excinfo is not None:
        hook.pytest_runtest_logreport(report=hook.pytest_runtest_makereport(item=item, call=torn))
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def reports(item: pytest.Item, needs: Sequence[str]) -> Iterator[Report]:
    """Run *item* in a child; yield its reports, and one more if the child ended too early."""
    config = item.config
    with tempfile.TemporaryDirectory(prefix="libevent_py-") as place:
        child = Child(os.path.join(config.rootpath, item.nodeid), list(needs), place)
        child.reports.touch()
        child.trace.touch()
        status = start(config, child)
        when = ""
        for data in dumped(child.reports):
            if "warning" in data:
                warn(config, data)
                continue
            if "ends" in data:
                pytest.exit(data["ends"] or f"{item.nodeid} was interrupted", data["returncode"])
            report = config.hook.pytest_report_from_serializable(config=config, data=data)
            when = report.when
            yield report
        written = "".join(
            child.output(name).read_text(errors="replace")
            for name in OUTPUTS
            if child.output(name).exists()
        )
    if when != "teardown":
        yield pytest.TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            "failed",
            f"the test's own process {ended(status)}. It has written:\n{written}",
            "call",
            user_properties=named_backend(item),
        )


def named_backend(item: pytest.Item) -> list[tuple[str, object]]:
    """Return what `libevent_backend` would have noted of *item*, for the table."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return [(BACKEND, params[BACKEND])] if BACKEND in params else []


def start(config: pytest.Config, child: Child) -> int:
    """Run *child* to its end; return its exit status."""
    more = [f"--libevent-child={json.dumps(child)}", "--capture=no"]
    if config.pluginmanager.hasplugin("xdist"):
        more += ["-n0", "--dist=no"]
    if config.getoption("basetemp", None):  # pytest empties that
        base = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        more.append(f"--basetemp={base / Path(child.place).name}")
    tracer = ["-m", "libevent_py", "trace", "-o", str(child.trace)]
    command = [
        *python(),
        *(tracer if "trace" in child.needs else []),
        str(Path(__file__).with_name("child.py")),
        *arguments(config),
        *more,
    ]
    with contextlib.ExitStack() as stack:
        sinks: list[IO[bytes] | None] = [None, None]
        if config.option.capture == "no":
            sys.stdout.flush()
        else:
            sinks = [stack.enter_context(open(child.output(name), "ab")) for name in OUTPUTS]
        process = subprocess.Popen(
            command,
            cwd=config.invocation_params.dir,
            stdin=subprocess.DEVNULL,
            stdout=sinks[0],
            stderr=sinks[1],
        )
        try:
            return process.wait()
        except BaseException:  # Ctrl-C has reached the child as well: it takes down its fixtures
            end(process)
            raise


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait until *process* has ended, but not for long."""
    for stop in (process.terminate, process.kill, process.wait):
        try:
            process.wait(GRACE)
            return
        except subprocess.TimeoutExpired:
            stop()


def dumped(file: Path) -> Iterator[dict[str, Any]]:
    """Yield what a child has written to *file*, up to where it was cut off."""
    with open(file, "rb") as source, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(source)


def ended(status: int) -> str:
    """Return how a process with this exit status has ended, in words."""
    number = -status if status < 0 else status - 128  # the tracer's, of the program's signal
    if status < 0 or number in set(signal.Signals):
        return f"was ended by {signal.Signals(number).name}"
    return f"has exited with status {status}"


# All tests on two builds of libevent.


class Results:
    """Write what has come of each test to a file, for the process that compares."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst of a test's reports."""
        outcome, _ = self._found.get(report.nodeid, ("", ""))
        if report.failed and outcome != "failed":
            self._found[report.nodeid] = ("failed", brief(report))
        elif report.skipped or (report.when == "call" and not outcome):
            self._found.setdefault(report.nodeid, (report.outcome, brief(report)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what can't be collected."""
        if report.failed:
            self._found[report.nodeid] = ("failed", brief(report))

    def pytest_sessionfinish(self) -> None:
        """Write all that there is, with the version of libevent."""
        with open(self._path, "w") as file:
            json.dump({"version": libevent_version, "found": self._found}, file)


def brief(report: Report) -> str:
    """Return what a failed report says, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext if report.failed else ""
    return str(text).strip().partition("\n")[0]


def compare(config: pytest.Config, directory: str) -> int:
    """Run the tests on the libevent in use and on the one in *directory*; tell what differs."""
    environs = [dict(os.environ), environment(directory, None)]
    found: list[dict[str, tuple[str, str]]] = []
    names: list[str] = []
    statuses = []
    with tempfile.TemporaryDirectory(prefix="libevent_py-") as place:
        for number, environ in enumerate(environs):
            file = Path(place, str(number))
            status, interrupted = run(config, environ, f"--libevent-results={file}")
            if interrupted:
                return status
            if not file.exists():
                print(f"libevent_py: the run has ended with status {status}", file=sys.stderr)
                return status or pytest.ExitCode.INTERNAL_ERROR
            statuses.append(status)
            said = json.loads(file.read_text())
            names.append(said["version"])
            found.append({node: tuple(what) for node, what in said["found"].items()})
    names[1] += f" in {directory}"
    same = tell(found, names, sys.stdout)
    return next((status for status in statuses if status), 0) or (0 if same else 1)


def tell(
    found: Sequence[Mapping[str, tuple[str, str]]], names: Sequence[str], sink: TextIO
) -> bool:
    """Write how two runs differ; return whether they don't."""
    missing = ("not run", "")
    nodes = dict.fromkeys([*found[0], *found[1]])
    lines = []
    for node in nodes:
        one, other = (each.get(node, missing) for each in found)
        if one[0] != other[0] or (one[0] == "failed" and lasting(one[1]) != lasting(other[1])):
            lines += [node, f"  {names[0]}: {worded(one)}", f"  {names[1]}: {worded(other)}"]
    print(f"{'=' * 10} libevent {names[0]} and {names[1]} {'=' * 10}", *lines, sep="\n", file=sink)
    differ = len(lines) // 3
    print(f"{len(nodes) - differ} tests are the same, {differ} differ", file=sink)
    return not differ


def lasting(text: str) -> str:
    """Return *text* without addresses, which are others in each run."""
    return re.sub(r"\b0x[0-9a-f]+", "0x", text)


def worded(what: tuple[str, str]) -> str:
    """Return what has come of a test, with the reason of a failure."""
    outcome, text = what
    return f"{outcome}: {text}" if text and outcome == "failed" else outcome
