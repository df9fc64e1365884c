"""WSGI on a base: on threads, or inline in the thread that serves.

On threads, an application runs in a daemon thread of a pool, and whatever it does with its exchange
is done in the base's thread: it sends a function there by `EventBase.defer`, and waits for what
comes back in its mailbox. A whole answer, which most are, needs no waiting.

Inline, an application runs in the callback that has read the request, when all of its body has
come: it could not wait for more. Its answer's parts are taken from it as the client takes them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from libevent_py.errors import ClosedError
from libevent_py.event.base import EventBase
from libevent_py.serve.config import Config
from libevent_py.serve.engine import ClientDisconnected, Exchange, logger

#: A body that is larger than this is kept in a temporary file, inline.
IN_MEMORY = 1024 * 1024
#: How many parts of an answer are sent before other clients have their turn, inline.
PARTS = 16
#: How much `wsgi.file_wrapper` reads at once.
BLOCK = 65536

FAILED = [(b"content-type", b"text/plain; charset=utf-8")]
ERROR = b"Internal Server Error"

#: The variables for headers, by their names; None for those that are dropped. Of a name with "_"
#: nobody could tell whether it isn't another with "-". HTTP_PROXY is what some libraries take for
#: the process's own proxy.
VARIABLES: dict[bytes, str | None] = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"proxy": None,
}
MOST_VARIABLES = 1024

#: What PEP 3333 gives an application.
Environ: TypeAlias = dict[str, Any]

#: What `sys.exc_info` gives while an exception is handled.
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType]


class WsgiRunner:
    """Runs a WSGI application."""

    def __init__(self, application: Any, config: Config) -> None:
        """Make a base, and with ``config.threads`` as many threads, for *application*."""
        self.application = application
        self.base: EventBase = EventBase()
        self.base.on_error = tell
        self._threads = config.threads
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopped = False
        self._busy = 0
        self._done: Callable[[], object] | None = None
        scheme = "https" if config.tls_cert is not None else "http"
        #: What all requests have in common.
        self.environ: Environ = {
            "SCRIPT_NAME": config.root_path,
            "SERVER_SOFTWARE": "libevent_py",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "QUERY_STRING": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.multithread": config.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": functools.partial(FileWrapper, blksize=BLOCK),
            "wsgi.input_terminated": True,
        }

    # From start to end.

    def start_up(self) -> None:
        for number in range(self._threads):
            name = f"libevent_py-wsgi-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def run(self) -> None:
        while not self._stopped:
            self.base.dispatch()
            if not self._stopped:
                logger.warning("the application has stopped the base's loop, which goes on")

    def finish(self, done: Callable[[], object]) -> None:
        if self._busy:
            self._done = done
        else:
            done()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.base.loopbreak()

    def shut_down(self) -> None:
        if self._busy:
            logger.warning("leaving %d threads that are still busy", self._busy)
        for _ in range(self._threads):
            self._jobs.put(None)

    def close(self) -> None:
        self.base.close()

    # Requests.

    # hot: once for each request.
    def begin(self, exchange: Exchange) -> None:
        if not self._threads:
            inline = exchange.handler = Inline(self, exchange)
            if exchange.empty:
                inline.run(io.BytesIO())
            elif exchange.complete:
                inline.run(io.BytesIO(exchange.take()))
            else:
                exchange.want()
            return
        threaded = exchange.handler = Threaded(self, exchange)
        self._busy += 1
        self._jobs.put(threaded.run)

    def idle(self) -> None:
        """A thread has ended what it did; called in the base's thread."""
        self._busy -= 1
        if not self._busy and self._done is not None:
            done, self._done = self._done, None
            done()

    # hot: once for each request.
    def environ_of(self, exchange: Exchange, body: Any) -> Environ:
        """Return the environment of a request."""
        memo = exchange.memo
        environ = (memo.get("environ") or self._environ_for(exchange)).copy()
        target = exchange.target
        environ["REQUEST_METHOD"] = exchange.method
        environ["REQUEST_URI"] = path = target.decode("latin-1")
        if target.find(b"?") >= 0:  # `in` tries first whether it is a number
            path, _, environ["QUERY_STRING"] = path.partition("?")
        if target.find(b"%") >= 0:
            path = unquote_to_bytes(path).decode("latin-1")
        environ["PATH_INFO"] = path
        if exchange.version != "1.1":
            environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = sys.stderr
        for name, value in exchange.headers:
            try:
                variable = VARIABLES[name]
            except KeyError:
                variable = variable_of(name)
            if variable is None:
                continue
            text = value.decode("latin-1")
            if variable in environ:
                between = "; " if variable == "HTTP_COOKIE" else ","
                text = f"{environ[variable]}{between}{text}"
            environ[variable] = text
        return environ

    def _environ_for(self, exchange: Exchange) -> Environ:
        """Return what all requests of a connection have in common, and remember it."""
        environ = exchange.memo["environ"] = self.environ.copy()
        server, client = exchange.server, exchange.client
        if server is not None and server[1] is not None:
            environ["SERVER_NAME"] = server[0]
            environ["SERVER_PORT"] = str(server[1])
        else:
            environ["SERVER_NAME"] = "localhost"
            environ["SERVER_PORT"] = "443" if exchange.scheme == "https" else "80"
        if client is not None:
            environ["REMOTE_ADDR"] = client[0]
            environ["REMOTE_PORT"] = str(client[1])
        else:
            environ["REMOTE_ADDR"] = ""
        return environ


