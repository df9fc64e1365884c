"""Scripts under valgrind: one Python starts there, imports the package, and forks for each of them.

Starting Python takes ten seconds under valgrind, a fork no time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit.forking import Done, Forking

#: An access to memory that isn't its own is an error of a program, and then its exit status.
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--undef-value-errors=no"]

#: What is set there: Python is to allocate by malloc, which valgrind watches, and glibc not to
#: compare wide strings faster than valgrind understands.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-EVEX,-AVX512VL",
    "PYTHONMALLOC": "malloc",
}

#: What it imports for all, as many scripts are of what test modules have.
IMPORTED = ["libevent_py", "tests.kit.scenes", "tests.kit.http_peers"]


class Valgrind(Forking):
    """A Python under valgrind that forks for scripts."""

    def __init__(self, options: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        command = [*VALGRIND, "--log-file={path}/%p.valgrind", sys.executable, *options]
        super().__init__(command, IMPORTED, root, environment)

    def run(
        self, code: str, arguments: Sequence[str], environment: Mapping[str, str], patience: float
    ) -> Done:
        """Run the script *code* in a child; what valgrind has to say is told as its errors are."""
        done = super().run(code, arguments, environment, patience)
        told = done.stderr
        for log in sorted(self.path.glob("*.valgrind")):
            if log.stem != str(self.pid):
                told += log.read_text(errors="replace")
                log.unlink()
        return done._replace(stderr=told)
