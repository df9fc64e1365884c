"""Imported by each Python that runs with a sanitizer: before it ends, it looks for leaks.

At that time Python's objects still refer to what they keep. Later, as the interpreter frees them,
whatever they leave to the system on purpose looks like a leak, and so does the interpreter's own.
"""

import atexit
import os


def check() -> None:
    import ctypes
    import gc

    gc.collect()
    if ctypes.CDLL(None).__lsan_do_recoverable_leak_check():
        os.abort()


if "libasan" in os.environ.get("LD_PRELOAD", ""):
    atexit.register(check)
