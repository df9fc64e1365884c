"""What tests of bufferevents share: the ways to make them."""

from __future__ import annotations

from tests.kit.flags import CLOSE, DEFER, EAGER, NO_OPTION, THREADSAFE, UNLOCK

#: Every combination of options that libevent can do.
OPTIONS = [
    CLOSE | rest
    for rest in (
        NO_OPTION,
        DEFER,
        DEFER | UNLOCK,
        THREADSAFE,
        THREADSAFE | DEFER,
        THREADSAFE | DEFER | UNLOCK,
        EAGER,
        EAGER | DEFER,
    )
]
