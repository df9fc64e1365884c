"""The real libevent 2.1, in Python.

Every function of libevent's headers can be called as ``libevent_py.lib.…``. Those that belong to
one of the classes below are methods there, under C's own name without its prefix. ``python -m
libevent_py NAME`` says which method wraps a C function.
"""

__version__ = "0.1.0"

# load must be imported first: it switches libevent's locks on, before an object can be made.
from libevent_py._core.load import libevent_version as libevent_version
from libevent_py._core.load import libevent_version_number as libevent_version_number

# isort: split
from libevent_py import buffer as buffer
from libevent_py import bufferevent as bufferevent
from libevent_py import debug as debug
from libevent_py import dns as dns
from libevent_py import event as event
from libevent_py import http as http
from libevent_py import log as log
from libevent_py import rpc as rpc
from libevent_py import tag as tag
from libevent_py import types as types
from libevent_py import util as util
from libevent_py._ffi import ffi as ffi
from libevent_py._ffi import lib as lib
from libevent_py.buffer import Buffer as Buffer
from libevent_py.buffer import BufferCallback as BufferCallback
from libevent_py.buffer import BufferInfo as BufferInfo
from libevent_py.buffer import FileSegment as FileSegment
from libevent_py.bufferevent import BufferEvent as BufferEvent
from libevent_py.bufferevent import RateLimit as RateLimit
from libevent_py.bufferevent import RateLimitGroup as RateLimitGroup
from libevent_py.bufferevent import TlsContext as TlsContext
from libevent_py.dns import AddrInfoLookup as AddrInfoLookup
from libevent_py.dns import DnsBase as DnsBase
from libevent_py.dns import DnsLookup as DnsLookup
from libevent_py.dns import DnsQuestion as DnsQuestion
from libevent_py.dns import DnsServer as DnsServer
from libevent_py.dns import DnsServerRequest as DnsServerRequest
from libevent_py.enums import AddrInfoError as AddrInfoError
from libevent_py.enums import AddrInfoFlag as AddrInfoFlag
from libevent_py.enums import BufferEventFlag as BufferEventFlag
from libevent_py.enums import BufferEventOption as BufferEventOption
from libevent_py.enums import DebugLogging as DebugLogging
from libevent_py.enums import DnsBaseFlag as DnsBaseFlag
from libevent_py.enums import DnsClass as DnsClass
from libevent_py.enums import DnsFlag as DnsFlag
from libevent_py.enums import DnsOption as DnsOption
from libevent_py.enums import DnsQueryFlag as DnsQueryFlag
from libevent_py.enums import DnsResult as DnsResult
from libevent_py.enums import DnsSection as DnsSection
from libevent_py.enums import DnsType as DnsType
from libevent_py.enums import EolStyle as EolStyle
from libevent_py.enums import EventBaseCount as EventBaseCount
from libevent_py.enums import EventBaseFlag as EventBaseFlag
from libevent_py.enums import EventFeature as EventFeature
from libevent_py.enums import EventFlag as EventFlag
from libevent_py.enums import FileSegmentFlag as FileSegmentFlag
from libevent_py.enums import FilterResult as FilterResult
from libevent_py.enums import FlushMode as FlushMode
from libevent_py.enums import HttpCommand as HttpCommand
from libevent_py.enums import HttpConnectionFlag as HttpConnectionFlag
from libevent_py.enums import HttpRequestError as HttpRequestError
from libevent_py.enums import HttpServerFlag as HttpServerFlag
from libevent_py.enums import HttpStatus as HttpStatus
from libevent_py.enums import ListenerOption as ListenerOption
from libevent_py.enums import LogSeverity as LogSeverity
from libevent_py.enums import LoopFlag as LoopFlag
from libevent_py.enums import MemorySource as MemorySource
from libevent_py.enums import MonotonicFlag as MonotonicFlag
from libevent_py.enums import RpcHook as RpcHook
from libevent_py.enums import RpcHookResult as RpcHookResult
from libevent_py.enums import RpcStatus as RpcStatus
from libevent_py.enums import TlsState as TlsState
from libevent_py.enums import TlsVersion as TlsVersion
from libevent_py.enums import TriggerOption as TriggerOption
from libevent_py.enums import UriFlag as UriFlag
from libevent_py.errors import ClosedError as ClosedError
from libevent_py.errors import DnsError as DnsError
from libevent_py.errors import ForkError as ForkError
from libevent_py.errors import HttpError as HttpError
from libevent_py.errors import LibeventError as LibeventError
from libevent_py.errors import TagError as TagError
from libevent_py.errors import ThreadError as ThreadError
from libevent_py.errors import TlsError as TlsError
from libevent_py.event import CommonTimeout as CommonTimeout
from libevent_py.event import Event as Event
from libevent_py.event import EventBase as EventBase
from libevent_py.event import EventConfig as EventConfig
from libevent_py.http import BoundSocket as BoundSocket
from libevent_py.http import Headers as Headers
from libevent_py.http import HttpConnection as HttpConnection
from libevent_py.http import HttpRequest as HttpRequest
from libevent_py.http import HttpRequestSnapshot as HttpRequestSnapshot
from libevent_py.http import HttpServer as HttpServer
from libevent_py.http import HttpServerConnection as HttpServerConnection
from libevent_py.http import HttpServerRequest as HttpServerRequest
from libevent_py.http import Query as Query
from libevent_py.http import Uri as Uri
from libevent_py.http import decode_uri as decode_uri
from libevent_py.http import encode_uri as encode_uri
from libevent_py.http import htmlescape as htmlescape
from libevent_py.http import parse_query as parse_query
from libevent_py.http import parse_query_str as parse_query_str
from libevent_py.http import uridecode as uridecode
from libevent_py.http import uriencode as uriencode
from libevent_py.listener import Listener as Listener
from libevent_py.rpc import Message as Message
from libevent_py.rpc import Rpc as Rpc
from libevent_py.rpc import RpcCall as RpcCall
from libevent_py.rpc import RpcPool as RpcPool
from libevent_py.rpc import RpcServer as RpcServer
from libevent_py.rpc import message as rpc_message
from libevent_py.vulnerabilities import Vulnerability as Vulnerability
from libevent_py.vulnerabilities import known_vulnerabilities as known_vulnerabilities

