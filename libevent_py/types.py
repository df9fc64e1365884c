"""Types to annotate a program with: what may be given, and what is called back.

::

    Timeout                       seconds, or None for no timeout
    FileDescriptor                the number of a descriptor, or an object with ``fileno()``
    Octets                        any object with the buffer protocol: bytes, bytearray, memoryview
    Body                          such an object, or a `Buffer`, which is emptied
    Address                       ``(host, port)``, ``(host, port, flowinfo, scope)`` or a path
    AddressLike                   what is taken for an address: also a path object
    HostAndPort                   what is taken for an address that must have a port
    AddrInfo                      one of the things that `util.getaddrinfo` finds

    EventCallback                 ``callback(event, fd, what)``, an event_callback_fn
    FinalizeCallback              ``finalize(event)``, an event_finalize_callback_fn
    OnceCallback                  ``callback(fd, what)``, an event_callback_fn
    ErrorCallback                 ``on_error(exception, source)`` of an `EventBase`
    LogCallback                   ``callback(severity, message)``, an event_log_cb
    FatalCallback                 ``callback(err)``, an event_fatal_cb
    BufferChangeCallback          ``callback(buffer, info)``, an evbuffer_cb_func
    CleanupCallback               ``on_cleanup()``, an evbuffer_file_segment_cleanup_cb
    DataCallback                  ``on_read(bev)`` or ``on_write(bev)``, a bufferevent_data_cb
    BufferEventCallback           ``on_event(bev, what)``, a bufferevent_event_cb
    FilterCallback                ``filter(source, destination, limit, mode)``, which returns a
                                  `FilterResult`: a bufferevent_filter_cb
    ListenerCallback              ``callback(listener, fd, address)``, an evconnlistener_cb
    ListenerErrorCallback         ``on_error(listener, error)``, an evconnlistener_errorcb
    ResolveCallback               ``callback(lookup, result, ttl, found)``, an evdns_callback_type
    AddrInfoCallback              ``callback(lookup, error, found)``, an evdns_getaddrinfo_cb
    DnsServerCallback             ``callback(request)``, an evdns_request_callback_fn_type
    HttpHandler                   ``handler(request)`` of an `HttpServer`, as evhttp_set_cb() takes
                                  it, and what else is told of an `HttpServerRequest`
    HttpServerConnectionCallback  ``on_close(connection)`` of a server's connection
    BevCallback                   ``callback(base)``, which returns a `BufferEvent` or None, as
                                  evhttp_set_bevcb() takes it
    HttpRequestCallback           ``callback(request)``, as evhttp_request_new() takes it
    HttpErrorCallback             ``on_error(request, code)``, as evhttp_request_set_error_cb() does
    HttpInformationalCallback     ``on_informational(request, code, headers)``
    HttpConnectionCallback        ``on_close(connection)`` of a client's connection
    RpcHandler                    ``handler(rpc)`` of an `RpcServer`
    RpcCallback                   ``callback(call)`` of an `RpcCall`
    RpcHookCallback               ``hook(context, request, buffer)``, which returns an
                                  `RpcHookResult`

Where nothing else is said, what a callback returns is ignored.
"""

from __future__ import annotations

from libevent_py._core.addrinfo import AddrInfo as AddrInfo
from libevent_py._core.convert import Address as Address
from libevent_py._core.convert import AddressLike as AddressLike
from libevent_py._core.convert import FileDescriptor as FileDescriptor
from libevent_py._core.convert import HostAndPort as HostAndPort
from libevent_py._core.convert import Octets as Octets
from libevent_py._core.convert import Timeout as Timeout
from libevent_py.buffer.callbacks import BufferChangeCallback as BufferChangeCallback
from libevent_py.buffer.segment import CleanupCallback as CleanupCallback
from libevent_py.bufferevent.callbacks import BufferEventCallback as BufferEventCallback
from libevent_py.bufferevent.callbacks import DataCallback as DataCallback
from libevent_py.bufferevent.layers import FilterCallback as FilterCallback
from libevent_py.dns.lookup import AddrInfoCallback as AddrInfoCallback
from libevent_py.dns.lookup import ResolveCallback as ResolveCallback
from libevent_py.dns.server import DnsServerCallback as DnsServerCallback
from libevent_py.event.base import ErrorCallback as ErrorCallback
from libevent_py.event.base import OnceCallback as OnceCallback
from libevent_py.event.event import EventCallback as EventCallback
from libevent_py.event.event import FinalizeCallback as FinalizeCallback
from libevent_py.http.client import HttpConnectionCallback as HttpConnectionCallback
from libevent_py.http.request import Body as Body
from libevent_py.http.request import HttpErrorCallback as HttpErrorCallback
from libevent_py.http.request import HttpInformationalCallback as HttpInformationalCallback
from libevent_py.http.request import HttpRequestCallback as HttpRequestCallback
from libevent_py.http.server import BevCallback as BevCallback
from libevent_py.http.server_connection import (
    HttpServerConnectionCallback as HttpServerConnectionCallback,
)
from libevent_py.http.server_request import HttpHandler as HttpHandler
from libevent_py.listener import ListenerCallback as ListenerCallback
from libevent_py.listener import ListenerErrorCallback as ListenerErrorCallback
from libevent_py.log import FatalCallback as FatalCallback
from libevent_py.log import LogCallback as LogCallback
from libevent_py.rpc.hooks import RpcHookCallback as RpcHookCallback
from libevent_py.rpc.pool import RpcCallback as RpcCallback
from libevent_py.rpc.server import RpcHandler as RpcHandler

__all__ = [
    "AddrInfo",
    "AddrInfoCallback",
    "Address",
    "AddressLike",
    "BevCallback",
    "Body",
    "BufferChangeCallback",
    "BufferEventCallback",
    "CleanupCallback",
    "DataCallback",
    "DnsServerCallback",
    "ErrorCallback",
    "EventCallback",
    "FatalCallback",
    "FileDescriptor",
    "FilterCallback",
    "FinalizeCallback",
    "HostAndPort",
    "HttpConnectionCallback",
    "HttpErrorCallback",
    "HttpHandler",
    "HttpInformationalCallback",
    "HttpRequestCallback",
    "HttpServerConnectionCallback",
    "ListenerCallback",
    "ListenerErrorCallback",
    "LogCallback",
    "Octets",
    "OnceCallback",
    "ResolveCallback",
    "RpcCallback",
    "RpcHandler",
    "RpcHookCallback",
    "Timeout",
]
