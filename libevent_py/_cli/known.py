"""Known differences of two traces, which `compare` leaves out or takes for the same.

They are tables ``[[known]]`` of a TOML file. Each says *why*, and has the calls as a trace has
them: *a* in the first trace, *b* in the second, *both* in either. They are left out, or stand there
*as* something else. With *object* the line is the making of an object of the first trace, and all
that is done with it is left out, too.

A call is matched as a whole line; ``*`` is any text, and ``ev#1`` any event, the same wherever it
stands in one table. So is ``*1``: what it has matched stands for it in *as*. Several lines in one
text follow each other; those in a list stand for themselves.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What the package does by itself, which a port to C doesn't.
PORT = Path(__file__).with_name("port.toml")

WHERE = ("a", "b", "both", "object")
TOKEN = re.compile(r"\*(?P<star>\d*)|\b(?P<kind>[a-z_]+)#(?P<number>\d+)")


class Known(NamedTuple):
    """A difference that is known: the *pattern*, where it is, and what stands for it."""

    where: str
    pattern: str
    instead: str | None

    def applied(self, text: str, side: str) -> str:
        """Return the trace *text* of the *side* "a" or "b", in which the difference is gone."""
        if self.where == "object":
            return self._without_objects(text) if side == "a" else text
        if self.where not in (side, "both"):
            return text
        return compiled(self.pattern).sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        if self.instead is None:
            return ""
        return TOKEN.sub(lambda token: match[name_of(token)], self.instead) + "\n"

    def _without_objects(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        for match in compiled(self.pattern).finditer(text):
            name = re.compile(rf"\b{match.group().rpartition(' = ')[2].strip()}\b")
            lines = [line for line in lines if not name.search(line)]
        return "".join(lines)


def name_of(token: re.Match[str]) -> str:
    """Return the name of the group that matches what *token* stands for; "" if it has none."""
    if token["kind"]:
        return f"{token['kind']}_{token['number']}"
    return f"star_{token['star']}" if token["star"] else ""


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return what matches the lines of *pattern* in a trace, with the end of the last one."""
    parts, at, seen = [], 0, set()
    for token in TOKEN.finditer(pattern):
        name, kind = name_of(token), token["kind"]
        parts.append(re.escape(pattern[at : token.start()]))
        at = token.end()
        if name in seen:
            parts.append(f"(?P={name})")
        else:
            group = f"?P<{name}>" if name else "?:"
            parts.append(rf"({group}\b{kind}#\d+\b)" if kind else rf"({group}[^\n]*?)")
            seen.add(name)
        seen.discard("")
    return re.compile(rf"^{''.join(parts)}{re.escape(pattern[at:])}\n", re.MULTILINE)


def read(path: Path) -> list[Known]:
    """Return the differences in the file *path*; raise `ValueError` that says what is wrong."""
    try:
        tables = tomllib.loads(path.read_text())["known"]
        return [each for table in tables for each in of(table)]
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def of(table: dict[str, Any]) -> Iterator[Known]:
    """Yield the differences in a *table*."""
    where = [each for each in WHERE if each in table]
    if len(where) != 1 or table.keys() - {"why", "as", *where} or not table.get("why"):
        raise KeyError(f"{table}: a difference has why, one of {', '.join(WHERE)}, and perhaps as")
    patterns = table[where[0]]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        known = Known(where[0], pattern.strip("\n"), table.get("as"))
        groups = compiled(known.pattern).groupindex
        for token in TOKEN.finditer(known.instead or ""):
            if name_of(token) not in groups:
                raise KeyError(f"{known.instead}: {token.group()} stands for nothing")
        yield known


def without(lines: Iterable[str], known: Iterable[Known], side: str) -> list[str]:
    """Return the *lines* of the trace on that *side* in which the differences are gone."""
    text = "".join(f"{line}\n" for line in lines)
    for each in known:
        text = each.applied(text, side)
    return text.splitlines()
