"""What happens to bases and buffers in a forked child.

All bases are parked (`owner.Root._park`). A base or buffer that another thread was using is lost in
the child for good, as its data may be half changed. `EventBase.reinit` brings the others back.
"""

from __future__ import annotations

import os

from libevent_py import errors
from libevent_py._core.dispatch import live, roots
from libevent_py._core.owner import Root, get_ident, renew_locks
from libevent_py._core.pointers import lose
from libevent_py._ffi import ffi, lib

#: In a forked child, the addresses of the buffers that another thread was using.
lost_buffers: set[int] = set()


def _lose() -> list[Root]:
    """Mark as lost what another thread was using at the fork, with its lock held.

    The data may be half changed (``_c/thread.c``). Return the bases of which that is so.
    """
    lost: list[Root] = []
    where = ffi.new("uintptr_t *")
    while thread := lib.evpy_lost(where):
        if lose(where[0]):  # it is never freed, either
            lost_buffers.add(where[0])
            continue
        lost += _users(thread)
    return lost


def _users(thread: int) -> list[Root]:
    """Return the bases that *thread* may have been using inside C."""
    bases = list(roots)
    return (
        [base for base in bases if base._thread == thread]
        or [base for base in bases if thread in base._holds]
        or bases
    )


def _after_fork() -> None:
    renew_locks()
    lib.evpy_note_fork()
    lost = _lose()
    for root in list(roots):
        root._park(root in lost)
    live.set(tuple(base for base in live.bases if base._running or base._calls))


os.register_at_fork(after_in_child=_after_fork)


# Not `from_c`: it is about no object.
@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_forked() -> int:
    """End the loop of a forked child whose callback returns without calling `reinit`.

    Return 1 when done: with 0, which an interrupt returns, C calls once more.
    """
    if any(isinstance(error, errors.ForkError) for error in errors.entered.here.raised):
        return 1  # the callback has been refused something itself, and that ends the loop
    for base in live.bases:
        if base._parked and base._thread == get_ident():  # _parked is empty if it is being closed
            errors.keep(base._unusable())
            break
    return 1
