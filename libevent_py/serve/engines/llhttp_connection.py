"""A connection of the default engine: its bufferevent, its parser, and what it does next.

*One connection, one loop.* What a connection does next is decided in one place,
`Connection.advance`: begin the next request, parse more of what has come, or wait. Callbacks only
note what has happened and call it; inside itself it does nothing but go round again. So a thousand
pipelined requests need no deep stack, and answers keep their order.

*Parsing.* llhttp parses all that it is given, so it is given slices: a client can't have more than
a slice's requests in memory. What hasn't been parsed waits in `_rest`, and while anything does,
nothing is read. It refuses most of what is ambiguous; what it leaves to us is in llhttp_checks.py.

What it sends, and how it ends, is in llhttp_writing.py.
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.eager import OnData
from libevent_py.enums import BufferEventFlag, BufferEventOption, EventFlag
from libevent_py.serve.engine import logger
from libevent_py.serve.engines.llhttp_checks import METHODS, NOTED, RefusedError, check
from libevent_py.serve.engines.llhttp_exchange import HELD, LlhttpExchange
from libevent_py.serve.engines.llhttp_writing import UNSENT, Writing

if TYPE_CHECKING:
    from libevent_py.serve.engines.llhttp import LlhttpEngine

READ, WRITE = EventFlag.READ, EventFlag.WRITE
FAILED = BufferEventFlag.ERROR | BufferEventFlag.TIMEOUT
EOF = BufferEventFlag.EOF
PLAIN = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.EAGER
SECURE = BufferEventOption.CLOSE_ON_FREE

#: How much is parsed at once: of heads, which become objects, and of a body.
SLICE = 16384
BODY_SLICE = 65536
#: How much is read and dropped of a body that nobody wants, to keep the connection.
DROPPED = 262144
#: The most that is written at once.
WRITE_AT_ONCE = 262144
#: What poll is asked for: that the client sends no more, where it can tell that.
LEFT = getattr(select, "POLLRDHUP", 0)

FOREVER = float("inf")


class Connection(Writing):
    """A connection: its bufferevent, its parser, and the requests that it has brought."""

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str

    def __init__(
        self,
        engine: LlhttpEngine,
        fd: int,
        client: tuple[str, int] | None,
        server: tuple[str, int | None],
    ) -> None:
        self._engine = engine
        self.fd = fd
        self.client, self.server, self.scheme = client, server, engine.scheme
        self.memo: dict[str, Any] = {}
        self.deadline: float = engine.now + engine.config.header_timeout
        #: The exchange that is answered, those that are parsed, and the one that is parsed last.
        self._current: LlhttpExchange | None = None
        self._queue: deque[LlhttpExchange] = deque()
        self._incoming: LlhttpExchange | None = None
        #: What is not parsed yet: as long as there is any, nothing is read.
        self._rest: Any = b""
        #: The status for what could not be parsed, and then nothing more is.
        self._refusal = 0
        #: The head that is being parsed.
        self._in_head = False
        self._url = b""
        #: The last Host that was found to be one.
        self._host: Any = None
        self._headers: list[tuple[bytes, bytes]] = []
        #: Its headers that `_check` looks at: None if there are none, and () for a Host alone that
        #: is the same as before.
        self._noted: tuple[tuple[bytes, bytes], ...] | None = None
        #: Whether there was more in a slice than a part of a head, or of what frames a body; how
        #: much there has been of those since, and of a body that is dropped.
        self._heard = False
        self._silent = self._dropped = 0
        #: The slice that is being parsed.
        self._data = b""
        #: Whether there is something for the handler of the current exchange.
        self._news = False
        self._advancing = self._closed = self._draining = self._inside = False
        #: Whether the client sends no more, what it sends is no HTTP, and none of it matters.
        self._ended = self._raw = self._lingering = self._paused = False
        #: Whether it has sent what wasn't parsed to its end.
        self._torn = False
        #: What `_on_data` is to return.
        self._answer: bytes | None = None
        #: At least as much as there is unsent.
        self._unsent = 0
        self._parser: Any = httptools.HttpRequestParser(self)
        if engine.tls is None:
            self._bev = BufferEvent(
                engine.base, fd, PLAIN, on_read=OnData(self._on_data), on_event=self._on_event
            )
        else:
            self._bev = BufferEvent.tls(
                *(engine.base, fd, engine.tls),
                options=SECURE,
                on_read=OnData(self._on_data),
                on_event=self._on_event,
            )
            self._bev.allow_dirty_shutdown = True
        self._bev.max_single_write = WRITE_AT_ONCE
        self._bev.enable(READ)

    # What the bufferevent tells.

    # hot: once for each request.
    def _on_data(self, _bev: BufferEvent, data: bytes) -> bytes | None:
        """Read *data*, and do what can be done; return what is to be sent."""
        self._rest = bytes(self._rest) + data if self._rest else data
        self._inside = self._advancing = True
        try:
            # What `advance` would do first with a whole request, without its frames.
            free = self._current is None and not self._lingering and self._unsent <= UNSENT
            if free and len(data) <= SLICE:
                self._parse()
                current = self._current
                if current is not None and current.complete and not current._begun:
                    self._begin(current)
            self._advancing = False
            if self._current is not None or self._rest or self._queue or self._refusal:
                self.advance()
        except BaseException:
            self._send_answer()
            raise
        finally:
            self._inside = self._advancing = False
        answer, self._answer = self._answer, None
        return answer

    def _on_event(self, _bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & FAILED:
            self.close()
        elif what & EOF:
            self._end_of_input()

    def _end_of_input(self) -> None:
        """The client sends no more; it may still read the answer to what it has sent."""
        current = self._current
        self._ended = True
        if self._queue and not self._queue[-1].complete:
            self._queue.pop()  # it never will be
        torn = current is not None and not current.complete
        if torn or self._raw or (self._lingering and not self._draining):
            self.close()
        elif current is None:
            self.advance()
        else:
            self._tell_gone(current)
        if self._engine.tls is not None and not self._closed:
            self._bev.enable(WRITE)  # as libevent has stopped both ways

    def _tell_gone(self, current: LlhttpExchange) -> None:
        """Tell the handler, once, that the client has left, or has ended its own output."""
        if not current.gone:
            current.gone = True
            current.handler.on_gone()

    def look(self) -> None:
        """See whether the client has left, though nothing is read as what it has sent has to wait.

        Whoever answers the first of its requests may wait for just that. Without its body's end a
        request isn't told of the end of input, which is behind it: to receive it is to read on.
        """
        current = self._current
        if not self._paused or self._raw or current is None or not current._begun:
            return
        happened = happened_on(self.fd)
        if happened & select.POLLERR:
            self.close()
        elif happened and current.complete:
            self._tell_gone(current)

    # What the parser tells.

    def on_url(self, url: bytes) -> None:
        if self._in_head:
            self._url += url
            return
        self._in_head = True
        self._url = url
        self._headers = []
        self._noted = None
        self.deadline = self._engine.head_deadline

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: it must not be taken for a header
            return
        item = name, value = name.lower(), value.rstrip(b" \t")
        self._headers.append(item)
        if name in NOTED:
            noted = self._noted
            if noted is None and name == b"host" and value == self._host:
                self._noted = ()
            elif noted:
                self._noted = (*noted, item)
            elif noted is None:
                self._noted = (item,)
            else:
                self._noted = ((b"host", self._host), item)

    # hot: once for each request.
    def on_headers_complete(self) -> None:
        parser, engine = self._parser, self._engine
        self._in_head = False
        self._heard = True
        method = METHODS.get(parser.get_method())
        if method is None:
            raise RefusedError(501)
        version = parser.get_http_version()
        headers = self._headers
        keep_alive = parser.should_keep_alive() and not engine.finishing
        incoming = LlhttpExchange(self, method, self._url, version, headers, keep_alive)
        if (
            self._noted != ()
            or version != "1.1"
            or self._url[:1] != b"/"
            or self._url.find(b"#") >= 0  # `in` tries first whether it is a number
            or len(self._data) + self._silent > engine.most_head
            or len(headers) > engine.most_headers
            or self._data.find(b" RTSP/") >= 0
        ):
            check(self, incoming)
        self._incoming = incoming
        if self._current is None:
            self._current = incoming
        else:
            self._queue.append(incoming)

    def on_body(self, body: bytes) -> None:
        incoming = self._incoming
        assert incoming is not None
        self._heard = True
        size = len(body)
        incoming._waits = False
        if incoming.ended:
            self._dropped += size
            return
        incoming._total += size
        most = self._engine.config.max_body
        if most is not None and incoming._total > most:
            raise RefusedError(413)
        incoming._add(body, size)
        self._news = True

    def on_message_complete(self) -> None:
        incoming = self._incoming
        assert incoming is not None
        self._heard = True
        incoming.complete = True
        incoming.empty = not incoming._total
        incoming._waits = False
        self._news = True

    # What to do next.

    # hot: once for each request.
    def advance(self) -> None:
        """Do what can be done: begin the next request, parse more, or wait."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self._closed and self._step():
                pass
        finally:
            self._advancing = False
        if not self._closed:
            self.set_deadline()
            waits = bool(self._rest)
            if waits != self._paused:
                self._pause(waits)

    def advance_soon(self) -> None:
        """Call `advance`, but not before the handler has done what it is about."""
        if not self._advancing:
            self._engine.base.defer(self._advance_open)

    def _advance_open(self) -> None:
        if not self._closed:
            self.advance()

    def _step(self) -> bool:
        """Do one thing; return whether there may be another."""
        current = self._current
        if current is None:
            # A client that doesn't read its answers gets no more of them.
            if self._unsent > UNSENT and not self._lingering and not self.has_room():
                return False
            if self._queue:
                current = self._current = self._queue.popleft()
                if self._ended:
                    current.gone, current.upgrades = True, False
            elif self._lingering:
                self._rest = b""
                return False
            elif self._refusal:
                self._refuse(self._refusal)
                return False
            elif self._ended and not self._rest:
                self._shut()
                return False
            else:
                return self._parse()
        if self._raw:
            return self._pass_on(current)
        if not current._begun:
            self._begin(current)
            return True
        if self._news:
            self._news = False
            current.handler.on_body()
            return True
        if current.complete or current._held > HELD:
            return False
        return self._parse()

    # hot: once for each request.
    def _begin(self, current: LlhttpExchange) -> None:
        """Give the current exchange to the application, or refuse it."""
        current._begun = True
        self._news = False
        engine = self._engine
        engine.requests += 1
        engine.in_flight += 1
        if engine.in_flight > engine.most:
            engine.refuse(current)
        else:
            engine.begin(current)

    # hot: once for each request.
    def _parse(self) -> bool:
        """Parse a slice of what has come; return whether there was any."""
        data = self._rest
        if not data or self._refusal:
            self._rest = b""
            return False
        if len(data) > SLICE:
            data = self._slice(data)
        else:
            data = bytes(data)  # it may be a view of a slice's rest
            self._rest = b""
        self._heard = False
        self._data = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            self._rest = rest + bytes(self._rest) if self._rest else rest
        except httptools.HttpParserError as error:
            self._misread(error)
        self._data = b""
        if self._heard:
            self._silent = 0
        elif not self._refusal:
            self._silent += len(data)
            if self._silent > self._engine.most_head:
                self._misread(RefusedError(431 if self._in_head else 400))
        if self._dropped > DROPPED and self._current is None:
            self._shut()
        return True

    def _slice(self, data: Any) -> bytes:
        """Return the first part of *data* to parse; the others have to wait."""
        incoming = self._incoming
        most = SLICE if incoming is None or incoming.complete else BODY_SLICE
        view = memoryview(data)
        self._rest = view[most:]
        return bytes(view[:most])

    def _misread(self, error: Exception) -> None:
        """Note that the client has sent what is no request, or one that is refused.

        Raises what interrupts: the parser holds back whatever its callbacks raise.
        """
        cause = error if isinstance(error, RefusedError) else error.__context__
        held = isinstance(error, httptools.HttpParserCallbackError)
        if isinstance(cause, RefusedError):
            self._refusal = cause.status
        else:
            self._refusal = 500 if held else 400
        self._rest = b""
        self._torn = True
        self._engine.refused += 1
        self._forget_incoming()
        if not held or isinstance(cause, RefusedError):
            return
        if cause is not None and not isinstance(cause, Exception):
            raise cause
        logger.error("parsing a request", exc_info=cause)

    def _forget_incoming(self) -> None:
        """End the exchange whose request can't be read to its end, if it isn't only a head yet."""
        incoming = self._incoming
        if incoming is None or incoming.complete or self._in_head:
            return
        if not incoming._begun:
            if incoming is self._current:
                self._current = None
            elif self._queue and self._queue[-1] is incoming:
                self._queue.pop()
        elif incoming is self._current:
            self._fail(incoming)

    def _fail(self, current: LlhttpExchange) -> None:
        """End an exchange whose request could not be read to its end."""
        started, current.ended, current.gone = current.started, True, True
        self._current = None
        self._engine.count_out(current)
        current.handler.on_gone()
        current.handler = None
        if started:
            self.close()

    def ended(self, exchange: LlhttpExchange) -> None:
        """Go on after an answer is complete."""
        exchange.handler = None  # or the collector would have to find them both
        if self._current is not exchange:
            return
        self._current = None
        engine = self._engine
        engine.in_flight -= 1
        if engine.on_end is not None:
            engine.on_end(exchange)
        if self._closed:
            return
        if self._raw or not exchange._keep_alive or engine.finishing:
            self._queue.clear()
            self._shut()
        elif exchange.complete:
            self.deadline = engine.head_deadline if self._in_head else engine.idle_deadline
        else:
            exchange._pieces = None
            self._dropped = 0
        if not self._advancing:
            self.advance()

    def set_deadline(self) -> None:
        """Note when the client has to have done what it is to do next."""
        engine, config = self._engine, self._engine.config
        current = self._current
        if self._lingering:
            return
        if self._draining:
            self.deadline = engine.now + config.write_timeout
        elif self._raw:
            self.deadline = FOREVER
        elif current is not None:
            reading = not (current.complete or current._waits or current._held > HELD)
            self.deadline = engine.now + config.body_timeout if reading else FOREVER
        elif self._in_head:
            if self.deadline == FOREVER:
                self.deadline = engine.now + config.header_timeout
        elif self._incoming is not None:
            idle = self._incoming.complete
            seconds = config.keep_alive_timeout if idle else config.body_timeout
            self.deadline = engine.now + seconds

    def late(self) -> None:
        """Act on the deadline."""
        current = self._current
        if self._draining and len(self._bev.output) < self._unsent:  # it is only slow
            self._unsent = len(self._bev.output)
            self.deadline = self._engine.now + self._engine.config.write_timeout
        elif self._lingering or self._draining or self._raw:
            self.close()
        elif current is not None and not current.complete:
            self._refusal = 408
            self._fail(current)
            self.advance()
        elif self._in_head or (self._silent and self._incoming is None):
            self._in_head, self._torn = False, True
            self._refuse(408)
        else:
            self.close()

    # Input that has to wait, and what is no HTTP.

    def _pause(self, wanted: bool) -> None:
        """Stop reading, or go on."""
        self._paused = wanted
        if wanted:
            self._bev.disable(READ)
        else:
            self._bev.enable(READ)

    def _pass_on(self, current: LlhttpExchange) -> bool:
        """Give the handler what has come; return whether there was any."""
        if current._held > HELD or not self._rest:
            return False
        if not current._begun:
            return False
        data, self._rest = bytes(self._rest), b""
        current._add(data, len(data))
        current.handler.on_body()
        return True

    # The end.

    def close(self) -> None:
        """Close the connection at once."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        self._rest = b""
        self._answer = None
        self._parser = None
        if not self._bev.closed:
            self._bev.close()
        current, self._current = self._current, None
        self._engine.closed(self)
        if current is None:
            return
        if current._begun:
            self._engine.count_out(current)
            current.gone = current.ended = True
            current.handler.on_gone()  # again, if the client had ended only its own output
            current.handler = None
        current.ended = current.gone = True


def happened_on(fd: int) -> int:
    """Return which ends of the connection *fd* there have been, as poll's flags."""
    poll = select.poll()
    poll.register(fd, LEFT)
    return sum(what & (LEFT | select.POLLERR | select.POLLHUP) for _, what in poll.poll(0))
