"""``struct event_config``: what an event base shall be like, and which backends there are."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import Timeout
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseFlag, EventFeature


def _supported_methods() -> tuple[str, ...]:
    """Return C's list, asked for once and copied: the next call would free its array (B11)."""
    ffi.errno = 0
    methods = lib.event_get_supported_methods()
    if methods == ffi.NULL:
        raise errors.failed(lib.event_get_supported_methods)
    names: list[str] = []
    while methods[len(names)] != ffi.NULL:
        names.append(convert.text(methods[len(names)]))
    return tuple(names)


SUPPORTED_METHODS = _supported_methods()


def _features(method: str) -> EventFeature | None:
    """Return what the backend *method* can do, or None if it can't be used here and now."""
    # A base without locks watches nothing yet, so making one to ask it is safe, even with select.
    flags = EventBaseFlag.NOLOCK | EventBaseFlag.IGNORE_ENV
    with EventConfig(avoid=_others(method), flags=flags) as config:
        pointer = errors.enter(None, lib.event_base_new_with_config, config.pointer)
    if pointer == ffi.NULL:
        return None
    features = EventFeature(lib.event_base_get_features(pointer))
    lib.event_base_free(pointer)
    return features


def _others(method: str) -> list[str]:
    return [name for name in SUPPORTED_METHODS if name != method]


def checked_method(method: str, name: str = "method") -> str:
    """Return *method*, or raise `ValueError` that names the backends there are."""
    if method not in SUPPORTED_METHODS:
        raise ValueError(f"{name} must be one of {', '.join(SUPPORTED_METHODS)}, not {method!r}")
    return method


