"""The engines by their names."""

from __future__ import annotations

import importlib
from typing import cast

from libevent_py.serve.engine import Engine
from libevent_py.serve.errors import missing

#: Where each engine's class is, and which modules that needs from the extra ``serve``.
PLACES = {
    "httptools": ("libevent_py.serve.engines.llhttp", "LlhttpEngine"),
    "evhttp": ("libevent_py.serve.engines.evhttp", "EvhttpEngine"),
}


def load(name: str) -> type[Engine]:
    """Return the engine called *name*; `ImportError` says which extra is missing."""
    module, attribute = PLACES[name]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise missing(f"the {name} engine", error) from error
    return cast("type[Engine]", found)
