"""libevent's constants as flags and enumerations, whose values C supplies.

Each member has its own docstring, beside its value, which ``help(EventFlag)`` shows.
"""

from __future__ import annotations

import enum
import functools
import operator
from typing import TypeVar

from libevent_py._ffi import lib

F = TypeVar("F", bound="Flag")
N = TypeVar("N", bound="Number")


def _format(member: int, spec: str) -> str:
    """Format a member's name, or its number if *spec* asks for one, as ``:d`` or ``:#x`` do.

    Each version of Python has its own rule for members that are integers.
    """
    return int.__format__(member, spec) if spec[-1:] in NUMBERS else format(str(member), spec)


#: The last characters of formats for numbers.
NUMBERS = frozenset("bcdeEfFgGnoxX%")


class Flag(enum.IntFlag):
    """A set of libevent's flags: an integer that C takes, whose text is the names of its bits."""

    def __new__(cls: type[F], value: int, doc: str = "") -> F:
        """Make a member with a docstring of its own."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.__doc__ = doc
        return member

    @property
    def names(self) -> str:
        """The names of its bits, such as "READ|PERSIST"; unnamed bits as a number; "0" for 0."""
        members = type(self).__members__
        if self._name_ in members:
            return str(self._name_)
        left = int(self)
        if left < 0:  # Python 3.10 makes ~ negative; others keep the known bits
            left &= functools.reduce(operator.or_, map(int, members.values()), 0)
        found = []
        for name, member in members.items():
            bit = int(member)
            if bit & left and bit & (bit - 1) == 0:  # not a name for several bits
                found.append(name)
                left &= ~bit
        if left or not found:
            found.append(hex(left) if left else "0")
        return "|".join(found)

    def __str__(self) -> str:
        kind, names = type(self).__name__, self.names
        return f"{kind}({names})" if names[0] == "0" else f"{kind}.{names}"

    def __repr__(self) -> str:
        return f"<{self}: {int(self)}>"

    def __format__(self, spec: str) -> str:
        return _format(self, spec)


class Number(enum.IntEnum):
    """One of libevent's constants: an integer that C takes, whose text is its name."""

    def __new__(cls: type[N], value: int, doc: str = "") -> N:
        """Make a member with a docstring of its own."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.__doc__ = doc
        return member

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}: {int(self)}>"

    def __format__(self, spec: str) -> str:
        return _format(self, spec)


class EventFlag(Flag):
    """What an event waits for, how it waits, and what made it fire: the ``EV_`` flags."""

    TIMEOUT = lib.EV_TIMEOUT, "The timeout has passed."
    READ = lib.EV_READ, "The descriptor can be read, or is at its end."
    WRITE = lib.EV_WRITE, "The descriptor can be written."
    SIGNAL = lib.EV_SIGNAL, "The process has received the signal."
    PERSIST = lib.EV_PERSIST, "Stay pending after firing."
    ET = (
        lib.EV_ET,
        "Fire when the descriptor becomes ready, not for as long as it is: edge-triggered.",
    )
    FINALIZE = (
        lib.EV_FINALIZE,
        "Don't wait for a running callback when the event is deleted: for C's finalizers.",
    )
    CLOSED = (
        lib.EV_CLOSED,
        "The peer has closed its side of the connection, also while there is data to read.",
    )


class EventFeature(Flag):
    """What a backend can do: the ``EV_FEATURE_`` flags."""

    ET = lib.EV_FEATURE_ET, "It supports edge-triggered events."
    O1 = (
        lib.EV_FEATURE_O1,
        "The cost of adding, deleting and firing an event doesn't grow with the number of events.",
    )
    FDS = lib.EV_FEATURE_FDS, "It can wait for every kind of descriptor, regular files too."
    EARLY_CLOSE = (
        lib.EV_FEATURE_EARLY_CLOSE,
        "It reports that the peer has closed, even before all data is read: `EventFlag.CLOSED`.",
    )


class EventBaseFlag(Flag):
    """How an event base behaves: the ``EVENT_BASE_FLAG_`` flags."""

    NOLOCK = (
        lib.EVENT_BASE_FLAG_NOLOCK,
        "Use no lock: only the thread that makes the base may use it, or wake it.",
    )
    IGNORE_ENV = (
        lib.EVENT_BASE_FLAG_IGNORE_ENV,
        "Don't look at ``EVENT_NOEPOLL`` and the like in the environment.",
    )
    STARTUP_IOCP = lib.EVENT_BASE_FLAG_STARTUP_IOCP, "Use IOCP, which only Windows has."
    NO_CACHE_TIME = (
        lib.EVENT_BASE_FLAG_NO_CACHE_TIME,
        "Ask for the time for each callback, not once for each round of callbacks.",
    )
    EPOLL_USE_CHANGELIST = (
        lib.EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST,
        "Pass only the net changes on to epoll; don't use it with duplicated descriptors.",
    )
    PRECISE_TIMER = (
        lib.EVENT_BASE_FLAG_PRECISE_TIMER,
        "Use the system's most precise clock, even if reading it takes longer.",
    )


class EventBaseCount(Flag):
    """Which events to count: the ``EVENT_BASE_COUNT_`` flags."""

    ACTIVE = lib.EVENT_BASE_COUNT_ACTIVE, "Events whose callbacks are about to be called."
    VIRTUAL = (
        lib.EVENT_BASE_COUNT_VIRTUAL,
        "Things that keep the loop running without being events, such as work in a thread.",
    )
    ADDED = lib.EVENT_BASE_COUNT_ADDED, "Events that are pending."


class LoopFlag(Flag):
    """When a loop returns: the ``EVLOOP_`` flags."""

    ONCE = (
        lib.EVLOOP_ONCE,
        "Wait until something is ready, and return when its callbacks have been called.",
    )
    NONBLOCK = (
        lib.EVLOOP_NONBLOCK,
        "Don't wait; alone it goes on for as long as anything is ready: see `EventBase.loop`.",
    )
    NO_EXIT_ON_EMPTY = (
        lib.EVLOOP_NO_EXIT_ON_EMPTY,
        "Go on when no events are left, until something stops the loop.",
    )


class LogSeverity(Number):
    """How serious a message of libevent's is: the ``EVENT_LOG_`` constants."""

    DEBUG = lib.EVENT_LOG_DEBUG, "What libevent does, step by step."
    MSG = lib.EVENT_LOG_MSG, "Something worth knowing."
    WARN = lib.EVENT_LOG_WARN, "Something that has failed, or looks like a mistake."
    ERR = lib.EVENT_LOG_ERR, "A fatal error, after which libevent can't go on."


