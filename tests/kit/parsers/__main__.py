"""Run targets: ``python -m tests.kit.parsers TARGET… --minutes N --seed S``, or all of them.

On the build "fuzz" of libevent, as by ``make fuzz-parsers``, atheris leads the inputs to what has
not been reached yet, in C and in Python. Elsewhere they are changed at random. A fault ends the
target; what it prints last says how to run its input again.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: How long one input may take, in seconds, and how many bytes it may have.
PATIENCE = 60
LONGEST = 3000

#: Atheris works only with its own libFuzzer loaded before all else.
LED = "with_fuzzer" in os.environ.get("LD_PRELOAD", "")


def fuzz(name: str, minutes: float, seed: int, corpus: Path) -> None:
    """Have atheris run the target: it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["libevent_py"]):
        from tests.kit.parsers.checked import Checked
        from tests.kit.parsers.targets import TARGETS

    place = corpus / name
    place.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(TARGETS[name].seeds):
        (place / f"seed-{number}").write_bytes(data)
    faults = corpus.parent / f"fault-{name}-"
    options = {
        "max_total_time": round(60 * minutes),
        "seed": seed,
        "timeout": PATIENCE,
        "max_len": LONGEST,
        "rss_limit_mb": 0,
        "detect_leaks": 0,  # each input is asked for what it leaves
        "print_final_stats": 1,
        "artifact_prefix": faults,
    }
    told = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *told, str(place)], Checked(TARGETS[name].target))
    atheris.Fuzz()


def walk(name: str, minutes: float, inputs: int, seed: int) -> None:
    """Run the target on its seeds, and on these changed at random."""
    from tests.kit.parsers.checked import Checked
    from tests.kit.parsers.inputs import changed
    from tests.kit.parsers.targets import TARGETS

    aim, chance, count = TARGETS[name], random.Random(seed), 0
    run = Checked(aim.target)
    end = time.monotonic() + 60 * minutes
    while count < inputs if inputs else time.monotonic() < end:
        data = aim.seeds[count] if count < len(aim.seeds) else changed(chance, aim.seeds)
        count += 1
        try:
            run(data)
        except BaseException:
            fault = Path(tempfile.gettempdir(), f"fault-{name}")
            fault.write_bytes(data)
            print(f"python -m tests.kit.parsers {name} --replay {fault}", flush=True)
            raise
    print(f"{name}: {count} inputs")


def replay(name: str, file: Path) -> None:
    """Run the target on the content of *file*."""
    from tests.kit.parsers.checked import Checked
    from tests.kit.parsers.targets import TARGETS

    Checked(TARGETS[name].target)(file.read_bytes())
    print(f"{name}: it is well")


def main() -> None:
    parser = argparse.ArgumentParser(description="Give the parsers whatever bytes there are.")
    parser.add_argument("target", nargs="+", help="which, or all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--inputs", type=int, default=0, help="as many, at random, and no more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="what has been found is kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input alone")
    chosen = parser.parse_args()
    targets = chosen.target
    if targets == ["all"] or len(targets) > 1:
        sys.exit(each(targets, chosen))
    (name,) = targets
    if chosen.replay:
        replay(name, chosen.replay)
        return
    with tempfile.TemporaryDirectory() as place:
        corpus = chosen.corpus or Path(place, "corpus")
        if LED and not chosen.inputs:
            fuzz(name, chosen.minutes, chosen.seed % 2**32, corpus)
        else:
            walk(name, chosen.minutes, chosen.inputs, chosen.seed)


def each(targets: list[str], chosen: argparse.Namespace) -> int:
    """Run each of several targets in a process of its own; return how many have found a fault."""
    if targets == ["all"]:
        from tests.kit.parsers.targets import TARGETS

        targets = list(TARGETS)
    options = ["--minutes", str(chosen.minutes), "--seed", str(chosen.seed)]
    options += ["--inputs", str(chosen.inputs)]
    if chosen.corpus:
        options += ["--corpus", str(chosen.corpus)]
    failed = 0
    for name in targets:
        print(f"{name}:", flush=True)
        command = [sys.executable, "-m", "tests.kit.parsers", name, *options]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    main()
