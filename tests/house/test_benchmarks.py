"""The benchmarks run, every job and contender of them. How long things take is not asserted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# They read /proc and pin processes to processors, and say so: elsewhere there is nothing to run.
if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks are for Linux", allow_module_level=True)

from benchmarks import tracing
from benchmarks.jobs import JOBS, Job
from benchmarks.measures import Ask, not_empty
from benchmarks.plot import bars, caption, curve_of, curves
from benchmarks.process import Sample
from benchmarks.report import figures, table
from benchmarks.runner import missing_packages, missing_tools, taking_part
from tests.kit.once import once
from tests.kit.support import PATIENCE, ROOT

#: What a quick run prints and writes, and of which jobs.
Quick = tuple[str, dict[str, Any], list[Job]]

RAW_ECHO = next(job for job in JOBS if job.name == "raw-echo-64B")
PACKAGES = {
    *("aiohttp", "asyncio", "granian", "httptools", "libevent_py", "uvicorn", "uvloop"),
    "waitress",
}
#: Those that `make test` runs, where `make more` runs all: one of each kind.
SAMPLE = ("dispatch", "raw-echo-64B", "http-hello-32")


def packages(jobs: list[Job]) -> set[str]:
    """Return what the contenders of *jobs* want to be installed."""
    return {name for job in jobs for contender in job.contenders for name in contender.packages}


def done(jobs: list[Job]) -> list[Job]:
    """Return those of *jobs* for which no program is missing here."""
    tools = missing_tools(jobs)
    return [job for job in jobs if job.measure.tool not in tools]


def benchmarks(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    ).stdout


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.more)])
def quick(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Quick:
    """What a quick run prints, and what it writes."""
    chosen = [] if request.param == "all" else [f"--job={name}" for name in SAMPLE]

    def make(place: Path) -> None:
        printed = benchmarks("--quick", "--json", str(place / "result.json"), *chosen)
        (place / "printed").write_text(printed)

    place = once(tmp_path_factory, f"benchmarks-{request.param}", make)
    jobs = [job for job in JOBS if not chosen or job.name in SAMPLE]
    return (place / "printed").read_text(), json.loads((place / "result.json").read_text()), jobs


def test_the_list_names_every_job() -> None:
    assert [line.split()[0] for line in benchmarks("--list").splitlines()] == [j.name for j in JOBS]


def test_the_contenders_want_what_is_known() -> None:
    assert packages(list(JOBS)) == PACKAGES


def test_every_job_gives_a_result_and_a_table(quick: Quick) -> None:
    printed, report, jobs = quick
    assert [result["job"] for result in report["jobs"]] == [job.name for job in done(jobs)]
    for result in report["jobs"]:
        assert table(result) in printed


def test_every_contender_whose_package_is_there_takes_part_and_the_others_are_named(
    quick: Quick,
) -> None:
    printed, report, jobs = quick
    missing = {package for package in packages(jobs) if not find_spec(package)}
    tools = missing_tools(jobs)
    assert set(report["missing"]) == {*missing, *tools}
    for package in missing:
        assert f"LEFT OUT: {package}" in printed
    for tool in tools:
        assert f"LEFT OUT: jobs with {tool}" in printed
    for job, result in zip(done(jobs), report["jobs"], strict=True):
        expected = [c.name for c in job.contenders if not missing.intersection(c.packages)]
        assert [row["contender"] for row in result["contenders"]] == expected


def test_every_sample_counts_what_was_done(quick: Quick) -> None:
    _, report, jobs = quick
    for job, result in zip(done(jobs), report["jobs"], strict=True):
        for row in result["contenders"]:
            (sample,) = row["samples"]
            assert sample.keys() == {"amount", "operations"}
            assert sample["operations"] > 0
            if isinstance(job.measure, Ask) and job.name != "persistent-timers":
                assert sample["operations"] == job.measure.quick_count


def test_a_sample_in_which_nothing_was_done_is_taken_again_for_longer() -> None:
    tried: list[int] = []

    def take(longer: int) -> Sample:
        tried.append(longer)
        return Sample(longer, 7 * (longer == 4))

    assert not_empty(take) == Sample(4, 7)
    assert tried == [1, 2, 4]
    with pytest.raises(TimeoutError, match="nothing was done"):
        not_empty(lambda longer: Sample(longer, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGINT,
        *(pytest.param(one, marks=pytest.mark.more) for one in (signal.SIGTERM, signal.SIGKILL)),
    ],
)
def test_no_contender_outlives_the_runner(signum: signal.Signals) -> None:
    command = [sys.executable, "-m", "benchmarks", "--job", "raw-echo-64B", "--rounds", "10000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as runner:
        try:
            servers = len(taking_part(RAW_ECHO, missing_packages(JOBS)))
            wait_until(lambda: len(running_children(runner.pid)) > servers)  # the load is on
            contenders = running_children(runner.pid)
            runner.send_signal(signum)
            runner.wait(timeout=30)
        finally:
            runner.kill()
    wait_until(lambda: not any(map(runs, contenders)))


def running_children(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if runs(child)]


def runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_jobs_and_rounds_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    benchmarks(
        "--quick", "--job", "disp", "--job", "idle-read", "--rounds", "3", "--json", str(file)
    )
    results = json.loads(file.read_text())["jobs"]
    assert [r["job"] for r in results] == ["dispatch", "idle-read-python", "idle-read-resident"]
    for result in results:
        assert {len(row["samples"]) for row in result["contenders"]} == {3}


def test_what_it_was_measured_on_is_written_with_the_samples(quick: Quick) -> None:
    _, report, _ = quick
    machine = report["machine"]
    assert machine["libevent"] == machine["libevent in the package"]
    assert machine["method"] == machine["method in the package"]
    assert machine["cores"] >= 1
    assert report["quick"] is True


def test_ratios_are_of_the_same_round_and_then_their_median() -> None:
    job = next(job for job in JOBS if job.name == "dispatch")
    samples = {
        "C": [Sample(100, 10), Sample(200, 10), Sample(100, 10)],
        "libevent_py": [Sample(3000, 10), Sample(4000, 10), Sample(5000, 10)],
        "asyncio": [Sample(10, 10)] * 3,
    }
    result = figures(job, samples)
    c, libevent_py, asyncio = result["contenders"]
    assert (c["median"], c["to_c"], c["beyond_c"]) == (10, 1, 0)
    assert (libevent_py["median"], libevent_py["spread"]) == (400, 100)
    assert (libevent_py["to_c"], libevent_py["beyond_c"]) == (30, 380)
    assert (asyncio["spread"], asyncio["to_uvloop"], asyncio["per_second"]) == (0, None, 1e9)
    assert result["bars"] == [
        {"contender": "libevent_py", "column": "beyond_c", "limit": 500.0, "value": 380}
    ]


@pytest.mark.more
def test_what_a_traced_call_costs_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing, "FEW", 10)
    monkeypatch.setattr(tracing, "MANY", 60)
    monkeypatch.setattr(tracing, "ROUNDS", 1)
    monkeypatch.chdir(ROOT)
    tracing.main()
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Python: -?[\d.]+ us a traced call .*, 6 calls a message", told[0])
    assert re.fullmatch(r"C: -?[\d.]+ us a traced call .*, 5 calls a message", told[1])


def test_curves_are_made_of_the_jobs_that_differ_in_their_connections() -> None:
    results = [
        {"job": f"scale-echo-{count}", "contenders": [{"contender": "C", "median": 1000.0 * count}]}
        for count in (1000, 10)
    ]
    results.append({"job": "raw-echo-64B", "contenders": []})
    assert curves(results) == {"scale-echo": {"C": [(1000, 1000.0), (10, 10.0)]}}
    results[-1]["contenders"] = [{"contender": "C", "median": 1.0, "spread": 0.5, "samples": []}]
    assert bars(results) == {"raw-echo-64B": [("C", 1.0, 0.5)]}
    assert {curve_of(job.name) for job in JOBS} >= {("scale-echo", 10_000), ("scale-hello", 10)}


def test_a_plot_is_drawn_or_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(tmp_path / "json")]
    command += ["--plot", str(tmp_path / "made" / "plot.svg"), "--job"]
    done = subprocess.run(
        [*command, "scale-echo-10"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    if find_spec("matplotlib"):
        assert done.returncode == 0
        assert "</svg>" in (tmp_path / "made" / "plot.svg").read_text()
    else:
        assert done.returncode == 1
        assert "matplotlib, which is not installed" in done.stderr
    if find_spec("matplotlib"):
        again = [sys.executable, "-m", "benchmarks", "--drawn-from", str(tmp_path / "json")]
        for job, said in (("scale-echo-10", ""), ("timers", "has no samples of timers")):
            drawn = tmp_path / f"{job}.svg"
            done = subprocess.run(
                [*again, "--plot", str(drawn), "--job", job],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert (done.returncode == 0) == drawn.exists() == (not said)
            assert said in done.stderr


def test_a_picture_says_when_and_on_what_it_was_measured() -> None:
    machine = {"platform": "Linux", "processor": "Fast", "cores": 2, "python": "CPython 3"}
    said = caption({"date": "2026-01-02", "machine": machine | {"libevent": "2.1.12-stable"}})
    assert said.endswith(". 2026-01-02, Linux, Fast, 2 cores, CPython 3, libevent 2.1.12-stable")


def test_what_took_no_time_by_the_clock_has_no_rate() -> None:
    result = figures(RAW_ECHO, {"C": [Sample(0, 5)], "uvloop": [Sample(10, 5)]})
    assert [row["per_second"] for row in result["contenders"]] == [None, 5e8]