class MemorySource(Number):
    """Who has allocated memory that `debug` counts."""

    ANY = lib.EVPY_ANY, "Any of the others."
    LIBEVENT = lib.EVPY_LIBEVENT, "The library itself."
    OURS = lib.EVPY_OURS, "This package's own part in C."
    OPENSSL = lib.EVPY_OPENSSL, "OpenSSL."


class DebugLogging(Number):
    """Which debug messages libevent logs: the ``EVENT_DBG_`` constants."""

    NONE = lib.EVENT_DBG_NONE, "No debug messages."
    ALL = lib.EVENT_DBG_ALL, "All debug messages."


class MonotonicFlag(Flag):
    """Which clock a `util.MonotonicTimer` reads: the ``EV_MONOT_`` flags."""

    PRECISE = lib.EV_MONOT_PRECISE, "The most precise clock, even if reading it takes longer."
    FALLBACK = (
        lib.EV_MONOT_FALLBACK,
        "The clock for systems that have no monotonic one: for tests.",
    )


class AddrInfoFlag(Flag):
    """How names are resolved: the ``EVUTIL_AI_`` flags."""

    PASSIVE = (
        lib.EVUTIL_AI_PASSIVE,
        "Without a host, return addresses to listen on, not to connect to.",
    )
    CANONNAME = lib.EVUTIL_AI_CANONNAME, "Return the host's canonical name with the first address."
    NUMERICHOST = lib.EVUTIL_AI_NUMERICHOST, "The host is a numeric address: don't look it up."
    NUMERICSERV = lib.EVUTIL_AI_NUMERICSERV, "The service is a port number."
    V4MAPPED = lib.EVUTIL_AI_V4MAPPED, "Without IPv6 addresses, return IPv4 ones as IPv6."
    ALL = lib.EVUTIL_AI_ALL, "With V4MAPPED, return both kinds."
    ADDRCONFIG = (
        lib.EVUTIL_AI_ADDRCONFIG,
        "Return only addresses of families that this machine has an address of, too.",
    )


