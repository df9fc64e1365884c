"""Known differences of two traces, which `compare` leaves out or takes for the same.

They are tables ``[[known]]`` of a TOML file. Each says *why*, and has the calls as a trace has
them: *a* in the first trace, *b* in the second, *both* in either. They are left out, or stand there
*as* something else; *also* has what is left out elsewhere of the objects that the calls name.

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

WHERE = ("a", "b", "both")
TOKEN = re.compile(r"\*(?P<star>\d*)|\b(?P<kind>[a-z_]+)#(?P<number>\d+)")


class Known(NamedTuple):
    """A difference that is known: its *pattern*, where it is, what stands there, what goes too."""

    where: str
    pattern: str
    instead: str | None
    also: tuple[str, ...]

    def applied(self, text: str, side: str) -> str:
        """Return the trace *text* of the *side* "a" or "b", in which the difference is gone."""
        if self.where not in (side, "both"):
            return text
        pattern = compiled(self.pattern)
        matches = list(pattern.finditer(text)) if self.also else []
        text = pattern.sub(self._replaced, text)
        for match in matches:
            objects = tuple((name, match[name]) for name in match.re.groupindex)
            for also in self.also:
                text = compiled(also, objects).sub("", text)
        return text

    def _replaced(self, match: re.Match[str]) -> str:
        if self.instead is None:
            return ""
        return TOKEN.sub(lambda token: match[name_of(token)], self.instead) + "\n"


def name_of(token: re.Match[str]) -> str:
    """Return the name of the group that matches what *token* stands for; "" if it has none."""
    if token["kind"]:
        return f"{token['kind']}_{token['number']}"
    return f"star_{token['star']}" if token["star"] else ""


@functools.cache
def compiled(pattern: str, found: tuple[tuple[str, str], ...] = ()) -> re.Pattern[str]:
    """Return what matches the lines of *pattern* in a trace, with the end of the last one.

    What has been *found* for a name must be there as it is.
    """
    parts, at, seen, literal = [], 0, {""}, dict(found)
    for token in TOKEN.finditer(pattern):
        name, kind = name_of(token), token["kind"]
        parts.append(re.escape(pattern[at : token.start()]))
        at = token.end()
        what = rf"\b{kind}#\d+\b" if kind else r"[^\n]*?"
        if name in literal:
            parts.append(rf"\b{re.escape(literal[name])}\b" if kind else re.escape(literal[name]))
        elif name in seen:
            parts.append(f"(?P={name})" if name else what)
        else:
            parts.append(f"(?P<{name}>{what})")
            seen.add(name)
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
    if len(where) != 1 or table.keys() - {"why", "as", "also", *where} or not table.get("why"):
        raise KeyError(f"{table}: a difference has why, one of {', '.join(WHERE)}, as and also")
    instead, also = table.get("as"), tuple(texts(table.get("also", ())))
    for pattern in texts(table[where[0]]):
        groups = compiled(pattern).groupindex
        for text in (instead or "", *also):
            for token in TOKEN.finditer(text):
                if name_of(token) not in groups and (text is instead or token["kind"]):
                    raise KeyError(f"{text}: {token.group()} stands for nothing")
        yield Known(where[0], pattern, instead, also)


def texts(value: str | list[str]) -> list[str]:
    """Return the texts of a key, without the line ends around them."""
    return [each.strip("\n") for each in ([value] if isinstance(value, str) else value)]


def without(lines: Iterable[str], known: Iterable[Known], side: str) -> list[str]:
    """Return the *lines* of the trace on that *side* in which the differences are gone."""
    text = "".join(f"{line}\n" for line in lines)
    for each in known:
        text = each.applied(text, side)
    return text.splitlines()
