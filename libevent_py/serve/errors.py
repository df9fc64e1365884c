"""What can go wrong before the first request."""

from __future__ import annotations


class StartupError(RuntimeError):
    """The application can't be served: it can't be loaded, or has failed to start."""


def missing(what: str, error: ModuleNotFoundError) -> ImportError:
    """Return what to raise as *what* needs a module that isn't there; *error*, if it is our own."""
    if error.name is None or error.name.startswith("libevent_py"):
        return error
    return ImportError(
        f"{what} needs {error.name}: pip install 'libevent_py[serve]'", name=error.name
    )
