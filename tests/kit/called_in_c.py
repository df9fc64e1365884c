"""Tell which functions of C each operation of a public class calls: a program that is traced.

``libevent-py trace -o FILE tests/kit/called_in_c.py FILE`` prints them as JSON. An operation is
tried in the first scene of its class; what its own calls cause in callbacks is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO

# It is run as a file, by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from libevent_py._cli.trace import parsed
from tests.kit.operations import OPERATIONS
from tests.kit.scenes import SCENES
from tests.kit.sweep import Try


def calls_of(kind: str, scene: str, name: str, trace: BinaryIO) -> list[str]:
    """Return what the operation calls by itself, in the order of its first calls."""
    one = Try(kind, scene, name, "drop")
    lines: list[str] = []

    def call() -> None:
        trace.seek(0, 2)
        try:
            one.result = one.operation(one.scene)
        except BaseException as error:
            one.outcome = error
        lines.extend(trace.read().decode(errors="replace").splitlines())

    one.scene.enter(call)
    one.finish()
    depths = [len(line) - len(line.lstrip(" ")) for line in lines]
    outermost = min(depths, default=0)
    found = [
        str(told["call"])
        for depth, line in zip(depths, lines, strict=True)
        if depth == outermost and "call" in (told := parsed(line))
    ]
    return list(dict.fromkeys(found))


def main() -> None:
    """Try all operations, and print what they have called."""
    with open(sys.argv[1], "rb") as trace:
        found = {
            f"{kind}.{name}": calls_of(kind, next(iter(SCENES[kind])), name, trace)
            for kind, operations in OPERATIONS.items()
            for name in operations
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
