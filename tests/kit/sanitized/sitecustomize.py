"""Imported by each Python that runs with a sanitizer: before it ends, it looks for leaks.

At that time Python's objects still refer to what they keep. Later, when the package frees nothing
any more and the interpreter frees its objects, whatever they leave to the system on purpose looks
like a leak, and so does the interpreter's own.
"""

import os
import threading


def check() -> None:
    import ctypes

    if ctypes.CDLL(None).__lsan_do_recoverable_leak_check():
        os.abort()


if "libasan" in os.environ.get("LD_PRELOAD", ""):
    threading._register_atexit(check)  # type: ignore[attr-defined]  # before atexit's functions
