"""Every operation of every public class, each as a function of the scene that it is tried in.

A name is that of a method or a property; ``=`` after it means setting the property, and a slash and
a word distinguish several ways to use it. The functions of the module ``tag`` are among them, too.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    DnsBase,
    DnsBaseFlag,
    DnsOption,
    DnsResult,
    DnsSection,
    DnsServer,
    EolStyle,
    Event,
    EventBase,
    EventBaseCount,
    EventBaseFlag,
    EventConfig,
    EventFeature,
    FileSegment,
    FlushMode,
    Headers,
    HttpCommand,
    HttpConnection,
    HttpConnectionFlag,
    HttpRequest,
    HttpServer,
    HttpServerFlag,
    Listener,
    Query,
    RateLimit,
    RateLimitGroup,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
    TlsContext,
    TlsState,
    Uri,
    UriFlag,
    tag,
)
from libevent_py.util import MonotonicTimer
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.rpc_messages import REQUEST, Kill, Msg, Run
from tests.kit.scenes import ONCE_NOW, file, ignore, passing, port

LIMIT = RateLimit(1000, 1000, 1000, 1000)
RATE = RateLimit(500, 500, 500, 500)

Operation = Callable[[Any], Any]
Operations = dict[str, Operation]


def get(*names: str) -> Operations:
    """Return the operations that read the attributes *names*."""

    def one(name: str) -> Operation:
        return lambda s: getattr(s.it, name)

    return {name: one(name) for name in names}


def put(name: str, value: Callable[[Any], Any] | Any) -> Operations:
    """Return the operation that sets *name* to *value*, or to what *value* makes of the scene."""
    if callable(value) and getattr(value, "__name__", "") == "<lambda>":
        return {f"{name}=": lambda s: setattr(s.it, name, value(s))}
    return {f"{name}=": lambda s: setattr(s.it, name, value)}


def called(*names: str) -> Operations:
    """Return the operations that call the methods *names* without arguments."""

    def one(name: str) -> Operation:
        return lambda s: getattr(s.it, name)()

    return {name: one(name) for name in names}


def entered(s: Any) -> None:
    with s.it:
        pass


def finalized(s: Any) -> None:
    """Drop what the operation is of, under whatever names the scene has it."""
    it = s.it
    for name in [name for name, thing in vars(s).items() if thing is it]:
        delattr(s, name)
    del it


def not_copied(s: Any) -> None:
    with contextlib.suppress(TypeError):
        copy.copy(s.it)


#: What every handle has.
HANDLE: Operations = {
    **called("close"),
    **get("closed", "pointer"),
    "__enter__": entered,
    "__exit__": entered,
    "__reduce_ex__": not_copied,
    "__repr__": lambda s: repr(s.it),
}

#: What everything made on a base has.
CHILD: Operations = {**HANDLE, **get("base"), "__del__": finalized}


def duplicate(sock: Any) -> Any:
    """Return a socket object of its own, which an operation may take."""
    return sock.dup()


def taken(make: Callable[[Any], Any], sock: Any) -> Any:
    """Return what *make* makes of a copy of *sock*; close that unless it has been taken."""
    own = sock.dup()
    with own:
        return make(own)


def dispatched(s: Any) -> None:
    it = s.it
    it.loopexit()
    it.dispatch()


def turned(s: Any) -> None:
    it = s.it
    with it.turns():
        it.turn(0.0)
        it.turn(0.001)


def threaded(s: Any) -> None:
    it = s.it
    try:
        with it.in_thread():
            pass
    except KeyboardInterrupt:
        it.close()  # an interrupt right where the block is left leaves the thread to this
        raise


def collected(s: Any) -> None:
    """Drop the base with all that is made on it, as one cycle."""
    for name in ("event", "it", "base"):
        vars(s).pop(name, None)
    gc.collect()


EVENT_BASE: Operations = {
    **HANDLE,
    "__init__": lambda s: EventBase(s.config, priorities=3),
    "__del__": collected,
    **get("method", "features", "n_priorities", "running_event", "got_exit", "got_break"),
    **get("gettimeofday_cached", "gettime_monotonic", "on_error"),
    **put("on_error", ignore),
    **called("supported_methods", "events", "dump_events", "explain", "update_cache_time"),
    **called("take_over"),
    **called("make_notifiable", "reinit", "loopexit", "loopbreak", "loopcontinue", "dispatch"),
    "loopexit/later": lambda s: s.it.loopexit(60),
    "loop": lambda s: s.it.loop(ONCE_NOW),
    "dispatch": dispatched,
    "turn": lambda s: s.it.turn(0),
    "turn/a while": lambda s: s.it.turn(0.001),
    "turns": turned,
    "num_events": lambda s: s.it.num_events(EventBaseCount.ADDED),
    "max_events": lambda s: s.it.max_events(EventBaseCount.ADDED, True),
    "active_by_fd": lambda s: s.it.active_by_fd(s.here, WRITE),
    "active_by_signal": lambda s: s.it.active_by_signal(signal.SIGUSR1),
    "init_common_timeout": lambda s: s.it.init_common_timeout(30.0),
    "once": lambda s: s.it.once(ignore),
    "once/of a descriptor": lambda s: s.it.once(ignore, fd=s.here, what=WRITE, timeout=60),
    "defer": lambda s: s.it.defer(ignore),
    "call": lambda s: s.it.call(ignore).cancel(),
    "in_thread": threaded,
}

EVENT: Operations = {
    **CHILD,
    "__init__": lambda s: Event(s.base, s.here, WRITE | PERSIST, ignore, priority=0),
    "timer": lambda s: Event.timer(s.base, ignore, persist=True),
    "signal": lambda s: Event.signal(s.base, signal.SIGUSR1, ignore),
    "user": lambda s: Event.user(s.base, ignore),
    "add": lambda s: s.it.add(60.0),
    "add/for ever": lambda s: s.it.add(),
    "add/for a common timeout": lambda s: s.it.add(s.common),
    "add/for an int": lambda s: s.it.add(60),
    **called("delete", "remove_timer", "active"),
    "delete/and block": lambda s: s.it.delete(block=True),
    "active/for more": lambda s: s.it.active(READ, 2),
    **get("pending", "expires", "initialized", "fd", "signum", "what", "callback", "priority"),
    **put("callback", print),
    **put("priority", 0),
    "close/with a finalizer": lambda s: s.it.close(ignore),
}

COMMON_TIMEOUT: Operations = {
    **get("pointer", "base", "seconds"),
    "__init__": lambda s: s.base.init_common_timeout(30.0),
    "__repr__": lambda s: repr(s.it),
}

EVENT_CONFIG: Operations = {
    **HANDLE,
    "__init__": lambda s: EventConfig(
        avoid=["select"],
        require=EventFeature.O1,
        flags=EventBaseFlag.NOLOCK,
        max_dispatch_interval=1,
        cpus_hint=2,
    ),
    **get("flags"),
    "avoid_method": lambda s: s.it.avoid_method("select"),
    "require_features": lambda s: s.it.require_features(EventFeature.O1),
    "set_flag": lambda s: s.it.set_flag(EventBaseFlag.NOLOCK),
    "set_num_cpus_hint": lambda s: s.it.set_num_cpus_hint(2),
    "set_max_dispatch_interval": lambda s: s.it.set_max_dispatch_interval(1.0, 5, 1),
    "a base": lambda s: EventBase(s.it),
}

MONOTONIC_TIMER: Operations = {
    **HANDLE,
    "__init__": lambda s: MonotonicTimer(),
    **called("time"),
}


def reserved(s: Any) -> None:
    it = s.it
    with it.reserve(10) as view:
        view[:5] = b"hello"
        it.commit(5)


def reserved_in_vain(s: Any) -> None:
    with s.it.reserve(10):
        pass


def locked(s: Any) -> None:
    with s.it.lock():
        pass


def read_from(s: Any) -> None:
    """Read from a file: its offset is shared, so it is set back."""
    os.lseek(file().fileno(), 0, os.SEEK_SET)
    s.it.read(file(), 100)


def written_to(s: Any) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        s.it.write(here, 100)


def appended(s: Any) -> None:
    s.it += b"more"


def watched(s: Any) -> None:
    s.it.add_cb(ignore)


BUFFER: Operations = {
    **HANDLE,
    "__init__": lambda s: Buffer(bytearray(b"data")),
    "freeze": lambda s: s.it.freeze(True),
    "unfreeze": lambda s: s.it.unfreeze(True),
    **called("enable_locking", "peek", "pullup", "__len__", "__bool__", "__bytes__"),
    "defer_callbacks": lambda s: s.it.defer_callbacks(s.base),
    "peek/some": lambda s: s.it.peek(10, 5),
    "pullup/some": lambda s: s.it.pullup(10),
    "add_reference": lambda s: s.it.add_reference(bytearray(b"data")),
    "add_buffer_reference": lambda s: s.it.add_buffer_reference(s.other),
    "add_buffer_reference/to this": lambda s: s.other.add_buffer_reference(s.it),
    "add_file_segment": lambda s: s.it.add_file_segment(s.segment),
    "add_file": lambda s: s.it.add_file(file(), 0, 10),
    "reserve": reserved,
    "reserve/in vain": reserved_in_vain,
    "commit": reserved,
    "add_cb": watched,
    "lock": locked,
    "__iter__": lambda s: list(s.it),
    "__contains__": lambda s: b"two" in s.it,
    "__eq__": lambda s: s.it == s.other,
    "__eq__/with bytes": lambda s: s.it == b"other",
    "__iadd__": appended,
    "add": lambda s: s.it.add(b"data"),
    "add/a bytearray": lambda s: s.it.add(bytearray(b"data")),
    "prepend": lambda s: s.it.prepend(b"data"),
    "add_iovec": lambda s: s.it.add_iovec([b"one", bytearray(b"two")]),
    "add_buffer": lambda s: s.it.add_buffer(s.other),
    "add_buffer/to another": lambda s: s.other.add_buffer(s.it),
    "prepend_buffer": lambda s: s.it.prepend_buffer(s.other),
    "prepend_buffer/to another": lambda s: s.other.prepend_buffer(s.it),
    "expand": lambda s: s.it.expand(100),
    **get("contiguous_space"),
    "remove": lambda s: s.it.remove(10),
    "remove/all": lambda s: s.it.remove(),
    "remove_into": lambda s: s.it.remove_into(bytearray(10)),
    "remove_buffer": lambda s: s.it.remove_buffer(s.other, 10),
    "remove_buffer/of another": lambda s: s.other.remove_buffer(s.it, 2),
    "copyout": lambda s: s.it.copyout(10, 2),
    "copyout/all": lambda s: s.it.copyout(),
    "drain": lambda s: s.it.drain(10),
    "readln": lambda s: s.it.readln(),
    "readln/of another style": lambda s: s.it.readln(EolStyle.LF),
    "search": lambda s: s.it.search(b"two"),
    "search/between": lambda s: s.it.search(b"two", 1, 9),
    "search_eol": lambda s: s.it.search_eol(),
    "read": read_from,
    "write": written_to,
}


def after(marshal: str, value: Any, unmarshal: str, *more: Any) -> Operations:
    """Return the operation that calls *unmarshal* after *value* has been put there by *marshal*."""

    def operation(s: Any) -> Any:
        target = s.target
        getattr(tag, marshal)(target, 1, value)
        return getattr(tag, unmarshal)(target, *more)

    return {unmarshal: operation}


TAG: Operations = {
    "init": lambda s: tag.init(),
    "marshal": lambda s: tag.marshal(s.it, 1, b"data"),
    "marshal/a bytearray": lambda s: tag.marshal(s.it, 1, bytearray(b"data")),
    "marshal_buffer": lambda s: tag.marshal_buffer(s.it, 1, s.other),
    "marshal_int": lambda s: tag.marshal_int(s.it, 1, 5),
    "marshal_int64": lambda s: tag.marshal_int64(s.it, 1, 5),
    "marshal_string": lambda s: tag.marshal_string(s.it, 1, "text"),
    "marshal_timeval": lambda s: tag.marshal_timeval(s.it, 1, 1.5),
    "encode_int": lambda s: tag.encode_int(s.it, 5),
    "encode_int64": lambda s: tag.encode_int64(s.it, 5),
    "peek": lambda s: tag.peek(s.it),
    **after("marshal", b"data", "peek_length"),
    **after("marshal", b"data", "payload_length"),
    **after("marshal", b"data", "unmarshal"),
    **after("marshal", b"data", "unmarshal_header"),
    **after("marshal", b"data", "consume"),
    **after("marshal_int", 5, "unmarshal_int", 1),
    **after("marshal_int64", 5, "unmarshal_int64", 1),
    **after("marshal", b"data", "unmarshal_fixed", 1, 4),
    **after("marshal_string", "text", "unmarshal_string", 1),
    **after("marshal_timeval", 1.5, "unmarshal_timeval", 1),
}

BUFFER_CALLBACK: Operations = {
    "__init__": lambda s: s.buffer.add_cb(ignore),
    "__repr__": lambda s: repr(s.it),
    **get("callback", "buffer", "enabled"),
    **put("enabled", False),
    "remove": lambda s: s.it.remove(),
}

FILE_SEGMENT: Operations = {
    **HANDLE,
    "__init__": lambda s: FileSegment(file(), 10, 10, on_cleanup=ignore),
    **get("on_cleanup", "length"),
    **put("on_cleanup", print),
    "into a buffer": lambda s: s.buffer.add_file_segment(s.it, 10, 10),
}


def connected(s: Any) -> None:
    s.it.connect(("127.0.0.1", port()))


def detached(s: Any) -> None:
    fd = s.it.detach()
    if fd >= 0:
        os.close(fd)


def appended_output(s: Any) -> None:
    s.it.output += b"more"


def set_fd(s: Any) -> None:
    here, there = socket.socketpair()
    with there, here:
        s.it.fd = here


def own_socket(s: Any) -> Any:
    here, there = socket.socketpair()
    with there, here:
        return BufferEvent(s.base, here, on_read=ignore)


def own_tls(s: Any) -> Any:
    here, there = socket.socketpair()
    with there, here:
        return BufferEvent.tls(s.base, here, s.context, on_event=ignore)


def own_ssl(s: Any) -> Any:
    """Make TLS of the raw layer's ``SSL *``."""
    session = s.context._session(None, None)
    try:
        return BufferEvent.tls(s.base, -1, session.ssl, TlsState.CONNECTING)
    finally:
        session.release()