class AddrInfoError(Number):
    """Why a name could not be resolved: the ``EVUTIL_EAI_`` codes."""

    ADDRFAMILY = lib.EVUTIL_EAI_ADDRFAMILY, "The host has no address of that family."
    AGAIN = lib.EVUTIL_EAI_AGAIN, "The lookup failed for now, and may work later."
    BADFLAGS = lib.EVUTIL_EAI_BADFLAGS, "The flags were wrong."
    FAIL = lib.EVUTIL_EAI_FAIL, "The lookup failed for good."
    FAMILY = lib.EVUTIL_EAI_FAMILY, "The address family is not supported."
    MEMORY = lib.EVUTIL_EAI_MEMORY, "There was no memory."
    NODATA = lib.EVUTIL_EAI_NODATA, "The host has no addresses."
    NONAME = lib.EVUTIL_EAI_NONAME, "The host or the service is not known."
    SERVICE = lib.EVUTIL_EAI_SERVICE, "The service is not known for that socket type."
    SOCKTYPE = lib.EVUTIL_EAI_SOCKTYPE, "The socket type is not supported."
    SYSTEM = lib.EVUTIL_EAI_SYSTEM, "The system failed: errno says how."
    CANCEL = lib.EVUTIL_EAI_CANCEL, "The lookup was cancelled."


class EolStyle(Number):
    """What ends a line: the ``EVBUFFER_EOL_`` styles."""

    ANY = lib.EVBUFFER_EOL_ANY, "Any number of carriage returns and line feeds."
    CRLF = lib.EVBUFFER_EOL_CRLF, "A line feed, with or without a carriage return before it."
    CRLF_STRICT = lib.EVBUFFER_EOL_CRLF_STRICT, "A carriage return and a line feed."
    LF = lib.EVBUFFER_EOL_LF, "A line feed."
    NUL = lib.EVBUFFER_EOL_NUL, "A byte that is 0."


class FileSegmentFlag(Flag):
    """How the bytes of a file get into a buffer: the ``EVBUF_FS_`` flags."""

    CLOSE_ON_FREE = lib.EVBUF_FS_CLOSE_ON_FREE, "Close the descriptor with the segment."
    DISABLE_MMAP = lib.EVBUF_FS_DISABLE_MMAP, "Don't map the file into memory."
    DISABLE_SENDFILE = lib.EVBUF_FS_DISABLE_SENDFILE, "Don't let the kernel send the file."
    DISABLE_LOCKING = (
        lib.EVBUF_FS_DISABLE_LOCKING,
        "Use no lock: only one thread may use the segment.",
    )


class BufferEventFlag(Flag):
    """What happened to a bufferevent: the ``BEV_EVENT_`` flags."""

    READING = lib.BEV_EVENT_READING, "It happened while reading."
    WRITING = lib.BEV_EVENT_WRITING, "It happened while writing."
    EOF = lib.BEV_EVENT_EOF, "The peer has closed its side."
    ERROR = lib.BEV_EVENT_ERROR, "Something failed: `BufferEvent.error` says what."
    TIMEOUT = (
        lib.BEV_EVENT_TIMEOUT,
        "A timeout has passed, and its direction, READING or WRITING, is disabled from now on.",
    )
    CONNECTED = lib.BEV_EVENT_CONNECTED, "There is a connection; with TLS, the handshake is done."


