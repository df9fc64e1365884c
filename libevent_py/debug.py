"""libevent's own checks of how it is used. Each must be switched on before the first event base."""

from __future__ import annotations

import os

from libevent_py._ffi import lib

_on: set[str] = set()
_too_late: list[str] = []


def too_late(what: str) -> None:
    """Note that *what* has been made, after which no check can be switched on."""
    if not _too_late:
        _too_late.append(what)


def enabled(check: str) -> bool:
    """Tell whether *check*, ``debug_mode`` or ``lock_debugging``, is switched on."""
    return check in _on


def check_nonblocking(fd: int) -> None:
    """Raise `ValueError` for a descriptor that blocks, where debug mode would end the process."""
    if enabled("debug_mode") and os.get_blocking(fd):
        raise ValueError(f"fd {fd} must not block when libevent's debug mode is on")


def _switch_on(check: str) -> bool:
    """Note that *check* is switched on; tell whether it was off. libevent would exit (A4)."""
    if _too_late:
        raise RuntimeError(f"enable_{check}() must come before the first {_too_late[0]}")
    if check in _on:
        return False
    _on.add(check)
    return True


def enable_debug_mode() -> None:
    """Have libevent check that events are used in a legal order, and that their sockets don't
    block.

    It ends the process when they aren't; from Python's objects it gets no reason to. A second call
    does nothing, where C exits. Raises `RuntimeError` after the first event base.
    Wraps ``event_enable_debug_mode``.
    """
    if _switch_on("debug_mode"):
        lib.event_enable_debug_mode()


def enable_lock_debugging() -> None:
    """Have libevent check that its locks are taken and released in pairs.

    Raises `RuntimeError` after the first event base. Wraps ``evthread_enable_lock_debugging``.
    """
    if _switch_on("lock_debugging"):
        lib.evthread_enable_lock_debugging()
