"""A plugin for pytest: run the samples by their names, as modules, so that they can tell."""

from __future__ import annotations

import functools
from typing import Any

from tests.kit.samples import Sample

run_as_file = Sample.__init__


@functools.wraps(run_as_file)
def run_as_module(self: Sample, name: str, *arguments: object, **options: Any) -> None:
    """Run the sample by its name, unless it is another program's file."""
    if options.get("language", "python") == "python" and options.get("file") is None:
        options["as_module"] = True
    run_as_file(self, name, *arguments, **options)


Sample.__init__ = run_as_module  # type: ignore[method-assign]
