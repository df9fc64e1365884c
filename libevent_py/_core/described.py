"""What classes and objects say of themselves: to ``help``, by their names, and in ``repr``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=type)


def known_as(name: str) -> Callable[[Kind], Kind]:
    """Give an internal class the *name* of a public one, which texts and errors then show."""

    def rename(kind: Kind) -> Kind:
        kind.__name__ = kind.__qualname__ = name
        return kind

    return rename


#: What an object says of itself whose ``__init__`` has not been called, or has raised.
NOT_MADE = "not made"


def if_made(told: Callable[[Any], str]) -> Callable[[Any], str]:
    """Let a ``__repr__``, *told*, say so where the object's attributes are not there yet."""

    @functools.wraps(told)
    def tell(self: object) -> str:
        try:
            return told(self)
        except AttributeError:
            return f"<{type(self).__name__} {NOT_MADE}>"

    return tell


def described(**attributes: str) -> Callable[[Kind], Kind]:
    """Document *attributes* of a class for ``help``: its slots, or a named tuple's fields."""

    def describe(kind: Kind) -> Kind:
        own: Any = vars(kind)
        if issubclass(kind, tuple):
            for name, text in attributes.items():
                own[name].__doc__ = text
        else:  # help() takes the texts from __slots__
            slots = dict.fromkeys(own["__slots__"]) | attributes
            if slots.keys() != set(own["__slots__"]):
                raise TypeError(f"{kind.__name__} hasn't all of {', '.join(attributes)}")
            kind.__slots__ = slots  # type: ignore[attr-defined]
        return kind

    return describe
