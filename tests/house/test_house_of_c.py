"""None of our C is dead: what `make lint` can't see of it, as cffi's code mentions it all."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import libevent_py

PACKAGE = Path(libevent_py.__file__).parent
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
CALLBACK = re.compile(r'^extern "Python" [^;{]*?\b(evpy_\w+)\([^;{]*;', re.MULTILINE)

PYTHON = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
SOURCE = "\n".join(COMMENT.sub("", path.read_text()) for path in sorted(PACKAGE.glob("_c/*.c")))
DECLARED = "\n".join(COMMENT.sub("", path.read_text()) for path in sorted(PACKAGE.glob("_c/*.h")))

#: How often our C has each name; and those that Python calls, or hands to libevent.
IN_C = Counter(re.findall(r"\bevpy_\w+\b", SOURCE))
PYTHON_S = frozenset(re.findall(r"\blib\.(evpy_\w+)\b", PYTHON))


def test_somebody_calls_each_function_of_ours() -> None:
    functions = re.findall(r"\b(evpy_\w+)\(", CALLBACK.sub("", DECLARED))
    assert len(functions) > 200
    for name in functions:
        called = IN_C[name] > 1  # it is there once by its definition
        assert called or name in PYTHON_S, f"nobody calls {name}"


def test_c_or_libevent_calls_each_callback_of_ours() -> None:
    callbacks = CALLBACK.findall(DECLARED)
    assert len(callbacks) > 30
    for name in callbacks:
        assert re.search(rf"\b{name}\(", SOURCE) or name in PYTHON_S, f"nobody calls {name}"
