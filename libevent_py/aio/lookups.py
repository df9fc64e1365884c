"""Looking names up by evdns, in a coroutine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libevent_py.aio.waits import can_go_on, forget, waiter_on
from libevent_py.dns.base import DnsBase
from libevent_py.dns.lookup import AddrInfoLookup

if TYPE_CHECKING:
    import asyncio


async def getaddrinfo(
    dns: DnsBase, host: str | bytes | None, service: int | str | None = None, **question: Any
) -> list[Any]:
    """Look *host* and *service* up by *dns*; return a list like that of `socket.getaddrinfo`.

    The *question* is as in `DnsBase.getaddrinfo`. Raises its `DnsError`. Cancelled, it cancels the
    lookup.
    """
    if not isinstance(dns, DnsBase):
        raise TypeError(f"dns must be a DnsBase, not {dns!r}")
    done: asyncio.Future[list[Any]] = waiter_on(dns.base)

    def ended(_lookup: AddrInfoLookup, error: Exception | None, found: list[Any]) -> None:
        if not can_go_on(done):
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found)

    lookup: AddrInfoLookup | None = None
    try:
        lookup = dns.getaddrinfo(host, service, ended, **question)
        return await done
    except BaseException:  # it is cancelled, or dropped
        if lookup is not None and not dns.base._forked:
            lookup.cancel()
        raise
    finally:
        forget(done)
