"""The descriptors that an `EventLoop` waits for: an event for each reader and each writer.

An event's callback queues the handle. The events are pending only while the loop runs: a descriptor
that is ready would keep a base spinning that is run by something else, and any of them would keep
its loop from ending.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from libevent_py.enums import EventFlag
from libevent_py.event.event import Event

if TYPE_CHECKING:
    from libevent_py._core.convert import FileDescriptor
    from libevent_py.event.base import EventBase
    from libevent_py.event.event import EventCallback

# Combined once: it costs a microsecond each time.
READ = EventFlag.READ | EventFlag.PERSIST
WRITE = EventFlag.WRITE | EventFlag.PERSIST

#: Why an event can't be added whose descriptor was closed, or is that of a plain file by now.
GONE = (errno.EBADF, errno.EPERM)


def number_of(file: FileDescriptor) -> int:
    """Return the descriptor of *file*, a number or anything with a ``fileno``.

    Raises `ValueError` for anything else, as `selectors` does.
    """
    try:
        number = file if isinstance(file, int) else int(file.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {file!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {number}")
    return number


def unready(event: Event, fd: int, what: EventFlag) -> None:
    """Do nothing, as the loop is closed."""


class Watcher(Event):
    """The event for a reader or a writer."""

    __slots__ = ("file", "handle", "watchers")

    #: What was given for the descriptor; it may be closed by now.
    file: FileDescriptor
    #: What to run when it is ready.
    handle: asyncio.Handle
    #: The readers or the writers that it is one of.
    watchers: Watchers


class Watchers:
    """The readers, or the writers, of a loop."""

    __slots__ = ("_base", "_events", "_ready", "_what")

    def __init__(
        self, base: EventBase, what: EventFlag, ready: Callable[[Watcher, int, EventFlag], object]
    ) -> None:
        self._base = base
        self._what = what
        self._events: dict[int, Watcher] = {}
        self._ready = cast("EventCallback", ready)

    def add(self, file: FileDescriptor, handle: asyncio.Handle, waits: bool) -> None:
        """Have *handle* run when *file* is ready, and no other; with *waits*, from now on."""
        number = number_of(file)
        watcher = self._events.get(number)
        if type(watcher) is Watcher:  # and not a transport's, which runs no handle
            watcher.handle.cancel()
            watcher.handle, watcher.file = handle, file
            return
        watcher = Watcher(self._base, number, self._what, self._ready)
        watcher.handle = handle
        self.put(number, file, watcher, waits)

    def put(self, number: int, file: FileDescriptor, watcher: Watcher, waits: bool) -> None:
        """Have *watcher*, and no other, called when *file*, the descriptor *number*, is ready."""
        watcher.file, watcher.watchers = file, self
        try:
            watcher.add()  # tells, too, whether the backend takes it
            if not waits:
                watcher.delete()
        except BaseException:
            watcher.close()
            raise
        before = self._events.get(number)
        self._events[number] = watcher
        if before is not None:  # a transport that is resumed before asyncio has it begin to read
            before.close()
            before.handle.cancel()

    def remove(self, file: FileDescriptor) -> bool:
        """Forget what runs when *file* is ready; return whether there was anything."""
        try:
            number = number_of(file)
        except ValueError:  # a file that is closed knows its number no longer
            found = [n for n, watcher in self._events.items() if watcher.file is file]
            if not found:
                raise
            number = found[0]
        watcher = self._events.pop(number, None)
        if watcher is None:
            return False
        watcher.close()
        watcher.handle.cancel()
        return True

    def handles(self) -> dict[int, tuple[FileDescriptor, asyncio.Handle]]:
        """Return what was given for each descriptor, by its number: the file and the handle."""
        return {n: (watcher.file, watcher.handle) for n, watcher in self._events.items()}

    def begin(self) -> None:
        """Wait for all of them, but for those whose descriptor was closed since the last run.

        The kernel has forgotten these, as asyncio's own selector does: they must not end each run.
        """
        for watcher in self._events.values():
            try:
                watcher.add()
            except OSError as error:
                if error.errno not in GONE:
                    raise

    def end(self) -> None:
        """Wait for none of them."""
        for watcher in self._events.values():
            watcher.delete()

    def close(self) -> None:
        """Forget all of them, and the loop."""
        while self._events:
            self._events.popitem()[1].close()
        self._ready = unready


class Watched(selectors.BaseSelector):
    """The descriptors as a selector that shows what asyncio's own would, and waits for nothing."""

    def __init__(self, readers: Watchers, writers: Watchers) -> None:
        self._readers = readers
        self._writers = writers

    def register(
        self, fileobj: FileDescriptor, events: int, data: object = None
    ) -> selectors.SelectorKey:
        """Refuse it."""
        raise NotImplementedError("an aio.EventLoop waits by its base: use its add_reader()")

    def unregister(self, fileobj: FileDescriptor) -> selectors.SelectorKey:
        """Refuse it."""
        raise NotImplementedError("an aio.EventLoop waits by its base: use its remove_reader()")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return nothing, at once: the events' callbacks have queued what is ready."""
        return []

    def get_map(self) -> dict[FileDescriptor, selectors.SelectorKey]:
        """Return the descriptors' keys by what was given for each."""
        keys: dict[FileDescriptor, selectors.SelectorKey] = {}
        readers, writers = self._readers.handles(), self._writers.handles()
        for number in readers.keys() | writers.keys():
            file, reader = readers.get(number, (None, None))
            file, writer = writers.get(number, (file, None))
            events = selectors.EVENT_READ * bool(reader) | selectors.EVENT_WRITE * bool(writer)
            given = cast("FileDescriptor", file)
            keys[given] = selectors.SelectorKey(given, number, events, (reader, writer))
        return keys

    def get_key(self, fileobj: FileDescriptor) -> selectors.SelectorKey:
        """Return the key of *fileobj*; `KeyError` if nothing waits for it."""
        number = number_of(fileobj)
        found = [key for key in self.get_map().values() if key.fd == number]
        if not found:
            raise KeyError(f"{fileobj!r} is not registered")
        return found[0]
