"""What libevent logs during a test."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from libevent_py import log
from libevent_py.enums import LogSeverity


class LogMessage(NamedTuple):
    """A message that libevent has logged."""

    #: How bad it is.
    severity: LogSeverity
    #: What libevent says, without a newline.
    text: str


class LibeventLog:
    """Keep what libevent logs inside a ``with`` block; the messages also go to `logging`, as ever.

    It takes the place of what `log.set_log_callback` was given, until the block ends.
    """

    def __init__(self) -> None:
        self._messages: list[LogMessage] = []

    def __enter__(self) -> LibeventLog:
        log.flush()  # what was logged before is not the block's
        self._before = log._callback
        log.set_log_callback(self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        log.set_log_callback(self._before)

    def _take(self, severity: LogSeverity, text: str) -> None:
        self._messages.append(LogMessage(severity, text))
        log.to_logging(severity, text)

    @property
    def messages(self) -> list[LogMessage]:
        """All messages so far, the oldest first; a list of your own."""
        log.flush()
        return list(self._messages)

    def texts(self, severity: LogSeverity) -> list[str]:
        """Return the texts of the messages of *severity*, the oldest first."""
        return [message.text for message in self.messages if message.severity is severity]

    @property
    def warnings(self) -> list[str]:
        """The texts of the warnings, the oldest first."""
        return self.texts(LogSeverity.WARN)

    @property
    def errors(self) -> list[str]:
        """The texts of the errors, the oldest first."""
        return self.texts(LogSeverity.ERR)

    def clear(self) -> None:
        """Forget the messages so far."""
        log.flush()
        self._messages.clear()