BUFFER_EVENT: Operations = {
    **CHILD,
    "__init__": own_socket,
    "pair": lambda s: BufferEvent.pair(s.base),
    "filter": lambda s: BufferEvent.filter(s.it, passing, passing, on_read=ignore),
    "tls": own_tls,
    "tls_filter": lambda s: BufferEvent.tls_filter(s.it, s.context, on_read=ignore),
    "connect": connected,
    **get("partner", "fd", "dns_error", "underlying", "error"),
    **get("on_read", "on_data", "on_write", "on_event"),
    "fd=": set_fd,
    "detach": detached,
    "connect_hostname": lambda s: s.it.connect_hostname(s.dns, "example.test", 80),
    "connect_hostname/at once": lambda s: s.it.connect_hostname(None, "127.0.0.1", port()),
    "close/and flush": lambda s: s.it.close(flush=True),
    "setcb": lambda s: s.it.setcb(ignore, ignore, ignore),
    **put("on_read", print),
    **put("on_data", print),
    **put("on_write", print),
    **put("on_event", print),
    "read": lambda s: s.it.read(),
    "read/some": lambda s: s.it.read(2),
    "write": lambda s: s.it.write(b"data"),
    "write/a bytearray": lambda s: s.it.write(bytearray(b"data")),
    "read_buffer": lambda s: s.it.read_buffer(s.buffer),
    "write_buffer": lambda s: s.it.write_buffer(s.buffer),
    **get("input", "output", "enabled", "priority"),
    "output=": appended_output,
    "enable": lambda s: s.it.enable(READ | WRITE),
    "disable": lambda s: s.it.disable(READ | WRITE),
    "setwatermark": lambda s: s.it.setwatermark(READ, 1, 100),
    "getwatermark": lambda s: s.it.getwatermark(READ),
    "set_timeouts": lambda s: s.it.set_timeouts(1.0, 2),
    "flush": lambda s: s.it.flush(WRITE, FlushMode.FINISHED),
    "trigger": lambda s: s.it.trigger(READ | WRITE),
    "trigger_event": lambda s: s.it.trigger_event(BufferEventFlag.EOF),
    **put("priority", 1),
    "lock": locked,
    **get("ssl", "tls_version", "cipher", "peer_certificate", "peer_certificate_chain"),
    **get("alpn_protocol", "server_hostname", "session_reused", "allow_dirty_shutdown"),
    **put("allow_dirty_shutdown", True),
    **called("renegotiate", "shutdown", "tls_errors"),
    "rate_limit=": lambda s: setattr(s.it, "rate_limit", RATE),
    "rate_limit=/none": lambda s: setattr(s.it, "rate_limit", None),
    **get("rate_limit", "rate_limit_group", "read_limit", "write_limit"),
    "add_to_rate_limit_group": lambda s: s.it.add_to_rate_limit_group(s.group),
    **called("remove_from_rate_limit_group"),
    "decrement_read_limit": lambda s: s.it.decrement_read_limit(10),
    "decrement_write_limit": lambda s: s.it.decrement_write_limit(10),
    **get("max_single_read", "max_single_write", "max_to_read", "max_to_write"),
    **put("max_single_read", 100),
    **put("max_single_write", 100),
    "add_cb of its input": lambda s: s.it.input.add_cb(ignore),
}

