"""The public names, as docs/names.md lists them; ``python -m tests.kit.names`` writes that file."""

from __future__ import annotations

import enum
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import libevent_py
from libevent_py import aio, testing

NAMES = Path(__file__).parents[2] / "docs" / "names.md"

HEAD = """\
# The public names

What a program may use, and nothing else: every name without an underscore. A test compares this
list with what `dir()` shows. When you add or rename something, document it, add it to
`CHANGELOG.md` if users must know, and write this file anew with `python -m tests.kit.names`.

Of these, `pointer`, `lib` and `ffi` lead to C itself: what a program does by them is checked no
more than in C. `pointer` is for reading only.
"""

#: Modules whose own functions and classes are public.
MODULES = ["debug", "log", "tag", "types", "util", "vulnerabilities"]

#: Whose names are Python's, not ours.
PYTHON = {"asyncio", "builtins", "enum", "typing", "collections", "selectors"}


def members(kind: type) -> list[str]:
    """Return the public names of *kind* that don't come from Python's own classes."""
    if issubclass(kind, enum.Enum):
        return list(kind.__members__)
    inherited = {
        name
        for base in kind.__mro__
        if base.__module__.split(".")[0] in PYTHON
        for name in dir(base)
    }
    return [name for name in dir(kind) if not name.startswith("_") and name not in inherited]


#: Methods by which Python's own syntax reaches an object: what they do needs telling.
SYNTAX = {"__bytes__", "__call__", "__contains__", "__delitem__", "__eq__", "__getitem__"}
SYNTAX |= {"__iadd__", "__iter__", "__len__", "__setitem__", "__str__", "__sub__"}


def special(kind: type) -> list[str]:
    """Return the methods of *kind* for Python's syntax that a docstring of ours tells of."""
    return [
        name
        for above in kind.__mro__
        if above.__module__.startswith("libevent_py")
        for name, method in vars(above).items()
        if name in SYNTAX and getattr(method, "__doc__", None)
    ]


def own(module: ModuleType) -> list[str]:
    """Return what *module* says is public, or the classes and functions that it defines."""
    return sorted(getattr(module, "__all__", ())) or sorted(
        name
        for name, thing in vars(module).items()
        if not name.startswith(("_", "evpy_"))
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__.startswith(module.__name__)
    )


def sections() -> Iterator[tuple[str, list[str]]]:
    """Yield each heading with the names below it."""
    yield "libevent_py", sorted(libevent_py.__all__)
    for name in MODULES:
        yield f"libevent_py.{name}", own(getattr(libevent_py, name))
    yield "libevent_py.aio", own(aio)
    yield "libevent_py.testing", own(testing)
    public = {name: getattr(libevent_py, name) for name in libevent_py.__all__}
    public |= {name: getattr(aio, name) for name in aio.__all__}
    public |= {name: getattr(testing, name) for name in testing.__all__}
    for name, thing in sorted(public.items()):
        if isinstance(thing, type) and thing.__module__.startswith("libevent_py"):
            yield name, members(thing)
    for module in MODULES:
        for name in own(getattr(libevent_py, module)):
            thing = getattr(getattr(libevent_py, module), name)
            if isinstance(thing, type) and name not in libevent_py.__all__:
                yield f"{module}.{name}", members(thing)


def text() -> str:
    """Return what docs/names.md must say."""
    parts = [HEAD]
    for heading, names in sections():
        listed = ", ".join(f"`{name}`" for name in names) or "Nothing of its own."
        parts.append(f"## {heading}\n\n{textwrap.fill(listed, 100)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    NAMES.write_text(text())