class BufferEventOption(Flag):
    """How a bufferevent behaves: the ``BEV_OPT_`` flags, and one that C doesn't have.

    EAGER makes a plain socket faster than it is in C, most of all with `BufferEvent.on_data`. It
    reads all that the kernel has, up to `BufferEvent.max_single_read`, instead of 4096 bytes at a
    time. What ``on_read`` writes is sent when it returns, as far as the kernel takes it and
    regardless of `BufferEvent.max_single_write`, instead of in the loop's next turn. With
    DEFER_CALLBACKS, ``on_write`` is still called in the loop's next turn; without, right after
    ``on_read`` when all has been sent. EAGER is ignored with a filter, TLS, a rate limit, a
    watermark, THREADSAFE or a buffer's own callback.
    """

    CLOSE_ON_FREE = (
        lib.BEV_OPT_CLOSE_ON_FREE,
        "Close the descriptor, or the underlying bufferevent, with the bufferevent.",
    )
    THREADSAFE = (
        lib.BEV_OPT_THREADSAFE,
        "Use a lock, for calls by `libevent_py.lib` from several threads.",
    )
    DEFER_CALLBACKS = (
        lib.BEV_OPT_DEFER_CALLBACKS,
        "Call back from the loop, not inside the call that makes something happen.",
    )
    UNLOCK_CALLBACKS = (
        lib.BEV_OPT_UNLOCK_CALLBACKS,
        "Don't hold the lock while calling back; only with DEFER_CALLBACKS.",
    )
    EAGER = 1 << 30, "Read and write more at once than libevent does; not one of libevent's flags."


class FlushMode(Number):
    """How much to flush: the ``BEV_`` modes of ``bufferevent_flush``."""

    NORMAL = lib.BEV_NORMAL, "Pass on bytes of which there are enough."
    FLUSH = lib.BEV_FLUSH, "Pass on as many bytes as possible."
    FINISHED = lib.BEV_FINISHED, "Pass on all bytes, as nothing more will come."


class FilterResult(Number):
    """What a filter returns: the ``BEV_`` results."""

    OK = lib.BEV_OK, "The filter has done something: call it again if there is more."
    NEED_MORE = lib.BEV_NEED_MORE, "The filter waits for more input."
    ERROR = lib.BEV_ERROR, "The filter can't go on."


class TriggerOption(Flag):
    """How callbacks are triggered: the ``BEV_TRIG_`` options."""

    IGNORE_WATERMARKS = lib.BEV_TRIG_IGNORE_WATERMARKS, "Call back regardless of the watermarks."
    DEFER_CALLBACKS = lib.BEV_TRIG_DEFER_CALLBACKS, "Call back from the loop, not at once."


class ListenerOption(Flag):
    """How a listener behaves: the ``LEV_OPT_`` flags."""

    LEAVE_SOCKETS_BLOCKING = lib.LEV_OPT_LEAVE_SOCKETS_BLOCKING, "Leave connections blocking."
    CLOSE_ON_FREE = (
        lib.LEV_OPT_CLOSE_ON_FREE,
        "Close the socket with the listener, as a `Listener` always does.",
    )
    CLOSE_ON_EXEC = (
        lib.LEV_OPT_CLOSE_ON_EXEC,
        "Set close-on-exec on the connections.",
    )
    REUSEABLE = (
        lib.LEV_OPT_REUSEABLE,
        "Let another listener use the address as soon as this one has ended.",
    )
    THREADSAFE = (
        lib.LEV_OPT_THREADSAFE,
        "Use a lock, for calls by `libevent_py.lib` from several threads.",
    )
    DISABLED = lib.LEV_OPT_DISABLED, "Don't accept connections until `Listener.enable` is called."
    DEFERRED_ACCEPT = (
        lib.LEV_OPT_DEFERRED_ACCEPT,
        "Accept a connection only when data has arrived on it, if the system supports that.",
    )
    REUSEABLE_PORT = (
        lib.LEV_OPT_REUSEABLE_PORT,
        "Let several listeners share the address, if all of them have this option.",
    )
    BIND_IPV6ONLY = lib.LEV_OPT_BIND_IPV6ONLY, "Accept no IPv4 connections on an IPv6 address."


def _of_tls(name: str, value: int) -> int:
    """Return C's constant or, if the module was built without TLS, its known *value*."""
    return int(getattr(lib, name, value))


