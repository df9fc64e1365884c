"""libevent's constants as flags and enumerations, whose values C supplies."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from libevent_py._ffi import lib


class EventFlag(IntFlag):
    """What an event waits for, how it does, and what made it fire: the ``EV_`` flags."""

    TIMEOUT = lib.EV_TIMEOUT
    READ = lib.EV_READ
    WRITE = lib.EV_WRITE
    SIGNAL = lib.EV_SIGNAL
    PERSIST = lib.EV_PERSIST
    ET = lib.EV_ET
    FINALIZE = lib.EV_FINALIZE
    CLOSED = lib.EV_CLOSED


class EventFeature(IntFlag):
    """What a backend can do: the ``EV_FEATURE_`` flags."""

    ET = lib.EV_FEATURE_ET
    O1 = lib.EV_FEATURE_O1
    FDS = lib.EV_FEATURE_FDS
    EARLY_CLOSE = lib.EV_FEATURE_EARLY_CLOSE


class EventBaseFlag(IntFlag):
    """How an event base is to behave: the ``EVENT_BASE_FLAG_`` flags."""

    NOLOCK = lib.EVENT_BASE_FLAG_NOLOCK
    IGNORE_ENV = lib.EVENT_BASE_FLAG_IGNORE_ENV
    STARTUP_IOCP = lib.EVENT_BASE_FLAG_STARTUP_IOCP
    NO_CACHE_TIME = lib.EVENT_BASE_FLAG_NO_CACHE_TIME
    EPOLL_USE_CHANGELIST = lib.EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST
    PRECISE_TIMER = lib.EVENT_BASE_FLAG_PRECISE_TIMER


class EventBaseCount(IntFlag):
    """Which events to count: the ``EVENT_BASE_COUNT_`` flags."""

    ACTIVE = lib.EVENT_BASE_COUNT_ACTIVE
    VIRTUAL = lib.EVENT_BASE_COUNT_VIRTUAL
    ADDED = lib.EVENT_BASE_COUNT_ADDED


class LoopFlag(IntFlag):
    """When a loop returns: the ``EVLOOP_`` flags."""

    ONCE = lib.EVLOOP_ONCE
    NONBLOCK = lib.EVLOOP_NONBLOCK
    NO_EXIT_ON_EMPTY = lib.EVLOOP_NO_EXIT_ON_EMPTY


class LogSeverity(IntEnum):
    """How serious a message of libevent's is: the ``EVENT_LOG_`` constants."""

    DEBUG = lib.EVENT_LOG_DEBUG
    MSG = lib.EVENT_LOG_MSG
    WARN = lib.EVENT_LOG_WARN
    ERR = lib.EVENT_LOG_ERR


class DebugLogging(IntEnum):
    """Which debug messages libevent logs: the ``EVENT_DBG_`` constants."""

    NONE = lib.EVENT_DBG_NONE
    ALL = lib.EVENT_DBG_ALL


class MonotonicFlag(IntFlag):
    """Which clock a `MonotonicTimer` reads: the ``EV_MONOT_`` flags."""

    PRECISE = lib.EV_MONOT_PRECISE
    FALLBACK = lib.EV_MONOT_FALLBACK


class AddrInfoFlag(IntFlag):
    """How names are resolved: the ``EVUTIL_AI_`` flags."""

    PASSIVE = lib.EVUTIL_AI_PASSIVE
    CANONNAME = lib.EVUTIL_AI_CANONNAME
    NUMERICHOST = lib.EVUTIL_AI_NUMERICHOST
    NUMERICSERV = lib.EVUTIL_AI_NUMERICSERV
    V4MAPPED = lib.EVUTIL_AI_V4MAPPED
    ALL = lib.EVUTIL_AI_ALL
    ADDRCONFIG = lib.EVUTIL_AI_ADDRCONFIG


class AddrInfoError(IntEnum):
    """Why a name could not be resolved: the ``EVUTIL_EAI_`` codes."""

    ADDRFAMILY = lib.EVUTIL_EAI_ADDRFAMILY
    AGAIN = lib.EVUTIL_EAI_AGAIN
    BADFLAGS = lib.EVUTIL_EAI_BADFLAGS
    FAIL = lib.EVUTIL_EAI_FAIL
    FAMILY = lib.EVUTIL_EAI_FAMILY
    MEMORY = lib.EVUTIL_EAI_MEMORY
    NODATA = lib.EVUTIL_EAI_NODATA
    NONAME = lib.EVUTIL_EAI_NONAME
    SERVICE = lib.EVUTIL_EAI_SERVICE
    SOCKTYPE = lib.EVUTIL_EAI_SOCKTYPE
    SYSTEM = lib.EVUTIL_EAI_SYSTEM
    CANCEL = lib.EVUTIL_EAI_CANCEL