RATE_LIMIT_GROUP: Operations = {
    **CHILD,
    "__init__": lambda s: RateLimitGroup(s.base, LIMIT, min_share=10),
    **get("members", "limit", "min_share", "read_limit", "write_limit"),
    **put("limit", RATE),
    **put("min_share", 20),
    "decrement_read": lambda s: s.it.decrement_read(10),
    "decrement_write": lambda s: s.it.decrement_write(10),
    **called("totals", "reset_totals"),
    "a member": lambda s: s.bev.remove_from_rate_limit_group(),
}

LISTENER: Operations = {
    **CHILD,
    "__init__": lambda s: Listener(s.base, ("127.0.0.1", 0), ignore),
    "from_fd": lambda s: taken(lambda own: Listener.from_fd(s.base, own, ignore), s.bound),
    **get("callback", "on_error", "fd", "address"),
    **put("callback", print),
    **put("on_error", print),
    **called("enable", "disable"),
    "on_error/of accepting": lambda s: s.it._accept_failed(errno.EMFILE),
}

TLS_CONTEXT: Operations = {
    **HANDLE,
    "__init__": lambda s: TlsContext(verify=False, alpn_protocols=["h2"], ciphers="HIGH"),
    **get("server_side", "verify", "check_hostname"),
}


def options_of_dns(s: Any) -> None:
    it = s.it
    it.set_option("timeout", 1.5)
    it.set_option("max-inflight", 10)


