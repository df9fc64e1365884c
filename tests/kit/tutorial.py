"""What runs a page of documentation: its programs as they stand there, and what they print.

A page of `docs/tutorial` has blocks of four kinds:

* ``python``: a program. The block of kind ``text`` that follows is what it prints, to standard
  output and standard error together. It must end with status 0, and it must print something.
* ``python`` whose first line is ``# file: NAME``: a file that later programs of the page may
  import or read. A later block ``# file: NAME, continued`` adds to the end of it.
* ``console``: commands after ``$``, each followed by what it prints. They run in a shell, where the
  files of the page are; each must end with status 0.
* ``sh`` and ``c``: only to read.

Each program runs in a process and a folder of its own, with warnings as errors. The programs make
their own peers, at ports that the system chooses, so that nothing in them is replaced.

``python -m tests.kit.tutorial PAGE ...`` writes what the programs of these pages print into them:
read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.support import PATIENCE, ROOT

TUTORIAL = ROOT / "docs" / "tutorial"

_BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# file: ([\w.]+)(, continued)?\n")
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)

#: Kinds of blocks that are no programs; the first is for Sphinx.
_READ_ONLY = {"{toctree}", "sh", "c"}


class PageError(AssertionError):
    """Say what is wrong with a page, and where."""


@dataclass
class Program:
    """A program of a page, with the files that stand before it there."""

    page: Path
    line: int
    code: str
    prints: str
    #: Where *prints* is in the page, to be replaced.
    place: tuple[int, int]
    console: bool = False
    files: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"

    def run(self) -> str:
        """Run the program, and return what it has printed."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                (Path(folder) / name).write_text(text)
            if self.console:
                return self._in_shell(folder)
            (Path(folder) / "program.py").write_text(self.code)
            return self._printed([*_PYTHON, "program.py"], folder)

    def _in_shell(self, folder: str) -> str:
        printed = ""
        for command, _ in _COMMAND.findall(self.code):
            printed += f"$ {command}\n" + self._printed(["/bin/sh", "-c", command], folder)
        return printed

    def _printed(self, command: list[str], folder: str) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise PageError(f"{self} ended with status {done.returncode}\n{done.stdout}")
        return done.stdout

    def check(self) -> None:
        """Run the program; raise `PageError` unless it prints what the page says."""
        printed = self.run()
        if printed != self.prints:
            raise PageError(f"{self} prints\n{printed}\nbut the page says\n{self.prints}")


_PYTHON = [sys.executable, "-X", "dev", "-W", "error"]


def _environment() -> dict[str, str]:
    """Return an environment in which nothing but the page decides what a program does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EVENT_", "LIBEVENT_PY_", "http_proxy", "HTTP_PROXY", "PYTHON"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT)}


def programs(page: Path) -> list[Program]:
    """Return the programs of *page*; raise `PageError` if a block is not as described above."""
    return list(_programs(page))


def _programs(page: Path) -> Iterator[Program]:
    text = page.read_text()
    fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    if fences != 2 * len(_BLOCK.findall(text)):
        raise PageError(f"{page.stem}: a block has no end, or is indented")
    blocks = list(_BLOCK.finditer(text))
    files: dict[str, str] = {}
    output = None  # the block of what has been printed that was taken last
    for number, block in enumerate(blocks):
        kind, code = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        if kind == "python" and (named := _FILE.match(code)):
            _add_file(files, named, code, f"{page.stem}:{line}")
        elif kind == "python":
            output = blocks[number + 1] if number + 1 < len(blocks) else None
            if output is None or output[1] != "text":
                raise PageError(f"{page.stem}:{line}: the page doesn't say what it prints")
            prints = output[2]
            yield Program(page, line, code, prints, output.span(2), files=dict(files))
        elif kind == "console":
            if _COMMAND.sub("", code):
                raise PageError(f"{page.stem}:{line}: this doesn't begin with a command")
            yield Program(page, line, code, code, block.span(2), console=True, files=dict(files))
        elif kind == "text" and block is not output:
            raise PageError(f"{page.stem}:{line}: no program prints this")
        elif kind not in _READ_ONLY | {"text"}:
            raise PageError(f"{page.stem}:{line}: a block of the kind {kind or 'that is none'}")


def _add_file(files: dict[str, str], named: re.Match[str], code: str, where: str) -> None:
    name, continued = named.groups()
    if bool(continued) > (name in files):
        raise PageError(f"{where}: there is no {name} to be continued")
    files[name] = files[name] + "\n\n" + code[named.end() :].lstrip("\n") if continued else code


def write(page: Path) -> None:
    """Write what the programs of *page* print into it."""
    for program in reversed(programs(page)):
        start, end = program.place
        text = page.read_text()
        page.write_text(text[:start] + program.run() + text[end:])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