class EolStyle(IntEnum):
    """What ends a line: the ``EVBUFFER_EOL_`` styles."""

    ANY = lib.EVBUFFER_EOL_ANY
    CRLF = lib.EVBUFFER_EOL_CRLF
    CRLF_STRICT = lib.EVBUFFER_EOL_CRLF_STRICT
    LF = lib.EVBUFFER_EOL_LF
    NUL = lib.EVBUFFER_EOL_NUL


class FileSegmentFlag(IntFlag):
    """How the bytes of a file get into a buffer: the ``EVBUF_FS_`` flags."""

    CLOSE_ON_FREE = lib.EVBUF_FS_CLOSE_ON_FREE
    DISABLE_MMAP = lib.EVBUF_FS_DISABLE_MMAP
    DISABLE_SENDFILE = lib.EVBUF_FS_DISABLE_SENDFILE
    DISABLE_LOCKING = lib.EVBUF_FS_DISABLE_LOCKING


class BufferEventFlag(IntFlag):
    """What happened to a bufferevent: the ``BEV_EVENT_`` flags."""

    READING = lib.BEV_EVENT_READING
    WRITING = lib.BEV_EVENT_WRITING
    EOF = lib.BEV_EVENT_EOF
    ERROR = lib.BEV_EVENT_ERROR
    TIMEOUT = lib.BEV_EVENT_TIMEOUT
    CONNECTED = lib.BEV_EVENT_CONNECTED


class BufferEventOption(IntFlag):
    """How a bufferevent behaves: the ``BEV_OPT_`` flags, and one that C doesn't have.

    EAGER makes a plain socket faster than libevent does. It reads all that the kernel has, up to
    `BufferEvent.max_single_read`, instead of 4096 bytes at a time; and what `on_read` writes is
    sent once, as far as the kernel takes it, when it returns, instead of in the loop's next turn,
    whatever `BufferEvent.max_single_write`. With DEFER_CALLBACKS, `on_write`
    still comes in the loop's next turn; without, right after `on_read` when all has been sent.
    With a filter, TLS, a rate limit, a watermark, THREADSAFE or a buffer's own callback it is as if
    it weren't there.
    """

    CLOSE_ON_FREE = lib.BEV_OPT_CLOSE_ON_FREE
    THREADSAFE = lib.BEV_OPT_THREADSAFE
    DEFER_CALLBACKS = lib.BEV_OPT_DEFER_CALLBACKS
    UNLOCK_CALLBACKS = lib.BEV_OPT_UNLOCK_CALLBACKS
    EAGER = 1 << 30


class FlushMode(IntEnum):
    """How much to flush: the ``BEV_`` modes of ``bufferevent_flush``."""

    NORMAL = lib.BEV_NORMAL
    FLUSH = lib.BEV_FLUSH
    FINISHED = lib.BEV_FINISHED


class FilterResult(IntEnum):
    """What a filter says of its call: the ``BEV_`` results."""

    OK = lib.BEV_OK
    NEED_MORE = lib.BEV_NEED_MORE
    ERROR = lib.BEV_ERROR


class TriggerOption(IntFlag):
    """How callbacks are triggered: the ``BEV_TRIG_`` options."""

    IGNORE_WATERMARKS = lib.BEV_TRIG_IGNORE_WATERMARKS
    DEFER_CALLBACKS = lib.BEV_TRIG_DEFER_CALLBACKS


class ListenerOption(IntFlag):
    """How a listener behaves: the ``LEV_OPT_`` flags."""

    LEAVE_SOCKETS_BLOCKING = lib.LEV_OPT_LEAVE_SOCKETS_BLOCKING
    CLOSE_ON_FREE = lib.LEV_OPT_CLOSE_ON_FREE
    CLOSE_ON_EXEC = lib.LEV_OPT_CLOSE_ON_EXEC
    REUSEABLE = lib.LEV_OPT_REUSEABLE
    THREADSAFE = lib.LEV_OPT_THREADSAFE
    DISABLED = lib.LEV_OPT_DISABLED
    DEFERRED_ACCEPT = lib.LEV_OPT_DEFERRED_ACCEPT
    REUSEABLE_PORT = lib.LEV_OPT_REUSEABLE_PORT
    BIND_IPV6ONLY = lib.LEV_OPT_BIND_IPV6ONLY


