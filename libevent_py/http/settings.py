"""What an HTTP server allows, and how it behaves; C can set it, but doesn't tell how it is set."""

from __future__ import annotations

from typing import Any

from libevent_py._core import convert
from libevent_py._core.convert import Timeout
from libevent_py._core.owner import Child
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.limits import RateLimit, RateLimitGroup
from libevent_py.enums import HttpCommand, HttpServerFlag

#: The methods that evhttp allows at first.
METHODS = (
    HttpCommand.GET | HttpCommand.POST | HttpCommand.HEAD | HttpCommand.PUT | HttpCommand.DELETE
)

#: The methods that evhttp is to allow always, because it asks (`_c/http_server.c`).
ASKED = HttpCommand.HEAD | HttpCommand.CONNECT

#: The largest number that a limit can be: C's ev_ssize_t.
MOST = lib.EV_SSIZE_MAX

#: How many bytes may wait to be parsed beyond headers and body: what is read ahead of them, and the
#: lines with the sizes of chunks.
AHEAD = 1 << 16


class Settings(Child):
    """What `HttpServer` has of settings."""

    __slots__ = (
        "_bevcb",
        "_content_type",
        "_flags",
        "_kept",
        "_max_body_size",
        "_max_headers_size",
        "_methods",
        "_rate_limit",
        "_rate_limit_group",
        "_timeout",
    )

    def __init__(self, base: Any, key: int, pointer: Any) -> None:
        #: What C has pointers to.
        self._kept: list[Any] = []
        self._bevcb: Any = None
        self._content_type: str | None = "text/html; charset=ISO-8859-1"
        self._flags = HttpServerFlag(0)
        self._max_body_size: int | None = None
        self._max_headers_size: int | None = None
        self._methods = METHODS
        self._rate_limit: RateLimit | None = None
        self._rate_limit_group: RateLimitGroup | None = None
        self._timeout: Timeout = None
        super().__init__(base, key, pointer)

    # What it allows.

    @property
    def allowed_methods(self) -> HttpCommand:
        """The methods that reach a handler; others are answered with 501.

        At first GET, POST, HEAD, PUT and DELETE. Wraps ``evhttp_set_allowed_methods``.
        """
        return self._methods

    @allowed_methods.setter
    def allowed_methods(self, methods: int) -> None:
        flags = convert.flags(HttpCommand, methods, "allowed_methods")
        self.base.check_thread()
        lib.evhttp_set_allowed_methods(self.pointer, flags | ASKED)
        self._methods = flags

    @property
    def max_headers_size(self) -> int | None:
        """How many bytes a request's first line and headers may have, or None for no limit.

        It is for connections that are accepted from now on; more is answered with 400.
        Wraps ``evhttp_set_max_headers_size``.
        """
        return self._max_headers_size

    @max_headers_size.setter
    def max_headers_size(self, size: int | None) -> None:
        most = -1 if size is None else convert.integer(size, "max_headers_size", 0, MOST)
        self.base.check_thread()
        lib.evhttp_set_max_headers_size(self.pointer, most)
        self._max_headers_size = None if size is None else most
        self._set_bevcb()

    @property
    def max_body_size(self) -> int | None:
        """How many bytes a request's body may have, or None for no limit.

        It is for connections that are accepted from now on; more is answered with 413, and so are
        chunks that have extensions, however short. Where `max_headers_size` is set, too, a
        connection fails that has more waiting to be parsed than both and 64 KiB: unlike in C, where
        a line that tells a chunk's size may grow for ever.
        Wraps ``evhttp_set_max_body_size``.
        """
        return self._max_body_size

    @max_body_size.setter
    def max_body_size(self, size: int | None) -> None:
        most = -1 if size is None else convert.integer(size, "max_body_size", 0, MOST)
        self.base.check_thread()
        lib.evhttp_set_max_body_size(self.pointer, most)
        self._max_body_size = None if size is None else most
        self._set_bevcb()

    @property
    def _most(self) -> int:
        """How many bytes of a connection may wait to be parsed, or 0 for any number."""
        headers, body = self._max_headers_size, self._max_body_size
        if headers is None or body is None or headers + body + AHEAD > MOST:
            return 0
        return headers + body + AHEAD

    def _greets(self) -> bool:
        """Tell whether something is done to each connection when it is new."""
        raise NotImplementedError

    def _set_bevcb(self) -> None:
        called = self._bevcb is not None or self._greets()
        lib.evpy_http_set_bevcb(self.pointer, called, self.key, self._most)

    @property
    def rate_limit(self) -> RateLimit | None:
        """How fast each connection may read and write, or None, as at first, for any speed.

        It is the `HttpServerConnection.rate_limit` of connections that are accepted from now on,
        each with a limit of its own. Wraps ``bufferevent_set_rate_limit``.
        """
        self.pointer  # noqa: B018  (a closed server has no connections)
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        if limit is not None and not isinstance(limit, RateLimit):
            raise TypeError(f"rate_limit must be a RateLimit, not {limit!r}")
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed server has no connections)
        self._rate_limit = limit
        self._set_bevcb()

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The `RateLimitGroup` whose limit all connections share, or None, as at first.

        It is the `HttpServerConnection.rate_limit_group` of connections that are accepted from now
        on, until the group is closed. Raises `ValueError` for a group of another event base.
        Wraps ``bufferevent_add_to_rate_limit_group``.
        """
        self.pointer  # noqa: B018  (a closed server has no connections)
        return self._rate_limit_group

    @rate_limit_group.setter
    def rate_limit_group(self, group: RateLimitGroup | None) -> None:
        if group is not None:
            if not isinstance(group, RateLimitGroup):
                raise TypeError(f"rate_limit_group must be a RateLimitGroup, not {group!r}")
            if group.base is not self.base:
                raise ValueError("rate_limit_group must be of the server's own event base")
            group.pointer  # noqa: B018  (a closed one has no members)
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed server has no connections)
        self._rate_limit_group = group
        self._set_bevcb()

    @property
    def timeout(self) -> Timeout:
        """After how many seconds a connection that nothing comes by, or goes by, is closed.

        None stands for never. It is for connections that are accepted from now on, and doesn't
        count while a handler's answer is awaited, nor for reading while that is paused. Unlike in
        C, 0 is the shortest time and not none.
        Wraps ``evhttp_set_timeout``, ``evhttp_set_timeout_tv``.
        """
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: Timeout) -> None:
        seconds = convert.optional_seconds(timeout)
        self.base.check_thread()
        lib.evpy_http_set_timeout(self.pointer, seconds)
        self._timeout = None if timeout is None else seconds

    @property
    def default_content_type(self) -> str | None:
        """The Content-Type of replies that have a body and no such header, or None for none.

        At first "text/html; charset=ISO-8859-1". Wraps ``evhttp_set_default_content_type``.
        """
        return self._content_type

    @default_content_type.setter
    def default_content_type(self, kind: str | None) -> None:
        text = ffi.NULL
        if kind is not None:
            value = convert.string(kind, "default_content_type")
            if b"\r" in value or b"\n" in value:
                raise ValueError(f"default_content_type must be one line, not {kind!r}")
            text = ffi.new("char[]", value)
        self.base.check_thread()
        lib.evhttp_set_default_content_type(self.pointer, text)
        self._kept[:] = [text]  # C has the pointer only (O10)
        self._content_type = kind

    @property
    def flags(self) -> HttpServerFlag:
        """How it behaves. Wraps ``evhttp_set_flags``."""
        return self._flags

    @flags.setter
    def flags(self, flags: int) -> None:
        flags = convert.flags(HttpServerFlag, flags, "flags")
        self.base.check_thread()
        lib.evhttp_set_flags(self.pointer, flags)
        self._flags = flags

    def add_server_alias(self, alias: str) -> None:
        """Answer requests of the host *alias*, before any pattern of a virtual host's is tried.

        Wraps ``evhttp_add_server_alias``.
        """
        name = convert.string(alias, "alias")
        self.base.check_thread()
        if lib.evhttp_add_server_alias(self.pointer, name):
            raise MemoryError("evhttp_add_server_alias: there is no memory for it")

    def remove_server_alias(self, alias: str) -> None:
        """Undo `add_server_alias`; raises `ValueError` when there is no such *alias*.

        Wraps ``evhttp_remove_server_alias``.
        """
        name = convert.string(alias, "alias")
        self.base.check_thread()
        if lib.evhttp_remove_server_alias(self.pointer, name):
            raise ValueError(f"alias {alias!r} is none of this server's")