DNS_BASE: Operations = {
    **CHILD,
    "__init__": lambda s: DnsBase(s.base, DnsBaseFlag.DISABLE_WHEN_INACTIVE),
    "resolve_ipv4": lambda s: s.it.resolve_ipv4("a.test", ignore),
    "resolve_ipv6": lambda s: s.it.resolve_ipv6("a.test", ignore),
    "resolve_reverse": lambda s: s.it.resolve_reverse("127.0.0.1", ignore),
    "resolve_reverse_ipv6": lambda s: s.it.resolve_reverse_ipv6("::1", ignore),
    "getaddrinfo": lambda s: s.it.getaddrinfo("a.test", 80, ignore),
    "getaddrinfo/at once": lambda s: s.it.getaddrinfo("127.0.0.1", 80, ignore),
    "nameserver_add": lambda s: s.it.nameserver_add("127.0.0.2"),
    "nameserver_ip_add": lambda s: s.it.nameserver_ip_add("127.0.0.1:10"),
    "nameserver_sockaddr_add": lambda s: s.it.nameserver_sockaddr_add(("127.0.0.1", 11)),
    **get("nameservers"),
    **called("clear_nameservers_and_suspend", "resume", "search_clear"),
    "search_add": lambda s: s.it.search_add("test"),
    "search_ndots_set": lambda s: s.it.search_ndots_set(2),
    "set_option": options_of_dns,
    "resolv_conf_parse": lambda s: s.it.resolv_conf_parse("/dev/null", flags=DnsOption.NAMESERVERS),
    "load_hosts": lambda s: s.it.load_hosts("/dev/null"),
    **called("clear_host_addresses"),
}