def _of_tls(name: str, value: int) -> int:
    """Return C's constant, or where the module was built without TLS the *value* it has."""
    return int(getattr(lib, name, value))


class TlsState(IntEnum):
    """How a TLS connection begins: the ``BUFFEREVENT_SSL_`` states."""

    OPEN = _of_tls("BUFFEREVENT_SSL_OPEN", 0)
    CONNECTING = _of_tls("BUFFEREVENT_SSL_CONNECTING", 1)
    ACCEPTING = _of_tls("BUFFEREVENT_SSL_ACCEPTING", 2)


class TlsVersion(IntEnum):
    """The versions of TLS, with the numbers of `ssl.TLSVersion`: OpenSSL's ``_VERSION`` numbers."""

    TLSv1 = _of_tls("TLS1_VERSION", 0x0301)
    TLSv1_1 = _of_tls("TLS1_1_VERSION", 0x0302)
    TLSv1_2 = _of_tls("TLS1_2_VERSION", 0x0303)
    TLSv1_3 = _of_tls("TLS1_3_VERSION", 0x0304)


class DnsBaseFlag(IntFlag):
    """How a DNS base begins: the ``EVDNS_BASE_`` flags."""

    INITIALIZE_NAMESERVERS = lib.EVDNS_BASE_INITIALIZE_NAMESERVERS
    DISABLE_WHEN_INACTIVE = lib.EVDNS_BASE_DISABLE_WHEN_INACTIVE
    NAMESERVERS_NO_DEFAULT = lib.EVDNS_BASE_NAMESERVERS_NO_DEFAULT


class DnsOption(IntFlag):
    """What to take from a resolv.conf: the ``DNS_OPTION_`` flags."""

    SEARCH = lib.DNS_OPTION_SEARCH
    NAMESERVERS = lib.DNS_OPTION_NAMESERVERS
    MISC = lib.DNS_OPTION_MISC
    HOSTSFILE = lib.DNS_OPTION_HOSTSFILE
    NAMESERVERS_NO_DEFAULT = lib.DNS_OPTION_NAMESERVERS_NO_DEFAULT
    ALL = lib.DNS_OPTIONS_ALL


class DnsQueryFlag(IntFlag):
    """How a name is looked up: the ``DNS_QUERY_`` flags."""

    NO_SEARCH = lib.DNS_QUERY_NO_SEARCH


class DnsResult(IntEnum):
    """How a lookup ended, and what a server answers: the ``DNS_ERR_`` codes."""

    NONE = lib.DNS_ERR_NONE
    FORMAT = lib.DNS_ERR_FORMAT
    SERVERFAILED = lib.DNS_ERR_SERVERFAILED
    NOTEXIST = lib.DNS_ERR_NOTEXIST
    NOTIMPL = lib.DNS_ERR_NOTIMPL
    REFUSED = lib.DNS_ERR_REFUSED
    TRUNCATED = lib.DNS_ERR_TRUNCATED
    UNKNOWN = lib.DNS_ERR_UNKNOWN
    TIMEOUT = lib.DNS_ERR_TIMEOUT
    SHUTDOWN = lib.DNS_ERR_SHUTDOWN
    CANCEL = lib.DNS_ERR_CANCEL
    NODATA = lib.DNS_ERR_NODATA


class DnsType(IntEnum):
    """The types of DNS records: the ``EVDNS_TYPE_`` and ``EVDNS_QTYPE_`` numbers."""

    A = lib.EVDNS_TYPE_A
    NS = lib.EVDNS_TYPE_NS
    CNAME = lib.EVDNS_TYPE_CNAME
    SOA = lib.EVDNS_TYPE_SOA
    PTR = lib.EVDNS_TYPE_PTR
    MX = lib.EVDNS_TYPE_MX
    TXT = lib.EVDNS_TYPE_TXT
    AAAA = lib.EVDNS_TYPE_AAAA
    AXFR = lib.EVDNS_QTYPE_AXFR
    ALL = lib.EVDNS_QTYPE_ALL


class DnsClass(IntEnum):
    """The classes of DNS records: the ``EVDNS_CLASS_`` numbers."""

    INET = lib.EVDNS_CLASS_INET


class DnsSection(IntEnum):
    """The sections of a DNS reply: the ``EVDNS_`` ``_SECTION`` numbers."""

    ANSWER = lib.EVDNS_ANSWER_SECTION
    AUTHORITY = lib.EVDNS_AUTHORITY_SECTION
    ADDITIONAL = lib.EVDNS_ADDITIONAL_SECTION


