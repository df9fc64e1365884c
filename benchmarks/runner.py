"""Run a job: every contender is up at once, and each round takes one sample of each, shuffled."""

import random
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.util import find_spec
from shutil import which

from benchmarks.jobs import Contender, Job
from benchmarks.process import Process, Sample
from benchmarks.progress import Progress


def missing_packages(jobs: Iterable[Job]) -> list[str]:
    packages = {name for job in jobs for contender in job.contenders for name in contender.packages}
    return sorted(package for package in packages if not find_spec(package))


def missing_tools(jobs: Iterable[Job]) -> list[str]:
    return sorted(tool for tool in {job.measure.tool for job in jobs} if tool and not which(tool))


def taking_part(job: Job, missing: list[str]) -> list[Contender]:
    return [c for c in job.contenders if not set(c.packages) & set(missing)]


def run(
    job: Job, rounds: int, quick: bool, missing: list[str], progress: Progress
) -> dict[str, list[Sample]]:
    """Return the samples of each contender, one for each round; *progress* counts them."""
    contenders = taking_part(job, missing)
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}

    with ExitStack() as running:

        def start(contender: Contender, during: ExitStack = running) -> Process:
            return during.enter_context(Process(contender.name, contender.command))

        processes = {} if job.fresh else {c.name: start(c) for c in contenders}
        for process in processes.values():
            job.measure.sample(process, quick=True)  # to warm it up; not kept
        for _ in range(rounds):
            for contender in random.sample(contenders, len(contenders)):
                with ExitStack() as this_round:
                    process = processes.get(contender.name) or start(contender, this_round)
                    progress.add(0, f"{job.name}: {contender.name}")
                    samples[contender.name].append(job.measure.sample(process, quick))
                    progress.add(1)
    return samples