__all__ = [
    "AddrInfoError",
    "AddrInfoFlag",
    "AddrInfoLookup",
    "BoundSocket",
    "Buffer",
    "BufferCallback",
    "BufferEvent",
    "BufferEventFlag",
    "BufferEventOption",
    "BufferInfo",
    "ClosedError",
    "CommonTimeout",
    "DebugLogging",
    "DnsBase",
    "DnsBaseFlag",
    "DnsClass",
    "DnsError",
    "DnsFlag",
    "DnsLookup",
    "DnsOption",
    "DnsQueryFlag",
    "DnsQuestion",
    "DnsResult",
    "DnsSection",
    "DnsServer",
    "DnsServerRequest",
    "DnsType",
    "EolStyle",
    "Event",
    "EventBase",
    "EventBaseCount",
    "EventBaseFlag",
    "EventConfig",
    "EventFeature",
    "EventFlag",
    "FileSegment",
    "FileSegmentFlag",
    "FilterResult",
    "FlushMode",
    "ForkError",
    "Headers",
    "HttpCommand",
    "HttpConnection",
    "HttpConnectionFlag",
    "HttpError",
    "HttpRequest",
    "HttpRequestError",
    "HttpRequestSnapshot",
    "HttpServer",
    "HttpServerConnection",
    "HttpServerFlag",
    "HttpServerRequest",
    "HttpStatus",
    "LibeventError",
    "Listener",
    "ListenerOption",
    "LogSeverity",
    "LoopFlag",
    "MemorySource",
    "Message",
    "MonotonicFlag",
    "Query",
    "RateLimit",
    "RateLimitGroup",
    "Rpc",
    "RpcCall",
    "RpcHook",
    "RpcHookResult",
    "RpcPool",
    "RpcServer",
    "RpcStatus",
    "TagError",
    "ThreadError",
    "TlsContext",
    "TlsError",
    "TlsState",
    "TlsVersion",
    "TriggerOption",
    "Uri",
    "UriFlag",
    "Vulnerability",
    "debug",
    "decode_uri",
    "dns",
    "encode_uri",
    "ffi",
    "htmlescape",
    "known_vulnerabilities",
    "lib",
    "libevent_version",
    "libevent_version_number",
    "log",
    "parse_query",
    "parse_query_str",
    "rpc_message",
    "tag",
    "uridecode",
    "uriencode",
    "util",
]