class DnsFlag(IntFlag):
    """The flags of a DNS reply: the ``EVDNS_FLAGS_``."""

    AA = lib.EVDNS_FLAGS_AA
    RD = lib.EVDNS_FLAGS_RD


class HttpCommand(IntFlag):
    """The methods of HTTP: the ``EVHTTP_REQ_`` flags."""

    GET = lib.EVHTTP_REQ_GET
    POST = lib.EVHTTP_REQ_POST
    HEAD = lib.EVHTTP_REQ_HEAD
    PUT = lib.EVHTTP_REQ_PUT
    DELETE = lib.EVHTTP_REQ_DELETE
    OPTIONS = lib.EVHTTP_REQ_OPTIONS
    TRACE = lib.EVHTTP_REQ_TRACE
    CONNECT = lib.EVHTTP_REQ_CONNECT
    PATCH = lib.EVHTTP_REQ_PATCH


class HttpStatus(IntEnum):
    """The status codes that libevent knows by name: the ``HTTP_`` numbers."""

    OK = lib.HTTP_OK
    NOCONTENT = lib.HTTP_NOCONTENT
    MOVEPERM = lib.HTTP_MOVEPERM
    MOVETEMP = lib.HTTP_MOVETEMP
    NOTMODIFIED = lib.HTTP_NOTMODIFIED
    BADREQUEST = lib.HTTP_BADREQUEST
    NOTFOUND = lib.HTTP_NOTFOUND
    BADMETHOD = lib.HTTP_BADMETHOD
    ENTITYTOOLARGE = lib.HTTP_ENTITYTOOLARGE
    EXPECTATIONFAILED = lib.HTTP_EXPECTATIONFAILED
    INTERNAL = lib.HTTP_INTERNAL
    NOTIMPLEMENTED = lib.HTTP_NOTIMPLEMENTED
    SERVUNAVAIL = lib.HTTP_SERVUNAVAIL


class HttpRequestError(IntEnum):
    """Why a client's request failed: the ``EVREQ_HTTP_`` numbers."""

    TIMEOUT = lib.EVREQ_HTTP_TIMEOUT
    EOF = lib.EVREQ_HTTP_EOF
    INVALID_HEADER = lib.EVREQ_HTTP_INVALID_HEADER
    BUFFER_ERROR = lib.EVREQ_HTTP_BUFFER_ERROR
    REQUEST_CANCEL = lib.EVREQ_HTTP_REQUEST_CANCEL
    DATA_TOO_LONG = lib.EVREQ_HTTP_DATA_TOO_LONG


class HttpConnectionFlag(IntFlag):
    """How a client's connection behaves: the ``EVHTTP_CON_`` flags."""

    REUSE_CONNECTED_ADDR = lib.EVHTTP_CON_REUSE_CONNECTED_ADDR
    READ_ON_WRITE_ERROR = lib.EVHTTP_CON_READ_ON_WRITE_ERROR
    LINGERING_CLOSE = lib.EVHTTP_CON_LINGERING_CLOSE


class HttpServerFlag(IntFlag):
    """How a server behaves: the ``EVHTTP_SERVER_`` flags."""

    LINGERING_CLOSE = lib.EVHTTP_SERVER_LINGERING_CLOSE


class UriFlag(IntFlag):
    """How URIs are parsed: the ``EVHTTP_URI_`` flags."""

    NONCONFORMANT = lib.EVHTTP_URI_NONCONFORMANT


class RpcHook(IntEnum):
    """When a hook of an RPC server's or pool's runs: the ``EVRPC_INPUT`` and ``EVRPC_OUTPUT``."""

    INPUT = lib.EVRPC_INPUT
    OUTPUT = lib.EVRPC_OUTPUT


class RpcHookResult(IntEnum):
    """What a hook makes of an RPC: the ``EVRPC_TERMINATE``, ``_CONTINUE`` and ``_PAUSE``."""

    TERMINATE = lib.EVRPC_TERMINATE
    CONTINUE = lib.EVRPC_CONTINUE
    PAUSE = lib.EVRPC_PAUSE


class RpcStatus(IntEnum):
    """How an RPC ended: the ``EVRPC_STATUS_ERR_`` numbers."""

    NONE = lib.EVRPC_STATUS_ERR_NONE
    TIMEOUT = lib.EVRPC_STATUS_ERR_TIMEOUT
    BADPAYLOAD = lib.EVRPC_STATUS_ERR_BADPAYLOAD
    UNSTARTED = lib.EVRPC_STATUS_ERR_UNSTARTED
    HOOKABORTED = lib.EVRPC_STATUS_ERR_HOOKABORTED