def variable_of(name: bytes) -> str | None:
    """Return the variable for the header *name*, and remember it; None for one to drop."""
    variable = None
    if b"_" not in name:
        variable = "HTTP_" + name.decode("ascii").upper().replace("-", "_")
    if len(VARIABLES) < MOST_VARIABLES:
        VARIABLES[name] = variable
    return variable


def tell(error: BaseException, source: object) -> None:
    """Log what a callback of libevent's has raised."""
    logger.error("in a callback of %r", source, exc_info=error)


#: The numbers and the reasons of statuses, None for the usual one.
STATUSES: dict[str, tuple[int, bytes | None]] = {
    f"{status.value} {status.phrase}": (status.value, None) for status in HTTPStatus
}


def status_of(status: str) -> tuple[int, bytes | None]:
    """Return the number and the reason of *status*; raise if it isn't one."""
    if type(status) is not str:
        raise TypeError(f"a status must be a str, not {status!r}")
    number, _, reason = status.partition(" ")
    if len(number) != 3 or not (number.isascii() and number.isdigit()):
        raise ValueError(f'a status must be as "200 OK", not {status!r}')
    return int(number), reason.encode("latin-1")


#: Headers that were sent lately, as the application gave them and as bytes; and how many at most.
ENCODED: dict[Any, list[tuple[bytes, bytes]]] = {}
MOST_ENCODED = 256


