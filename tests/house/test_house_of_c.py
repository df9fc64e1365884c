"""None of our C is dead: what `make lint` can't see of it, as cffi's code mentions it all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import libevent_py

PACKAGE = Path(libevent_py.__file__).parent
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
CALLBACK = re.compile(r'^extern "Python" [^;{]*?\b(evpy_\w+)\([^;{]*;', re.MULTILINE)

PYTHON = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
SOURCE = "\n".join(COMMENT.sub("", path.read_text()) for path in sorted(PACKAGE.glob("_c/*.c")))
DECLARED = "\n".join(COMMENT.sub("", path.read_text()) for path in sorted(PACKAGE.glob("_c/*.h")))


def is_python_s(name: str) -> bool:
    """Tell whether Python calls the function, or hands it to libevent."""
    return re.search(rf"\blib\.{name}\b", PYTHON) is not None


@pytest.mark.slow
def test_somebody_calls_each_function_of_ours() -> None:
    functions = re.findall(r"\b(evpy_\w+)\(", CALLBACK.sub("", DECLARED))
    assert len(functions) > 200
    for name in functions:
        called = len(re.findall(rf"\b{name}\b", SOURCE)) > 1  # it is there once by its definition
        assert called or is_python_s(name), f"nobody calls {name}"


def test_c_or_libevent_calls_each_callback_of_ours() -> None:
    callbacks = CALLBACK.findall(DECLARED)
    assert len(callbacks) > 30
    for name in callbacks:
        assert re.search(rf"\b{name}\(", SOURCE) or is_python_s(name), f"nobody calls {name}"
