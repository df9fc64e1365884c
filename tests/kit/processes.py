"""What tests of whole processes share: their resources, and the errors of forked children."""

from __future__ import annotations

import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable

from tests.kit.support import PATIENCE


def descriptors() -> dict[str, str]:
    """Return the open descriptors, each with what it is open on."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the directory's own
            continue
    return found


def in_child(function: Callable[[], object]) -> None:
    """Call *function* in a forked child, and fail here with what it raised there."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
        child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))
        try:
            function()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, errors="replace") as report:
        raised = report.read()
    _, status = os.waitpid(child, 0)
    assert not raised, raised
    assert status == 0


def resident() -> int:
    """Return how many bytes of memory the process has, Python's and C's."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
