"""The calls to libevent that a test makes, as objects: see ``python -m libevent_py trace``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from libevent_py._cli.trace import is_named, parsed


class TracedCall(NamedTuple):
    """A call to a function of libevent's."""

    #: Which function it is, as ``"event_add"``.
    name: str
    #: As C writes them, ``ev#1`` or ``"text"``; those that the call has filled in come last.
    args: tuple[str, ...]
    #: None if there is none, or the call has not returned yet.
    result: str | None
    #: How many callbacks it is inside of.
    depth: int

    def __str__(self) -> str:
        result = "" if self.result is None else f" = {self.result}"
        return f"{self.name}({', '.join(self.args)}){result}"


class LibeventTrace:
    """The calls to libevent in this process that the trace in *path* tells, from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.clear()

    def clear(self) -> None:
        """Forget the calls so far."""
        self._begin = self._path.stat().st_size

    @property
    def lines(self) -> list[str]:
        """The lines of the trace so far."""
        with open(self._path, "rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace").splitlines()

    def calls(self, *names: str) -> list[TracedCall]:
        """Return the calls so far, in the order in which they began; of *names*, if given.

        A name may be a function's, a family such as ``evbuffer``, or have wildcards.
        """
        found: list[TracedCall] = []
        begun: list[int] = []
        for line in self.lines:
            said = parsed(line)
            args = tuple(map(str, said.get("args", ())))  # type: ignore[call-overload]
            result = said.get("result")
            if "call" in said:
                if said.get("unfinished"):
                    begun.append(len(found))
                depth = (len(line) - len(line.lstrip(" "))) // 2
                text = None if result is None else str(result)
                found.append(TracedCall(str(said["call"]), args, text, depth))
            elif "resumed" in said:
                # Of several threads, the last to begin is not always the first to end.
                at = next((i for i in reversed(begun) if found[i].name == said["resumed"]), None)
                if at is None:
                    continue
                begun.remove(at)
                text = None if result is None else str(result)
                found[at] = found[at]._replace(args=found[at].args + args, result=text)
        return [
            call for call in found if not names or any(is_named(call.name, name) for name in names)
        ]

    def callbacks(self) -> list[str]:
        """Return the callbacks that have begun so far, as ``on_read(bev#1)``, in their order."""
        return re.findall(r"^ *<- (.*)$", "\n".join(self.lines), re.MULTILINE)
