"""A sample and its twin in C under the same client: what each calls, prints and frees.

A scenario is what the client does, as short as it can be and still reach most of the program. What
happens in it may not depend on the time, for the two traces are to be the same.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from libevent_py._cli import compare, known
from tests.kit.samples import Sample, Server
from tests.kit.support import PATIENCE, ROOT

#: Each error and each leak is told, and makes the exit status another one.
VALGRIND = [
    *("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"),
    *("--show-leak-kinds=all", "--errors-for-leak-kinds=all", "--num-callers=30"),
    f"--suppressions={ROOT}/tests/kit/twins.supp",
]

#: Where the differences are that are known of one sample alone: NAME.toml.
KNOWN = ROOT / "tests" / "samples" / "known"

#: What is printed of ports, which differ each time.
PORT = re.compile(rb"(127\.0\.0\.1[: ])\d+")


class Run(NamedTuple):
    """How a scenario runs its sample: in which language, and under what.

    A sample that is a client, or a relay, may connect to *target*.
    """

    name: str
    language: str
    under: list[str]
    target: socket.socket

    @property
    def port(self) -> int:
        """The port of `target`, the same one for a sample and for its twin."""
        return int(self.target.getsockname()[1])

    def accepted(self) -> socket.socket:
        """Return the sample's connection to `target`."""
        sock, _ = self.target.accept()
        sock.settimeout(PATIENCE)
        return sock

    def sample(self, *arguments: object, **options: Any) -> Sample:
        return Sample(self.name, *arguments, language=self.language, under=self.under, **options)

    def server(self, *arguments: object, **options: Any) -> Server:
        return Server(self.name, *arguments, language=self.language, under=self.under, **options)


#: What Python puts before the text of an error.
ERRNO = re.compile(rb"\[Errno \d+\] ")

#: What a client does; the result is what the sample has printed.
Scenario = Callable[[Run], bytes]


@contextmanager
def target() -> Iterator[socket.socket]:
    """Give a socket that samples may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def traced(name: str, scenario: Scenario, place: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the trace of a sample in that scenario, and what it has printed; then its twin's."""
    with target() as listening:
        for language in ("python", "c"):
            file = place / f"{name}.{language}"
            under = [sys.executable, "-m", "libevent_py", "trace", "-o", str(file)]
            printed = scenario(Run(name, language, under, listening))
            yield file, PORT.sub(rb"\1PORT", printed)


def check_alike(name: str, scenario: Scenario, place: Path) -> None:
    """Compare what a sample and its twin call and print."""
    (python, said), (c, twin_said) = traced(name, scenario, place)
    said = ERRNO.sub(b"", said)
    assert twin_said == said, f"{twin_said!r}\n{said!r}"
    own = KNOWN / f"{name}.toml"
    differences = known.read(known.PORT) + (known.read(own) if own.exists() else [])
    found = list(compare.differing(python, c, differences))
    assert not found, "\n".join(found)
    if own.exists():
        check_needed(known.read(own), python, c)


def check_needed(differences: list[known.Known], python: Path, c: Path) -> None:
    """See to it that each difference that is known is there."""
    for each in differences:
        for path, side in ((python, "a"), (c, "b")):
            lines = list(compare.told(compare.read(path)))
            if known.without(lines, [*known.read(known.PORT), each], side) != known.without(
                lines, known.read(known.PORT), side
            ):
                break
        else:
            raise AssertionError(f"not to be found: {each}")


def check_clean(name: str, scenario: Scenario) -> None:
    """Run the twin under valgrind, which finds no error and nothing that isn't freed."""
    with target() as listening:
        scenario(Run(name, "c", VALGRIND, listening))
