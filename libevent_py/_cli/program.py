"""What the subcommands share: the program's name, and colours where somebody looks at them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

#: The numbers of terminals' colours.
COLOURS = {"red": 31, "green": 32, "yellow": 33}


def program(command: str = "") -> str:
    """Return how the user has called the program, with *command*."""
    script = Path(sys.argv[0] or "").name
    name = "libevent-py" if script.startswith("libevent-py") else "python -m libevent_py"
    return f"{name} {command}".rstrip()


def painted(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return *text* in *colour* if *stream*, by default stdout, is a terminal that has colours.

    The environment variable NO_COLOR, or a TERM of "dumb", keeps colours out.
    """
    stream = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def complain(message: str) -> None:
    """Print *message* to stderr."""
    print(message, file=sys.stderr)