class TlsState(Number):
    """How a TLS connection begins: the ``BUFFEREVENT_SSL_`` states."""

    OPEN = _of_tls("BUFFEREVENT_SSL_OPEN", 0), "The handshake is done already."
    CONNECTING = (
        _of_tls("BUFFEREVENT_SSL_CONNECTING", 1),
        "This side is the client, and begins the handshake.",
    )
    ACCEPTING = (
        _of_tls("BUFFEREVENT_SSL_ACCEPTING", 2),
        "This side is the server, and waits for the handshake.",
    )


class TlsVersion(Number):
    """The versions of TLS, with the numbers of `ssl.TLSVersion`: OpenSSL's ``_VERSION`` numbers."""

    TLSv1 = _of_tls("TLS1_VERSION", 0x0301), "TLS 1.0, of 1999: not secure any more."
    TLSv1_1 = _of_tls("TLS1_1_VERSION", 0x0302), "TLS 1.1, of 2006: not secure any more."
    TLSv1_2 = _of_tls("TLS1_2_VERSION", 0x0303), "TLS 1.2, of 2008."
    TLSv1_3 = _of_tls("TLS1_3_VERSION", 0x0304), "TLS 1.3, of 2018."


class DnsBaseFlag(Flag):
    """How a DNS base begins: the ``EVDNS_BASE_`` flags."""

    INITIALIZE_NAMESERVERS = (
        lib.EVDNS_BASE_INITIALIZE_NAMESERVERS,
        "Read ``/etc/resolv.conf`` and ``/etc/hosts``.",
    )
    DISABLE_WHEN_INACTIVE = (
        lib.EVDNS_BASE_DISABLE_WHEN_INACTIVE,
        "Let the loop end while no lookup is pending.",
    )
    NAMESERVERS_NO_DEFAULT = (
        lib.EVDNS_BASE_NAMESERVERS_NO_DEFAULT,
        "Don't ask 127.0.0.1 when no name server is configured.",
    )


class DnsOption(Flag):
    """What to read from a resolv.conf: the ``DNS_OPTION_`` flags."""

    SEARCH = lib.DNS_OPTION_SEARCH, "The search domains."
    NAMESERVERS = lib.DNS_OPTION_NAMESERVERS, "The name servers."
    MISC = lib.DNS_OPTION_MISC, "The options, such as timeout."
    HOSTSFILE = lib.DNS_OPTION_HOSTSFILE, "The system's own hosts file."
    NAMESERVERS_NO_DEFAULT = (
        lib.DNS_OPTION_NAMESERVERS_NO_DEFAULT,
        "Don't add the name server 127.0.0.1 if the file has none.",
    )
    ALL = lib.DNS_OPTIONS_ALL, "All but NAMESERVERS_NO_DEFAULT."


class DnsQueryFlag(Flag):
    """How a name is looked up: the ``DNS_QUERY_`` flags."""

    NO_SEARCH = lib.DNS_QUERY_NO_SEARCH, "Look the name up as it is, not in the search domains."


class DnsResult(Number):
    """How a lookup ended, and what a server answers: the ``DNS_ERR_`` codes.

    A `DnsServer` may answer SERVERFAILED, but no lookup ends with it: evdns treats it as no answer,
    asks again, and ends with TIMEOUT.
    """

    NONE = lib.DNS_ERR_NONE, "There is an answer."
    FORMAT = lib.DNS_ERR_FORMAT, "The server did not understand the question."
    SERVERFAILED = (
        lib.DNS_ERR_SERVERFAILED,
        "The server can't answer: a lookup that gets this ends with TIMEOUT.",
    )
    NOTEXIST = lib.DNS_ERR_NOTEXIST, "There is no such name."
    NOTIMPL = lib.DNS_ERR_NOTIMPL, "The server doesn't answer this kind of question."
    REFUSED = lib.DNS_ERR_REFUSED, "The server refused to answer."
    TRUNCATED = lib.DNS_ERR_TRUNCATED, "The answer was cut short, or made no sense."
    UNKNOWN = lib.DNS_ERR_UNKNOWN, "Something went wrong that has no code."
    TIMEOUT = (
        lib.DNS_ERR_TIMEOUT,
        "No server has answered, or each has answered SERVERFAILED to every attempt.",
    )
    SHUTDOWN = lib.DNS_ERR_SHUTDOWN, "The `DnsBase` has been closed."
    CANCEL = lib.DNS_ERR_CANCEL, "The lookup has been cancelled."
    NODATA = lib.DNS_ERR_NODATA, "The name has no records of this type."


