"""``python -m benchmarks``: run the jobs, print their tables, write the samples as JSON."""

import argparse
import json
import resource
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.build import PROGRAMS, build
from benchmarks.jobs import JOBS
from benchmarks.machine import facts
from benchmarks.plot import plot
from benchmarks.process import CPUS
from benchmarks.progress import Progress
from benchmarks.report import figures, table
from benchmarks.runner import missing_packages, missing_tools, run, taking_part


def main() -> None:
    options = parse()
    jobs = [job for job in JOBS if job.name.startswith(tuple(options.job or [""]))]
    if not jobs:
        sys.exit(f"benchmarks: no job is called {' or '.join(options.job)}: see --list")
    if options.plot and not find_spec("matplotlib"):
        sys.exit("benchmarks: --plot needs matplotlib, which is not installed")
    if options.drawn_from:
        if not options.plot:
            sys.exit("benchmarks: --drawn-from needs --plot")
        plot(earlier(options.drawn_from, {job.name for job in jobs}), options.plot)
        return
    if options.list:
        print(*(f"{job.name:24} {job.title}" for job in jobs), sep="\n")
        return

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))  # ends the contenders
    allow_descriptors(12_000)
    build()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine, missing = facts(), missing_packages(jobs)
    results: list[dict[str, Any]] = []
    print(*(f"{name}: {fact}" for name, fact in machine.items()), sep="\n", end="\n\n")
    for package in missing:
        print(f"LEFT OUT: {package}, which is not installed (pip install {package})\n")
    for tool in (tools := missing_tools(jobs)):
        print(f"LEFT OUT: jobs with {tool}, which is not installed (apt-get install {tool})\n")
    if len(CPUS) < 2:
        print("ONE CORE: the load takes its time from the servers it measures\n")

    start = time.monotonic()
    rounds = [
        (job, options.rounds or (1 if options.quick else job.rounds))
        for job in jobs
        if job.measure.tool not in tools
    ]
    total = sum(number * len(taking_part(job, missing)) for job, number in rounds)
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "quick": options.quick}
    report |= {"jobs": results, "missing": [*missing, *tools]}
    with Progress("benchmarks", total, "samples") as progress:
        for job, number in rounds:
            results.append(figures(job, run(job, number, options.quick, missing, progress)))
            progress.say(table(results[-1]))
            # After each, so that a run that is cut short isn't lost.
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(report, options.plot)
    print(f"{time.monotonic() - start:.0f} s; every sample is in {options.json}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--job", action="append", metavar="NAME", help="only jobs whose names begin so; repeatable"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="samples of each contender")
    parser.add_argument("--quick", action="store_true", help="to see that all works; no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", default=PROGRAMS / "result.json")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the costs as bars and curves, as SVG"
    )
    parser.add_argument(
        "--drawn-from",
        type=Path,
        metavar="JSON",
        help="with --plot: the FILE of an earlier run",
    )
    parser.add_argument("--list", action="store_true", help="say which jobs there are")
    return parser.parse_args()


def earlier(path: Path, names: set[str]) -> dict[str, Any]:
    """Return the report of an earlier run, with the jobs called *names* that it has."""
    report: dict[str, Any] = json.loads(path.read_text())
    report["jobs"] = [job for job in report["jobs"] if job["job"] in names]
    if not report["jobs"]:
        sys.exit(f"benchmarks: {path} has no samples of {', '.join(sorted(names))}")
    return report


def allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


main()
