"""What tests of the documentation share."""

from __future__ import annotations

import re


def is_sentence(docstring: str | None) -> bool:
    """Tell whether the docstring's first paragraph has a capital and a full stop."""
    first = (docstring or "").partition("\n\n")[0]
    return re.fullmatch(r"(?s)[^a-z].*[.:]", first) is not None