class DnsType(Number):
    """The types of DNS records: the ``EVDNS_TYPE_`` and ``EVDNS_QTYPE_`` numbers."""

    A = lib.EVDNS_TYPE_A, "An IPv4 address."
    NS = lib.EVDNS_TYPE_NS, "A name server's name."
    CNAME = lib.EVDNS_TYPE_CNAME, "The name that this one is an alias of."
    SOA = lib.EVDNS_TYPE_SOA, "The start of a zone of authority."
    PTR = lib.EVDNS_TYPE_PTR, "The name of an address."
    MX = lib.EVDNS_TYPE_MX, "A mail server's name."
    TXT = lib.EVDNS_TYPE_TXT, "Text."
    AAAA = lib.EVDNS_TYPE_AAAA, "An IPv6 address."
    AXFR = lib.EVDNS_QTYPE_AXFR, "A whole zone: only in questions."
    ALL = lib.EVDNS_QTYPE_ALL, "Records of all types: only in questions."


class DnsClass(Number):
    """The classes of DNS records: the ``EVDNS_CLASS_`` numbers."""

    INET = lib.EVDNS_CLASS_INET, "The Internet."


class DnsSection(Number):
    """The sections of a DNS reply: the ``EVDNS_`` ``_SECTION`` numbers."""

    ANSWER = lib.EVDNS_ANSWER_SECTION, "What was asked for."
    AUTHORITY = lib.EVDNS_AUTHORITY_SECTION, "Which servers are authoritative."
    ADDITIONAL = lib.EVDNS_ADDITIONAL_SECTION, "Other records that may be useful."


class DnsFlag(Flag):
    """The flags of a DNS reply: the ``EVDNS_FLAGS_``."""

    AA = lib.EVDNS_FLAGS_AA, "The server is authoritative for the name."
    RD = (
        lib.EVDNS_FLAGS_RD,
        "Recursion available, 0x0080, on the wire; libevent calls it recursion desired.",
    )


class HttpCommand(Flag):
    """The methods of HTTP: the ``EVHTTP_REQ_`` flags."""

    GET = lib.EVHTTP_REQ_GET, "Get the resource."
    POST = lib.EVHTTP_REQ_POST, "Let the resource process the body."
    HEAD = lib.EVHTTP_REQ_HEAD, "Get the resource's headers, without a body."
    PUT = lib.EVHTTP_REQ_PUT, "Replace the resource by the body."
    DELETE = lib.EVHTTP_REQ_DELETE, "Delete the resource."
    OPTIONS = lib.EVHTTP_REQ_OPTIONS, "Ask which methods are possible."
    TRACE = lib.EVHTTP_REQ_TRACE, "Ask the server to send the request back."
    CONNECT = lib.EVHTTP_REQ_CONNECT, "Ask a proxy to connect to another host."
    PATCH = lib.EVHTTP_REQ_PATCH, "Change a part of the resource."


class HttpStatus(Number):
    """The status codes that libevent knows by name: the ``HTTP_`` numbers."""

    OK = lib.HTTP_OK, "200: here is the answer."
    NOCONTENT = lib.HTTP_NOCONTENT, "204: done, and there is nothing to send."
    MOVEPERM = lib.HTTP_MOVEPERM, "301: the resource has moved for good."
    MOVETEMP = lib.HTTP_MOVETEMP, "302: the resource has moved for now."
    NOTMODIFIED = lib.HTTP_NOTMODIFIED, "304: the client's copy is up to date."
    BADREQUEST = lib.HTTP_BADREQUEST, "400: the request makes no sense."
    NOTFOUND = lib.HTTP_NOTFOUND, "404: there is nothing at this URI."
    BADMETHOD = lib.HTTP_BADMETHOD, "405: this URI doesn't allow the method."
    ENTITYTOOLARGE = lib.HTTP_ENTITYTOOLARGE, "413: the body is too large."
    EXPECTATIONFAILED = (
        lib.HTTP_EXPECTATIONFAILED,
        "417: the server can't do what the header Expect asks for.",
    )
    INTERNAL = lib.HTTP_INTERNAL, "500: the server has failed."
    NOTIMPLEMENTED = lib.HTTP_NOTIMPLEMENTED, "501: the server doesn't know this method."
    SERVUNAVAIL = lib.HTTP_SERVUNAVAIL, "503: the server can't answer for now."


