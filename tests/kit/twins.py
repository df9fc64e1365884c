"""A sample and its twin in C under the same client: what each calls, prints and frees.

A scenario is what the client does, as short as it can be and still reach most of the program. What
happens in it may not depend on the time, for the two traces are to be the same.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libevent_py._cli import compare, known
from tests.kit.certificates import Authority
from tests.kit.samples import Sample, Server
from tests.kit.support import PATIENCE, ROOT, SANITIZED

#: Each error and each leak is told, and makes the exit status another one.
VALGRIND = [
    *("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"),
    *("--show-leak-kinds=all", "--errors-for-leak-kinds=all", "--num-callers=30"),
    f"--suppressions={ROOT}/tests/kit/twins.supp",
]

#: Where the differences are that are known of one scenario alone.
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
    authority: Authority

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


def traced(
    name: str, scenario: Scenario, place: Path, authority: Authority
) -> Iterator[tuple[Path, bytes]]:
    """Yield the trace of a sample in that scenario, and what it has printed; then its twin's."""
    with target() as listening:
        for language in ("python", "c"):
            file = place / f"{name}.{language}"
            under = [sys.executable, "-m", "libevent_py", "trace", "-o", str(file)]
            printed = scenario(Run(name, language, under, listening, authority))
            yield file, PORT.sub(rb"\1PORT", printed)


def check_alike(key: str, scenario: Scenario, place: Path, authority: Authority) -> None:
    """Compare what a sample and its twin call and print; the first word of *key* is its name."""
    (python, said), (c, twin_said) = traced(sample_of(key), scenario, place, authority)
    said = ERRNO.sub(b"", said)
    assert twin_said == said, f"{twin_said!r}\n{said!r}"
    own = KNOWN / f"{key.replace(' ', '_')}.toml"
    differences = known.read(own) if own.exists() else []
    found = list(compare.differing(python, c, [*known.read(known.PORT), *differences]))
    assert not found, "\n".join(found)
    check_needed(differences, python, c)


def sample_of(key: str) -> str:
    """Return the name of the sample that the scenario *key* is for."""
    return key.partition(" ")[0]


def check_needed(differences: list[known.Known], python: Path, c: Path) -> None:
    """See to it that each of the *differences* is there: without it, the traces are not alike."""
    for n, each in enumerate(differences):
        others = [*known.read(known.PORT), *differences[:n], *differences[n + 1 :]]
        assert list(compare.differing(python, c, others)), f"it is not needed: {each}"


def check_clean(key: str, scenario: Scenario, authority: Authority) -> None:
    """Run the twin under valgrind, which finds no error and nothing that isn't freed."""
    if SANITIZED:
        pytest.skip("valgrind can't run with a sanitizer")
    with target() as listening:
        scenario(Run(sample_of(key), "c", VALGRIND, listening, authority))


def sampled(scenarios: Iterable[str], always: set[str]) -> list[Any]:
    """Return the parameters of a test that is run for *always*, and for the others by make more."""
    return [pytest.param(key, marks=() if key in always else pytest.mark.more) for key in scenarios]