class EventConfig(Handle):
    """The settings for an `EventBase`; may be used for several, and closed once they are made."""

    __slots__ = ("_avoided", "_cpus", "_flags", "_limits", "_required")

    def __init__(
        self,
        *,
        avoid: Iterable[str] = (),
        require: int = EventFeature(0),
        flags: int = EventBaseFlag(0),
        max_dispatch_interval: Timeout = None,
        max_dispatch_callbacks: int = -1,
        min_priority: int = 0,
        cpus_hint: int | None = None,
    ) -> None:
        """Make a configuration; each argument is passed on to the method of that name.

        Wraps ``event_config_new``.
        """
        self._check_unmade()
        self._flags = EventBaseFlag(0)
        self._avoided: list[str] = []
        self._required = EventFeature(0)
        self._limits: tuple[Timeout, int, int] | None = None
        self._cpus: int | None = None
        if isinstance(avoid, str) or not isinstance(avoid, Iterable):
            raise TypeError(f"avoid must be a collection of names, not {avoid!r}")
        super().__init__(new_owned(lib.event_config_free, lib.event_config_new))
        for name in avoid:
            self.avoid_method(name)
        if require:
            self.require_features(require)
        if flags:
            self.set_flag(flags)
        if max_dispatch_interval is not None or max_dispatch_callbacks != -1 or min_priority != 0:
            self.set_max_dispatch_interval(
                max_dispatch_interval, max_dispatch_callbacks, min_priority
            )
        if cpus_hint is not None:
            self.set_num_cpus_hint(cpus_hint)

    def _facts(self, ask: bool) -> Iterator[str]:
        if self._avoided:
            yield f"avoids {', '.join(self._avoided)}"
        if self._required:
            yield f"requires {self._required.names}"
        if self._flags:
            yield self._flags.names

    @property
    def flags(self) -> EventBaseFlag:
        """The flags set so far."""
        return self._flags

    def avoid_method(self, name: str) -> None:
        """Never use the backend *name*, one of `EventBase.supported_methods`.

        Raises `ValueError` for an unknown name, which C silently accepts.
        Wraps ``event_config_avoid_method``.
        """
        checked_method(name, "name")
        errors.call(lib.event_config_avoid_method, self.pointer, name.encode())
        self._avoided.append(name)

    def require_features(self, features: int) -> None:
        """Use no backend that lacks one of *features*. Wraps ``event_config_require_features``."""
        features = convert.flags(EventFeature, features, "features")
        errors.call(lib.event_config_require_features, self.pointer, features)
        self._required = features

    def set_flag(self, flag: int) -> None:
        """Set *flag*, one or more of `EventBaseFlag`. Wraps ``event_config_set_flag``."""
        flag = convert.flags(EventBaseFlag, flag, "flag")
        errors.call(lib.event_config_set_flag, self.pointer, flag)
        self._flags |= flag

    def set_num_cpus_hint(self, cpus: int) -> None:
        """Say how many processors there are; only Windows' IOCP uses it.

        Wraps ``event_config_set_num_cpus_hint``.
        """
        cpus = convert.integer(cpus, "cpus", 0, 2**31 - 1)
        errors.call(lib.event_config_set_num_cpus_hint, self.pointer, cpus)
        self._cpus = cpus

    def set_max_dispatch_interval(
        self, interval: Timeout, max_callbacks: int = -1, min_priority: int = 0
    ) -> None:
        """Look for new events after *interval* seconds or *max_callbacks* callbacks.

        None and -1 mean no limit. The limits apply to callbacks of priority *min_priority* and to
        less urgent ones. Wraps ``event_config_set_max_dispatch_interval``.
        """
        tv = ffi.NULL if interval is None else convert.timeval(interval, "interval")
        max_callbacks = convert.integer(max_callbacks, "max_callbacks", -1, 2**31 - 1)
        min_priority = convert.integer(min_priority, "min_priority", 0, 255)
        errors.call(
            lib.event_config_set_max_dispatch_interval,
            self.pointer,
            tv,
            max_callbacks,
            min_priority,
        )
        self._limits = interval, max_callbacks, min_priority

    def _like(self, flags: int = 0, *, method: str | None = None) -> EventConfig:
        """Return a copy of this configuration with *flags* added; with *method*, for it alone."""
        avoided = self._avoided if method is None else {*self._avoided, *_others(method)}
        copy = EventConfig(
            avoid=avoided,
            require=self._required,
            flags=self._flags | flags,
            cpus_hint=self._cpus,
        )
        if self._limits is not None:
            copy.set_max_dispatch_interval(*self._limits)
        return copy

    def _refusals(self, methods: Iterable[str] = SUPPORTED_METHODS) -> list[str] | None:
        """Return for each of *methods* why it can't be used; None if one of them can.

        None then means that the base could not be made for another reason, such as lack of memory.
        """
        found = [self._refusal(method) for method in methods]
        return None if None in found else [reason for reason in found if reason is not None]

    def _refusal(self, method: str) -> str | None:
        features = _features(method)
        if features is None:
            return f"{method} can't be had on this system"
        missing = self._required & ~features
        variable = f"EVENT_NO{method.upper()}"
        named = f"{method} ({features.names if features else 'no features'})"
        if method in self._avoided:
            return f"{named} is avoided"
        if missing:
            return f"{named} lacks {missing.names}"
        if variable in os.environ and EventBaseFlag.IGNORE_ENV not in self._flags:
            return f"{named} is disabled by {variable} in the environment"
        return None

    def close(self) -> None:
        """Free the configuration; a second time does nothing. Wraps ``event_config_free``."""
        self._take()


def unmakable(config: EventConfig | None, method: str | None = None) -> Exception:
    """Return the exception that says why C could not make a base as *config* asks."""
    failure = errors.failed(lib.event_base_new_with_config)
    if not isinstance(failure, errors.LibeventError):
        return failure
    asked = SUPPORTED_METHODS if method is None else (method,)
    refusals = (config or EventConfig())._refusals(asked)
    if refusals is None:
        return failure
    return errors.LibeventError(
        f"event_base_new_with_config: no backend will do: {'; '.join(refusals)}"
    )


def highest_reserved() -> int:
    """Return the highest descriptor that a new base would get.

    Raises `OSError` if the base can't get as many as it needs: C would end the process (A1).
    """
    highest = int(lib.evpy_highest_reserved())
    if highest < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return highest


def check_waitable(config: EventConfig | None) -> None:
    """Raise `OSError` if a base of *config* would use select."""
    # A base without locks watches nothing yet, so making one to ask it is safe.
    with (config or EventConfig())._like(EventBaseFlag.NOLOCK) as nolock:
        uses_select = lib.evpy_config_uses_select(nolock.pointer)
        if uses_select < 0:
            raise unmakable(nolock)
    if uses_select:
        raise beyond_select("the base's own descriptors")


def beyond_select(what: str) -> OSError:
    """Return the exception that says that select can't wait for *what*."""
    return OSError(errno.EINVAL, f"{what} with select: {os.strerror(errno.EINVAL)}")