class HttpRequestError(Number):
    """Why a client's request failed: the ``EVREQ_HTTP_`` numbers."""

    TIMEOUT = lib.EVREQ_HTTP_TIMEOUT, "Connecting, reading or writing has taken too long."
    EOF = (
        lib.EVREQ_HTTP_EOF,
        "The server has closed the connection before its response was complete.",
    )
    INVALID_HEADER = (
        lib.EVREQ_HTTP_INVALID_HEADER,
        "The response's first line or headers make no sense.",
    )
    BUFFER_ERROR = lib.EVREQ_HTTP_BUFFER_ERROR, "Reading or writing failed."
    REQUEST_CANCEL = lib.EVREQ_HTTP_REQUEST_CANCEL, "The request was cancelled."
    DATA_TOO_LONG = (
        lib.EVREQ_HTTP_DATA_TOO_LONG,
        "The response is larger than the connection allows.",
    )


class HttpConnectionFlag(Flag):
    """How a client's connection behaves: the ``EVHTTP_CON_`` flags."""

    REUSE_CONNECTED_ADDR = (
        lib.EVHTTP_CON_REUSE_CONNECTED_ADDR,
        "Connect again to the address that worked, without looking the host up.",
    )
    READ_ON_WRITE_ERROR = (
        lib.EVHTTP_CON_READ_ON_WRITE_ERROR,
        "Read the server's response even if the request can't be written.",
    )
    LINGERING_CLOSE = (
        lib.EVHTTP_CON_LINGERING_CLOSE,
        "Read on before closing; only for a server's connections.",
    )


class HttpServerFlag(Flag):
    """How a server behaves: the ``EVHTTP_SERVER_`` flags."""

    LINGERING_CLOSE = (
        lib.EVHTTP_SERVER_LINGERING_CLOSE,
        "Read the rest of a request that is too large, so that its client can read the answer.",
    )


class UriFlag(Flag):
    """How URIs are parsed: the ``EVHTTP_URI_`` flags."""

    NONCONFORMANT = lib.EVHTTP_URI_NONCONFORMANT, "Allow characters that RFC 3986 forbids."


class RpcHook(Number):
    """When a hook of an RPC server or pool runs: ``EVRPC_INPUT`` and ``EVRPC_OUTPUT``."""

    INPUT = lib.EVRPC_INPUT, "Before a received message is unpacked."
    OUTPUT = lib.EVRPC_OUTPUT, "Before a packed message is sent."


class RpcHookResult(Number):
    """What a hook returns: ``EVRPC_TERMINATE``, ``_CONTINUE`` and ``_PAUSE``."""

    TERMINATE = lib.EVRPC_TERMINATE, "Let the RPC fail."
    CONTINUE = lib.EVRPC_CONTINUE, "Go on with the RPC."
    PAUSE = lib.EVRPC_PAUSE, "Pause the RPC until it is resumed."


class RpcStatus(Number):
    """How an RPC ended: the ``EVRPC_STATUS_ERR_`` numbers."""

    NONE = lib.EVRPC_STATUS_ERR_NONE, "There is a reply."
    TIMEOUT = lib.EVRPC_STATUS_ERR_TIMEOUT, "The reply has not come in time."
    BADPAYLOAD = lib.EVRPC_STATUS_ERR_BADPAYLOAD, "The reply could not be understood."
    UNSTARTED = lib.EVRPC_STATUS_ERR_UNSTARTED, "The call could not be sent."
    HOOKABORTED = lib.EVRPC_STATUS_ERR_HOOKABORTED, "A hook has ended the call."