LOOKUP: Operations = {
    "base": lambda s: s.it.base,
    "close": lambda s: s.it.close(),
    **called("cancel"),
    **get("pending", "callback", "dns_base"),
    "__repr__": lambda s: repr(s.it),
}

DNS_LOOKUP: Operations = {
    **LOOKUP,
    "__init__": lambda s: s.dns.resolve_ipv4("a.test", ignore),
    **get("name", "type"),
}

ADDR_INFO_LOOKUP: Operations = {
    **LOOKUP,
    "__init__": lambda s: s.dns.getaddrinfo("a.test", 80, ignore),
    **get("host", "service"),
}

DNS_SERVER: Operations = {
    **CHILD,
    "__init__": lambda s: DnsServer(s.base, ("127.0.0.1", 0), ignore),
    "__init__/of a socket": lambda s: taken(lambda own: DnsServer(s.base, own, ignore), s.bound),
    **get("callback", "fd", "address"),
    **put("callback", print),
}

DNS_SERVER_REQUEST: Operations = {
    **CHILD,
    **get("flags", "address", "questions", "server"),
    **put("flags", 0x0400),
    "add_reply": lambda s: s.it.add_reply(DnsSection.ANSWER, "a.test", 16, 1, 60, b"\1x"),
    "add_reply/of a name": lambda s: s.it.add_reply(
        DnsSection.ANSWER, "a.test", 5, 1, 60, "b.test", True
    ),
    "add_a_reply": lambda s: s.it.add_a_reply("a.test", "127.0.0.1", 60),
    "add_aaaa_reply": lambda s: s.it.add_aaaa_reply("a.test", ["::1", "::2"], 60),
    "add_ptr_reply": lambda s: s.it.add_ptr_reply("127.0.0.1", "a.test", 60),
    "add_cname_reply": lambda s: s.it.add_cname_reply("a.test", "b.test", 60),
    **called("respond", "drop"),
    "respond/by an error": lambda s: s.it.respond(DnsResult.NOTEXIST),
}

