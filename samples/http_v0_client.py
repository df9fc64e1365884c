"""A client that writes ``GET`` itself, over HTTP/1.0, and prints the server's answer.

It connects to a host by its name, and says why if the name can't be looked up. The answer ends with
the connection. The lookup is done before the loop begins.

Made of bufferevent_socket_new, bufferevent_socket_connect_hostname,
bufferevent_socket_get_dns_error, evutil_gai_strerror, bufferevent_set_timeouts, bufferevent_setcb,
bufferevent_enable, bufferevent_write, bufferevent_read, bufferevent_free and event_base_dispatch.

    python samples/http_v0_client.py [host [port [path]]]
"""

from __future__ import annotations

import contextlib
import sys

from libevent_py import BufferEvent, BufferEventFlag, BufferEventOption, EventBase, EventFlag

OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS

#: How long the server may be silent, in seconds.
SILENCE = 10.0


def main(host: str = "127.0.0.1", port: int | str = 8888, path: str = "/") -> None:
    def on_read(bev: BufferEvent) -> None:
        sys.stdout.buffer.write(bev.read())
        sys.stdout.buffer.flush()

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            return
        if bev.dns_error is not None:
            sys.exit(f"DNS error: {bev.dns_error}")
        if what & BufferEventFlag.ERROR:
            sys.exit(f"{host}:{port}: {bev.error}")
        if what & BufferEventFlag.TIMEOUT:
            sys.exit(f"{host}:{port}: nothing came for {SILENCE:g} s")
        bev.close()  # the end of the answer; without it, nothing is left to wait for

    with EventBase() as base, contextlib.suppress(KeyboardInterrupt):
        bev = BufferEvent(base, -1, OPTIONS, on_read=on_read, on_event=on_event)
        bev.set_timeouts(read=SILENCE, write=SILENCE)
        bev.enable(EventFlag.READ)
        bev.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        bev.connect_hostname(None, host, int(port))
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
