"""All uses of a base that need it to be open, and need its owner thread and process."""

from __future__ import annotations

import signal
from collections.abc import Callable

from libevent_py import BufferEvent, Event, EventBase, EventBaseCount, Listener
from tests.kit.flags import NONBLOCK, READ

ADDED = EventBaseCount.ADDED

#: Each use of a base that needs it open, by name.
USES: dict[str, Callable[[EventBase], object]] = {
    "method": lambda base: base.method,
    "features": lambda base: base.features,
    "n_priorities": lambda base: base.n_priorities,
    "pointer": lambda base: base.pointer,
    "with": lambda base: base.__enter__(),
    "dispatch": lambda base: base.dispatch(),
    "loop": lambda base: base.loop(NONBLOCK),
    "loopexit": lambda base: base.loopexit(),
    "loopexit later": lambda base: base.loopexit(1),
    "loopbreak": lambda base: base.loopbreak(),
    "loopcontinue": lambda base: base.loopcontinue(),
    "got_exit": lambda base: base.got_exit,
    "got_break": lambda base: base.got_break,
    "once": lambda base: base.once(print),
    "once on a descriptor": lambda base: base.once(print, fd=0, what=READ),
    "defer": lambda base: base.defer(print),
    "num_events": lambda base: base.num_events(ADDED),
    "max_events": lambda base: base.max_events(ADDED),
    "events": lambda base: base.events(),
    "dump_events": lambda base: base.dump_events(),
    "explain": lambda base: base.explain(),
    "running_event": lambda base: base.running_event,
    "active_by_fd": lambda base: base.active_by_fd(0, READ),
    "active_by_signal": lambda base: base.active_by_signal(signal.SIGUSR1),
    "gettimeofday_cached": lambda base: base.gettimeofday_cached,
    "update_cache_time": lambda base: base.update_cache_time(),
    "gettime_monotonic": lambda base: base.gettime_monotonic,
    "init_common_timeout": lambda base: base.init_common_timeout(1),
    "make_notifiable": lambda base: base.make_notifiable(),
    "Event": lambda base: Event(base, -1, 0, print),
    "Event.timer": lambda base: Event.timer(base, print),
    "BufferEvent": lambda base: BufferEvent(base),
    "Listener": lambda base: Listener(base, ("127.0.0.1", 0), print),
}
