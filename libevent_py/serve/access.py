"""The access log: a line for each answer, in the logger ``libevent_py.serve.access``."""

from __future__ import annotations

import logging
from typing import Final

from libevent_py.serve.engine import Exchange

logger: Final = logging.getLogger("libevent_py.serve.access")


def log(exchange: Exchange) -> None:
    """Log *exchange*, which has ended: who asked what, the status and the body's size.

    Without an answer the status is "-".
    """
    client = exchange.client
    logger.info(
        '%s "%s %s HTTP/%s" %s %d',
        "-" if client is None else f"{client[0]}:{client[1]}",
        exchange.method,
        exchange.target.decode("ascii", "backslashreplace"),
        exchange.version,
        exchange.status or "-",
        exchange.sent,
    )
