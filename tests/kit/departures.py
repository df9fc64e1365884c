"""Which docstrings say that Python does something else than C: for tests, and for the site."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import libevent_py
from libevent_py._cli import find

#: The modules that a program uses by their name.
HOLDERS = {f"{name}.py": name for name in ("debug", "log", "tag", "util")}
HOLDERS["rpc/message.py"] = "rpc_message"

#: What a docstring says of C where Python does something else.
DEPARTS = re.compile(
    r"\b[Uu]nlike in C\b"
    r"|(?<![Aa]s )\b[Ii]n C,? (?:it|nothing|nobody|the|a|libevent|after|would)\b"
    r"|\bC(?:'s own function)? (?:would|does not|doesn't|accepts)\b"
    r"|\blibevent itself (?:never|sends|doesn't)\b"
)


def departs(docstring: str) -> bool:
    """Tell whether a docstring says that C does something else."""
    return DEPARTS.search(" ".join(docstring.split())) is not None


def public_names(module: str, name: str) -> list[str]:
    """Return the names that a program may call a definition by; none if it isn't public."""
    names = [known for known in find.public(name) if known.split(".")[0] in libevent_py.__all__]
    if holder := HOLDERS.get(module):
        names.append(f"{holder}.{name}")
    return [known for known in names if not re.search(r"\b_", known)]


def departing() -> Iterator[tuple[list[str], str]]:
    """Yield each docstring that says so, below the public names of what it is of."""
    for path in sorted(find.PACKAGE.rglob("*.py")):
        module = path.relative_to(find.PACKAGE).as_posix()
        if module.startswith("_"):
            continue
        tree = ast.parse(path.read_bytes())
        text = ast.get_docstring(tree) or ""
        if departs(text):
            yield [module.removesuffix(".py")], text
        for name, node in find.definitions_in(tree):
            names = public_names(module, name)
            text = ast.get_docstring(node) or ""
            if names and departs(text):
                yield names, text
