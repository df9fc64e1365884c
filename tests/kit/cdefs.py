"""What tests of the declarations share: what the package declares to cffi, one by one."""

from __future__ import annotations

import re
import sys
from functools import cache

from tests.kit.support import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

C = ROOT / "libevent_py" / "_c"

OURS = "/* Ours. */"


@cache
def not_declared(kind: str) -> set[str]:
    groups = tomllib.loads((C / "not_declared.toml").read_text())[kind]
    return {name for group in groups for name in group["names"]}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def cdef(noun: str) -> str:
    """What _c declares of libevent's, without what is ours."""
    text, marker, _ = (C / f"{noun}.h").read_text().partition(OURS)
    assert marker, f"_c/{noun}.h has no line {OURS}"
    return without_comments(text)


def declarations(text: str) -> list[str]:
    """Every declaration in preprocessed C, its tokens one space apart; enums without values."""
    text = re.sub(r"^#.*", "", text, flags=re.MULTILINE)
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)\)", "", text)
    found: list[str] = []
    tokens: list[str] = []
    depth = 0
    for token in re.findall(r"\w+|\.\.\.|\S", text):
        depth += (token == "{") - (token == "}")
        if token != ";" or depth:
            tokens.append(token)
        elif tokens:
            found.append(" ".join(tokens))
            tokens = []
    assert not tokens, tokens
    return [without_values(one) for one in found if not re.fullmatch(r"struct \w+", one)]


def without_values(declaration: str) -> str:
    if not re.match(r"enum \w+ {", declaration):
        return declaration
    head, _, body = declaration.partition(" { ")
    members = [member.split()[0] for member in body.rstrip("} ").split(",") if member.strip()]
    return f"{head} {{ {' '.join(member for member in members if member != '...')} }}"


def function_name(declaration: str) -> str | None:
    if re.match(r"typedef\b|(enum|struct) \w+ {", declaration):
        return None
    match = re.match(r"[^(]*?(\w+) \(", declaration)
    return match[1] if match else None
