"""What can go wrong before the first request."""

from __future__ import annotations


class StartupError(RuntimeError):
    """The application can't be served: it can't be loaded, or has failed to start."""