HTTP_SERVER: Operations = {
    **CHILD,
    "__init__": lambda s: HttpServer(s.base),
    "set_cb": lambda s: s.it.set_cb("/another", ignore),
    "set_cb/with on_end": lambda s: s.it.set_cb("/another", ignore, on_end=ignore),
    "del_cb": lambda s: s.it.del_cb("/path"),
    "set_gencb": lambda s: s.it.set_gencb(print),
    **get("on_headers", "rate_limit", "rate_limit_group"),
    **put("on_headers", ignore),
    **put("rate_limit", LIMIT),
    **put("rate_limit_group", lambda s: s.group),
    "set_bevcb": lambda s: s.it.set_bevcb(lambda base: None),
    **get("tls", "virtual_hosts", "bound_sockets", "allowed_methods", "max_headers_size"),
    **get("max_body_size", "timeout", "default_content_type", "flags"),
    **put("tls", lambda s: s.context),
    "add_virtual_host": lambda s: s.it.add_virtual_host("*.example", s.vhost),
    "remove_virtual_host": lambda s: s.it.remove_virtual_host(s.guest),
    "bind_socket": lambda s: s.it.bind_socket("127.0.0.1", 0),
    "bind_socket/by name": lambda s: s.it.bind_socket("localhost", 0),
    "accept_socket": lambda s: taken(s.it.accept_socket, s.listening),
    "bind_listener": lambda s: s.it.bind_listener(s.listener),
    **put("allowed_methods", HttpCommand.GET),
    **put("max_headers_size", 1000),
    **put("max_body_size", 1000),
    **put("timeout", 1.0),
    **put("default_content_type", "text/plain"),
    **put("flags", HttpServerFlag.LINGERING_CLOSE),
    "add_server_alias": lambda s: s.it.add_server_alias("another"),
    "remove_server_alias": lambda s: s.it.remove_server_alias("alias"),
}

BOUND_SOCKET: Operations = {
    **HANDLE,
    "__init__": lambda s: s.http.bind_socket("127.0.0.1", 0),
    **get("listener", "fd", "address", "port", "server"),
}


def paused(s: Any) -> None:
    it = s.it
    it.pause()
    it.resume()


#: What clients' connections and servers' have in common.
FLOW: Operations = {
    **called("pause", "resume"),
    "pause/and resume": paused,
    **get("paused", "rate_limit", "rate_limit_group"),
    **put("rate_limit", RATE),
    "rate_limit=/to none": lambda s: setattr(s.it, "rate_limit", None),
    **put("rate_limit_group", lambda s: s.group),
    "rate_limit_group=/to none": lambda s: setattr(s.it, "rate_limit_group", None),
}

HTTP_SERVER_CONNECTION: Operations = {
    **HANDLE,
    **FLOW,
    "__init__": lambda s: s.request.connection,
    **get("peer", "address", "bufferevent", "on_close", "base", "server"),
    **put("on_close", print),
}


def appended_body(s: Any) -> None:
    s.it.output_buffer += b"more"


#: What servers' requests and clients' have in common.
EITHER: Operations = {
    **HANDLE,
    **get("command", "uri", "evhttp_uri", "host", "version", "response_code", "response_code_line"),
    **get("input_headers", "output_headers", "input_buffer", "output_buffer", "connection", "base"),
    "output_buffer=": appended_body,
    "a header": lambda s: s.it.output_headers.add("Name", "value"),
    "a header that came": lambda s: s.it.input_headers.get("A"),
}


def streamed(s: Any) -> None:
    it = s.it
    it.send_reply_start(200)
    it.send_reply_chunk(b"data", ignore)
    it.send_reply_end()