def as_bytes(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* as bytes."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* as bytes, and remember them: many an answer has the same."""
    made = as_bytes(headers)
    if len(ENCODED) >= MOST_ENCODED:
        ENCODED.clear()
    ENCODED[tuple(headers)] = made
    return made


def checked(part: Any) -> bytes:
    """Return *part*, which an application has given for a part of its answer, as bytes."""
    if type(part) is bytes:
        return part
    if not isinstance(part, (bytes, bytearray, memoryview)):
        raise TypeError(f"the body must be bytes, not {part!r}")
    return bytes(part)


class Answering:
    """What an application does with its request: `start_response` and `write`."""

    _status = 0
    _reason: bytes | None = None
    _headers: list[tuple[bytes, bytes]]
    #: Whether the head is sent.
    _sent = False

    def __init__(self, runner: WsgiRunner, exchange: Exchange) -> None:
        self._runner = runner
        self._exchange = exchange

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Note the status and the headers; return `write`."""
        if self._status or exc_info is not None:
            self._start_again(exc_info)
            exc_info = None
        if type(headers) is not list:
            raise TypeError(f"start_response() takes a list of headers, not {headers!r}")
        self._status, self._reason = STATUSES.get(status) or status_of(status)
        try:
            self._headers = ENCODED.get(tuple(headers)) or encoded(headers)
        except TypeError:  # they can't be a key, as pairs that are lists can't
            self._headers = as_bytes(headers)
        return self.write

    def _start_again(self, exc_info: ExcInfo | None) -> None:
        """Raise unless `start_response` may be called again."""
        try:
            if exc_info is None:
                raise AssertionError("start_response() was called again, without exc_info")
            if self._sent:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            exc_info = None

    def _check_started(self) -> None:
        if not self._status:
            raise AssertionError("a body has come before start_response() was called")

    def write(self, data: bytes) -> None:
        """Send a part of the body: what `start_response` returns."""
        self._check_started()
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be bytes, not {data!r}")
        if data:
            self._send(data)

    def _part(self, part: Any) -> bytes:
        """Return a *part* of the body; raise, before anything of it is sent, unless it can be."""
        self._check_started()
        return checked(part)

    def _send(self, data: bytes) -> bool:
        """Send *data*, and the head before it; return whether there is room for more."""
        raise NotImplementedError

    def _start(self) -> None:
        """Send the head, in the base's thread."""
        self._sent = True
        self._exchange.start(self._status, self._headers, self._reason)

    def _whole(self, result: Any) -> bytes | None:
        """Return all of the body that *result* is, or None if its parts have to be asked for."""
        if self._sent or (type(result) is not list and type(result) is not tuple):
            return None
        self._check_started()
        return checked(result[0]) if len(result) == 1 else b"".join(result)

    def on_body(self) -> None:
        """There is more of the body."""

    def on_writable(self) -> None:
        """The output is sent."""

    def on_gone(self) -> None:
        """The client has left."""

    def on_finish(self) -> None:
        """Only what is upgraded is told."""

    def _fail(self, error: BaseException) -> None:
        """Answer for an application that has raised *error*, in the base's thread."""
        exchange = self._exchange
        if not (exchange.gone and isinstance(error, ClientDisconnected)):
            logger.error("the application has raised an exception", exc_info=error)
        if exchange.ended:
            return
        if exchange.started:
            exchange.abort()
        else:
            exchange.respond(500, FAILED, ERROR)


#: What comes after an answer's last part.
END = object()


class Inline(Answering):
    """A request that is answered in the base's thread."""

    _file: Any = None
    _result: Any = None
    _parts: Iterator[Any] | None = None
    _pumping = False

    def on_body(self) -> None:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # closed below
        exchange = self._exchange
        complete = exchange.complete
        try:
            self._file.write(exchange.take())
            if not complete:
                exchange.want()
                return
            self._file.seek(0)
        except OSError as error:  # the disk is full
            self._file.close()
            self._fail(error)
            return
        self.run(self._file)

    def on_gone(self) -> None:
        if self._parts is None and self._file is not None and not self._exchange.complete:
            self._file.close()
        if self._exchange.ended:
            self._close()

    # hot: once for each request.
    def run(self, body: Any) -> None:
        """Call the application, and send what it returns."""
        runner, exchange = self._runner, self._exchange
        try:
            environ = runner.environ_of(exchange, body)
            result = self._result = runner.application(environ, self.start_response)
            if type(result) is list and len(result) == 1 and self._status and not self._sent:
                # Most are so: what follows, without its frames. A list has nothing to close.
                part = result[0]
                if type(part) is not bytes:
                    part = checked(part)
                if not exchange.ended:
                    exchange.respond(self._status, self._headers, part, self._reason)
                if self._file is not None:
                    self._file.close()
                return
            whole = self._whole(result)
            if whole is not None:
                if not exchange.ended:
                    exchange.respond(self._status, self._headers, whole, self._reason)
                self._close()
                return
            self._parts = iter(result)
        except Exception as error:
            self._fail(error)
            self._close()
            return
        except BaseException:
            self._exchange.abort()
            raise
        self._pump()

    def on_writable(self) -> None:
        if self._parts is not None:
            self._pump()

    def _pump(self) -> None:
        """Send parts while there is room."""
        if self._pumping:
            return
        exchange = self._exchange
        self._pumping = True
        try:
            assert self._parts is not None
            for _ in range(PARTS):
                if exchange.ended:
                    self._close()
                    return
                part = next(self._parts, END)
                if part is END:
                    self._check_started()
                    if not self._sent:
                        self._start()
                    exchange.send(b"", False)
                    self._close()
                    return
                part = self._part(part)
                if part and not self._send(part):
                    return
        except Exception as error:
            self._fail(error)
            self._close()
            return
        finally:
            self._pumping = False
        self._runner.base.defer(self._pump_on)

    def _pump_on(self) -> None:
        if self._parts is not None:
            self._pump()

    def _send(self, data: bytes) -> bool:
        if not self._sent:
            self._start()
        return self._exchange.send(data, True)

    def _close(self) -> None:
        """Close what the application has returned."""
        result, self._result, self._parts = self._result, None, None
        if self._file is not None:
            self._file.close()
        if hasattr(result, "close"):
            try:
                result.close()
            except Exception:
                logger.exception("closing what the application has returned")


#: What a mailbox gets when the client has left.
GONE = object()


class Threaded(Answering):
    """A request that is answered in a thread of its own."""

    def __init__(self, runner: WsgiRunner, exchange: Exchange) -> None:
        super().__init__(runner, exchange)
        #: What comes back from the base's thread: results, exceptions, GONE.
        self._mail: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: What the thread waits for: "body", "room" or nothing. Only used in the base's thread.
        self._waits = ""
        self._gone = False
        #: The whole body, if it is there already.
        self._body = exchange.take() if exchange.complete else None

    # In the application's thread.

    def run(self) -> None:
        """Call the application, and send what it returns."""
        exchange, runner = self._exchange, self._runner
        body: Any
        if self._body is None:
            body = io.BufferedReader(Body(self), BLOCK)
        else:
            body = io.BytesIO(self._body)
        result: Any = None
        end: Callable[[], object]
        try:
            result = runner.application(runner.environ_of(exchange, body), self.start_response)
            whole = self._whole(result)
            if whole is None:
                for part in result:
                    data = self._part(part)
                    if data:
                        self._send(data)
                self._check_started()
                end = self._send_end
            else:
                end = functools.partial(
                    exchange.respond, self._status, self._headers, whole, self._reason
                )
        except BaseException as error:
            end = functools.partial(self._fail, error)
        self._later(functools.partial(self._finish, end))
        if hasattr(result, "close"):
            try:
                result.close()
            except Exception:
                logger.exception("closing what the application has returned")
        self._later(runner.idle)

    def _later(self, function: Callable[[], object]) -> None:
        """Have *function* called in the base's thread; not at all if the worker has ended."""
        with contextlib.suppress(ClosedError):
            self._runner.base.defer(function)

    def call(self, function: Callable[[], Any]) -> Any:
        """Have *function* called in the base's thread, and return what it puts into the mailbox."""
        if self._gone:
            raise ClientDisconnected("the client has left")
        self._later(functools.partial(self._called, function))
        answer = self._mail.get()
        if answer is GONE:
            raise ClientDisconnected("the client has left")
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _send(self, data: bytes) -> bool:
        self.call(functools.partial(self._send_here, data))
        return True

    # In the base's thread.

    def _called(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:
            self._mail.put(error)

    def _finish(self, end: Callable[[], object]) -> None:
        if self._exchange.ended:
            return
        try:
            end()
        except Exception as error:
            self._fail(error)

    def _send_here(self, data: bytes) -> None:
        if not self._sent:
            self._start()
        if self._exchange.send(data, True):
            self._mail.put(True)
        else:
            self._waits = "room"

    def _send_end(self) -> None:
        if not self._sent:
            self._start()
        self._exchange.send(b"", False)

    def take(self) -> None:
        """Put a part of the body into the mailbox, b"" at its end, or ask the client for it."""
        exchange = self._exchange
        complete = exchange.complete
        data = exchange.take()
        if data or complete:
            self._waits = ""
            self._mail.put(data)
        else:
            self._waits = "body"
            exchange.want()

    def on_body(self) -> None:
        if self._waits == "body":
            self.take()

    def on_writable(self) -> None:
        if self._waits == "room":
            self._waits = ""
            self._mail.put(True)

    def on_gone(self) -> None:
        if self._exchange.ended:
            self._gone = True
            self._mail.put(GONE)


class Body(io.RawIOBase):
    """`wsgi.input` while the body comes."""

    def __init__(self, answering: Threaded) -> None:
        self._answering = answering
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for a part of the body, and put it into *buffer*; return its size, 0 at the end."""
        if not self._rest and not self._ended:
            answering = self._answering
            self._rest = memoryview(answering.call(answering.take))
            self._ended = not self._rest
        size = min(len(self._rest), len(buffer))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
