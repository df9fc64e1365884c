"""Weather by remote procedure calls: a server that stores reports, and clients that ask for them.

A class describes a message, as an .rpc file does for libevent's event_rpcgen.py. So a C program can
be on either side:

    struct report { string city = 1; array int kelvins = 2; optional string words = 3; }
    struct question { string city = 1; }

Made of evrpc_init, evrpc_register_generic, evrpc_request_done, evrpc_pool_new,
evrpc_pool_add_connection, evrpc_make_request, evrpc_pool_free, evhttp_bind_socket and
evhttp_connection_base_new.

    python samples/rpc_weather.py 127.0.0.1 8888 serve
    python samples/rpc_weather.py 127.0.0.1 8888 tell Oslo "a little snow" -3 0 4
    python samples/rpc_weather.py 127.0.0.1 8888 ask Oslo
"""

from __future__ import annotations

import contextlib
import sys

import libevent_py
from libevent_py import EventBase, HttpServer, Message, Rpc, RpcCall, RpcPool, rpc_message


class Report(Message):
    city = rpc_message.String(1)
    kelvins = rpc_message.Array(rpc_message.Int(2))
    words = rpc_message.String(3, optional=True)

    def __str__(self) -> str:
        degrees = ", ".join(f"{kelvins - 273} C" for kelvins in self.kelvins)
        return f"{self.city}: {degrees or 'unknown'}{f' ({self.words})' if self.words else ''}"


class Question(Message):
    city = rpc_message.String(1)


def serve(base: EventBase, host: str, port: int) -> None:
    reports: dict[str, Report] = {}

    def tell(rpc: Rpc) -> None:
        reports[rpc.request.city] = rpc.reply = rpc.request
        rpc.done()

    def ask(rpc: Rpc) -> None:
        rpc.reply = reports.get(rpc.request.city) or Report(city=rpc.request.city)
        rpc.done()

    http = HttpServer(base)
    server = libevent_py.RpcServer(http)
    server.register("Tell", Report, Report, tell)
    server.register("Ask", Question, Report, ask)
    print("serving {}:{}, Ctrl-C to stop".format(*http.bind_socket(host, port).address), flush=True)
    base.dispatch()


def call(base: EventBase, host: str, port: int, name: str, request: Message) -> None:
    def replied(call: RpcCall) -> None:
        assert call.status is not None  # it is over
        if call.status is not libevent_py.RpcStatus.NONE:
            sys.exit(f"{host}:{port}: {call.status.name}")
        print(call.reply)
        call.pool.close()  # or its connection would keep the loop running

    with RpcPool(base) as pool:
        pool.add_connection(libevent_py.HttpConnection(base, host, port))
        pool.call(name, request, Report, replied)
        base.dispatch()


def main(host: str = "127.0.0.1", port: int | str = 8888, mode: str = "serve", *words: str) -> None:
    with EventBase() as base, contextlib.suppress(KeyboardInterrupt):
        if mode == "serve":
            serve(base, host, int(port))
        elif mode == "ask" and len(words) == 1:
            call(base, host, int(port), "Ask", Question(city=words[0]))
        elif mode == "tell" and len(words) > 1:
            city, said, *degrees = words
            kelvins = [273 + int(each) for each in degrees]  # its numbers have no sign
            report = Report(city=city, kelvins=kelvins, words=said or None)
            call(base, host, int(port), "Tell", report)
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