#: Headers that are given in one call.
HEADED = [("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]


def refused_reply(s: Any) -> None:
    """Give a header that can't be sent, behind one that can."""
    headers = [("Fine", "value"), ("Name", "two\nlines")]
    s.it.send_reply(200, None, b"body", headers)


def misfit_reply(s: Any) -> None:
    """Give a length that isn't that of the body."""
    it = s.it
    it.output_headers["Content-Length"] = "5"
    it.send_reply(200, None, b"body")


HTTP_SERVER_REQUEST: Operations = {
    **EITHER,
    **get("peer", "server", "on_complete", "on_chunk", "on_end", "error"),
    **put("on_chunk", ignore),
    **put("on_end", ignore),
    "send_reply": lambda s: s.it.send_reply(200, None, b"body"),
    "send_reply/a bytearray": lambda s: s.it.send_reply(200, "Fine", bytearray(b"body")),
    "send_reply/a buffer": lambda s: s.it.send_reply(200, None, s.buffer),
    "send_reply/headers": lambda s: s.it.send_reply(200, None, b"body", HEADED),
    "send_reply/headers, a buffer": lambda s: s.it.send_reply(200, None, s.buffer, iter(HEADED)),
    "send_reply/no header": refused_reply,
    "send_reply/wrong length": misfit_reply,
    "snapshot": lambda s: s.it.snapshot(),
    "send_error": lambda s: s.it.send_error(404),
    "send_reply_start": lambda s: s.it.send_reply_start(200),
    "send_reply_chunk": lambda s: s.it.send_reply_chunk(b"data", ignore),
    "send_reply_chunk/a buffer": lambda s: s.it.send_reply_chunk(s.buffer),
    **called("send_reply_end"),
    "send_reply_start/and all": streamed,
    **put("on_complete", print),
}


def in_parts(s: Any) -> None:
    it, request = s.it, HttpRequest(ignore, on_write=ignore)
    request.output_headers["Content-Length"] = "4"
    it.make_request(request, HttpCommand.POST, "/")
    request.send_request_chunk(b"data")
    request.send_request_end()


HTTP_CONNECTION: Operations = {
    **CHILD,
    **FLOW,
    "__init__": lambda s: HttpConnection(s.base, "127.0.0.1", port(), dns_base=s.dns),
    "__init__/with a bufferevent": lambda s: HttpConnection(
        s.base, "127.0.0.1", port(), bufferevent=s.bev
    ),
    "__init__/with TLS": lambda s: HttpConnection(s.base, "127.0.0.1", port(), tls=s.context),
    "make_request": lambda s: s.it.make_request(s.request, HttpCommand.GET, "/"),
    "make_request/in parts": in_parts,
    **get("bufferevent", "peer", "address", "timeout", "family", "flags", "max_headers_size"),
    **get("max_body_size", "local_address", "local_port", "retries", "initial_retry", "on_close"),
    **put("timeout", 1.0),
    **put("family", socket.AF_INET),
    **put("flags", HttpConnectionFlag.REUSE_CONNECTED_ADDR),
    **put("max_headers_size", 1000),
    **put("max_body_size", 1000),
    **put("local_address", "127.0.0.1"),
    **put("local_port", 0),
    **put("retries", 1),
    **put("initial_retry", 1.0),
    **put("on_close", print),
    **called("free_on_completion"),
}


def ended(s: Any) -> None:
    it = s.it
    it.send_request_chunk(b"data")
    it.send_request_end()


HTTP_REQUEST: Operations = {
    **EITHER,
    "__init__": lambda s: HttpRequest(ignore, on_header=ignore, on_chunk=ignore, on_error=ignore),
    "__del__": finalized,
    **called("cancel", "send_request_end"),
    "send_request_chunk": lambda s: s.it.send_request_chunk(b"data"),
    "send_request_chunk/a bytearray": lambda s: s.it.send_request_chunk(bytearray(b"data")),
    "send_request_chunk/a buffer": lambda s: s.it.send_request_chunk(s.body),
    "send_request_end/after a part": ended,
    **get("error"),
}


def deleted(s: Any) -> None:
    del s.it["A"]


HEADERS: Operations = {
    **HANDLE,
    "__init__": lambda s: Headers({"A": "b"}),
    "get": lambda s: s.it.get("A"),
    "get_all": lambda s: s.it.get_all("A"),
    **called("items", "keys", "values", "clear", "__len__"),
    "__getitem__": lambda s: s.it["A"],
    "__contains__": lambda s: "A" in s.it,
    "__iter__": lambda s: list(s.it),
    "__eq__": lambda s: s.it == s.other,
    "add": lambda s: s.it.add("A", "d"),
    "__setitem__": lambda s: s.it.__setitem__("A", "d"),
    "__delitem__": deleted,
    "update": lambda s: s.it.update({"A": "d"}),
    "update/by others": lambda s: s.it.update(s.other),
    "setdefault": lambda s: s.it.setdefault("B", "d"),
    "pop": lambda s: s.it.pop("A"),
}

QUERY: Operations = {**HEADERS, "__init__": lambda s: Query({"A": "b"})}

URI: Operations = {
    **HANDLE,
    "__init__": lambda s: Uri(),
    "parse": lambda s: Uri.parse("http://host/path"),
    **called("copy"),
    **get("flags", "scheme", "userinfo", "host", "port", "path", "query", "fragment"),
    **put("flags", UriFlag.NONCONFORMANT),
    **put("scheme", "https"),
    **put("userinfo", "you"),
    **put("host", "host"),
    **put("port", 81),
    **put("path", "/other"),
    **put("query", "a=b"),
    **put("fragment", "f"),
    "__str__": lambda s: str(s.it),
    "__eq__": lambda s: s.it == s.other,
}


def unhooked(s: Any) -> None:
    it = s.it
    it.add_hook(RpcHook.INPUT, print)
    it.remove_hook(RpcHook.INPUT, print)


RPC_SERVER: Operations = {
    **CHILD,
    "__init__": lambda s: RpcServer(s.bare),
    "register": lambda s: s.it.register("Another", Msg, Kill, ignore),
    "unregister": lambda s: s.it.unregister("Message"),
    **get("http"),
    "add_hook": lambda s: s.it.add_hook(RpcHook.INPUT, lambda *_: RpcHookResult.CONTINUE),
    "remove_hook": unhooked,
}

CONTEXT: Operations = {
    **get("paused", "base", "connection", "name", "request", "reply", "http_request"),
    **called("resume"),
    "resume/to end": lambda s: s.it.resume(RpcHookResult.TERMINATE),
    "add_meta": lambda s: s.it.add_meta("key", b"data"),
    "find_meta": lambda s: s.it.find_meta("key"),
}

RPC: Operations = {
    **CHILD,
    **CONTEXT,
    **get("server"),
    **called("done", "fail"),
    "its headers": lambda s: s.it.http_request.output_headers.add("Name", "value"),
}

RPC_POOL: Operations = {
    **CHILD,
    "__init__": lambda s: RpcPool(s.base),
    "add_connection": lambda s: s.it.add_connection(s.other),
    "remove_connection": lambda s: s.it.remove_connection(s.connection),
    **get("connections"),
    "call": lambda s: s.it.call("Message", REQUEST, Kill, ignore),
    "add_hook": lambda s: s.it.add_hook(RpcHook.INPUT, lambda *_: RpcHookResult.CONTINUE),
    "remove_hook": RPC_SERVER["remove_hook"],
}

RPC_CALL: Operations = {
    **HANDLE,
    **CONTEXT,
    **get("pool", "status"),
    "__init__": lambda s: s.pool.call("Message", REQUEST, Kill, ignore),
}


def without_field(s: Any) -> None:
    del s.it.from_name


MESSAGE: Operations = {
    "a field": lambda s: s.it.from_name,
    "a field, set": lambda s: setattr(s.it, "to_name", "another"),
    "a field of messages, set": lambda s: setattr(s.it, "run", [Run(how="so")]),
    "a field, deleted": without_field,
    "__init__": lambda s: Msg(from_name="a", to_name="b"),
    **called("missing", "clear", "__bytes__"),
    **get("complete"),
    "marshal": lambda s: s.it.marshal(s.buffer),
    "unmarshal": lambda s: Msg.unmarshal(bytes(REQUEST)),
    "__eq__": lambda s: s.it == REQUEST,
    "__repr__": lambda s: repr(s.it),
}

OPERATIONS: dict[str, Operations] = {
    "EventBase": EVENT_BASE,
    "Event": EVENT,
    "CommonTimeout": COMMON_TIMEOUT,
    "EventConfig": EVENT_CONFIG,
    "MonotonicTimer": MONOTONIC_TIMER,
    "Buffer": BUFFER,
    "tag": TAG,
    "BufferCallback": BUFFER_CALLBACK,
    "FileSegment": FILE_SEGMENT,
    "BufferEvent": BUFFER_EVENT,
    "RateLimitGroup": RATE_LIMIT_GROUP,
    "Listener": LISTENER,
    "TlsContext": TLS_CONTEXT,
    "DnsBase": DNS_BASE,
    "DnsLookup": DNS_LOOKUP,
    "AddrInfoLookup": ADDR_INFO_LOOKUP,
    "DnsServer": DNS_SERVER,
    "DnsServerRequest": DNS_SERVER_REQUEST,
    "HttpServer": HTTP_SERVER,
    "BoundSocket": BOUND_SOCKET,
    "HttpServerConnection": HTTP_SERVER_CONNECTION,
    "HttpServerRequest": HTTP_SERVER_REQUEST,
    "HttpConnection": HTTP_CONNECTION,
    "HttpRequest": HTTP_REQUEST,
    "Headers": HEADERS,
    "Query": QUERY,
    "Uri": URI,
    "RpcServer": RPC_SERVER,
    "Rpc": RPC,
    "RpcPool": RPC_POOL,
    "RpcCall": RPC_CALL,
    "Message": MESSAGE,
}
