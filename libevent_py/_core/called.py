"""How each callback is called, for the error of a program whose own takes other arguments."""

from __future__ import annotations

import os

ON_READ, ON_DATA = "on_read(bev)", "on_data(bev, data)"
ON_WRITE = "on_write(bev)"
ON_EVENT = "callback(event, fd, what)"

#: How a callback is called, by the function of the package's that calls it; where it calls several,
#: with the name of the class before it.
CALLS = {
    "AddrInfoLookup._tell": "callback(lookup, error, found)",
    "DnsLookup._tell": "callback(lookup, result, ttl, found)",
    "_accept_failed": "on_error(listener, error)",
    "_call": "on_end(request)",
    "_changed": "callback(buffer, info)",
    "_ended": "callback(call)",
    "_finish": "callback(request)",
    "_handle": "handler(rpc)",
    "_with_data": ON_DATA,
    "evpy_accept": "callback(listener, fd, address)",
    "evpy_bufferevent_event": "on_event(bev, what)",
    "evpy_dns_query": "callback(request)",
    "evpy_http_request": "handler(request)",
    "evpy_once_fired": "callback(fd, what)",
}

PACKAGE = os.path.dirname(os.path.dirname(__file__))


def explained(error: BaseException, source: object) -> BaseException:
    """Return *error*; if *source*'s callback could not take its arguments, say what they are."""
    if type(error) is not TypeError or "argument" not in str(error):
        return error
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    # Raised by the call itself, not within the callback.
    if at is not None and at.tb_frame.f_code.co_filename.startswith(PACKAGE):
        name = at.tb_frame.f_code.co_name
        how = CALLS.get(name) or CALLS.get(f"{type(source).__name__}.{name}")
        if how is not None:
            error.args = (f"{error}: it is called as {how}",)
    return error


def explained_as(error: BaseException, how: str) -> BaseException:
    """Do the same where C itself has called, as *how* says: then there is no frame to be seen."""
    if type(error) is TypeError and "argument" in str(error) and error.__traceback__ is None:
        error.args = (f"{error}: it is called as {how}",)
    return error
