"""Each place in libevent's C source that only logs a warning, and what Python does in that case.

A row is for the calls of ``event_warn``, ``event_warnx`` and ``event_sock_warn`` in one function,
or macro, with the same format. ``tests/core/test_warnings.py`` compares the table with the source,
and causes those failures that can be caused.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Told(enum.Enum):
    """What Python's user gets, besides the message in the log."""

    #: The call raises.
    RAISES = "raises"
    #: The loop raises: `dispatch` and the like.
    LOOP = "the loop raises"
    #: A callback is called with an error.
    CALLBACK = "a callback is told"
    #: What has been asked for is done all the same.
    DONE = "it is done in another way"
    #: The message alone: *why* says why there is no more.
    LOG = "the log alone"
    #: No Python code leads there: *why* says what is in the way.
    NEVER = "nothing leads there"


RAISES, LOOP, CALLBACK, DONE, LOG, NEVER = Told


class Warning(NamedTuple):
    file: str
    function: str
    #: The format, as C's string literals make it up, with single spaces.
    format: str
    told: Told
    #: What leads there, what it raises or whom it tells; or why nothing does.
    why: str
    #: How many calls there are of that kind.
    calls: int = 1
    #: What makes it happen in ``tests/core/test_warnings.py``: a failing allocation of the scenario
    #: of that name, or else a test; "" where neither can.
    trigger: str = ""


WARNINGS = (
    # buffer.c
    Warning(
        "buffer.c",
        "APPEND_CHAIN_MULTICAST",
        "%s: out of memory",
        RAISES,
        "Buffer.add_buffer_reference: MemoryError; in views of one's own it is not called at all",
    ),
    Warning(
        "buffer.c",
        "evbuffer_pullup",
        "%s: out of memory",
        RAISES,
        "Buffer.pullup, tag: MemoryError. Where TLS joins pieces they go out one by one",
        trigger="pullup",
    ),
    Warning(
        "buffer.c",
        "evbuffer_readln",
        "%s: out of memory",
        LOG,
        "Buffer.readln has its own, and raises MemoryError. evhttp takes it for a line that is "
        "not complete yet, and its timeout ends the connection",
    ),
    Warning(
        "buffer.c",
        "evbuffer_file_segment_materialize",
        "%s: mmap(%d, %d, %zu) failed",
        DONE,
        "FileSegment without DISABLE_MMAP: the file is read into memory instead",
        trigger="test_a_file_that_can_not_be_mapped_is_read",
    ),
    Warning(
        "buffer.c",
        "evbuffer_file_segment_free",
        "%s: munmap failed",
        NEVER,
        "what has been mapped can be unmapped",
    ),
    # bufferevent.c
    Warning(
        "bufferevent.c",
        "bufferevent_init_common_",
        "UNLOCK_CALLBACKS requires DEFER_CALLBACKS",
        NEVER,
        "BufferEvent: ValueError before",
    ),
    # bufferevent_filter.c
    Warning(
        "bufferevent_filter.c",
        "be_filter_unlink",
        "BEV_OPT_CLOSE_ON_FREE set on an bufferevent with too few references",
        NEVER,
        "filters never get CLOSE_ON_FREE: BufferEvent closes what is below itself",
    ),
    # bufferevent_openssl.c
    Warning(
        "bufferevent_openssl.c",
        "be_openssl_unlink",
        "BEV_OPT_CLOSE_ON_FREE set on an bufferevent with too few references",
        NEVER,
        "TLS through another bufferevent never gets CLOSE_ON_FREE",
    ),
    Warning(
        "bufferevent_openssl.c",
        "conn_closed",
        "BUG: Unexpected OpenSSL error code %d",
        CALLBACK,
        "on_event: ERROR, with what OpenSSL says as BufferEvent.error; OpenSSL has no such codes "
        "for what libevent calls",
    ),
    # epoll.c
    Warning(
        "epoll.c",
        "epoll_init",
        "epoll_create",
        DONE,
        "EventBase: the next back end is tried, as EventBase.method tells; without descriptors "
        "OSError before",
    ),
    Warning(
        "epoll.c",
        "epoll_init",
        "epoll_ctl(timerfd)",
        DONE,
        "EventBase with PRECISE_TIMER: timers are as precise as without",
    ),
    Warning(
        "epoll.c",
        "epoll_init",
        "timerfd_create",
        DONE,
        "EventBase with PRECISE_TIMER: timers are as precise as without; without descriptors "
        "OSError before",
    ),
    Warning(
        "epoll.c",
        "epoll_apply_one_change",
        "Epoll MOD(%d) on %d retried as ADD; that failed too",
        RAISES,
        "Event.add: OSError, where the descriptor has become another's and the kernel takes no "
        "more; where C itself tells nobody, or with EPOLL_USE_CHANGELIST, the loop raises OSError",
    ),
    Warning(
        "epoll.c",
        "epoll_apply_one_change",
        "Epoll ADD(%d) on %d retried as MOD; that failed too",
        NEVER,
        "the kernel says EEXIST, and then that there is none: another thread would have to take "
        "it out of the set between the two calls",
    ),
    Warning(
        "epoll.c",
        "epoll_apply_one_change",
        "Epoll %s(%d) on fd %d failed. Old events were %d; read change was %d (%s); write change "
        "was %d (%s); close change was %d (%s)",
        RAISES,
        "Event.add, EventBase.once, Listener, BufferEvent: OSError, with EPERM for a file; also "
        "with EPOLL_USE_CHANGELIST, where libevent itself would say nothing; the loop raises "
        "OSError where the kernel has no room, as test_failing_calls.py tries",
        trigger="test_a_file_is_refused",
    ),
    Warning(
        "epoll.c",
        "epoll_dispatch",
        "timerfd_settime",
        NEVER,
        "libevent gives it a valid time and its own descriptor",
    ),
    Warning(
        "epoll.c",
        "epoll_dispatch",
        "epoll_wait",
        LOOP,
        "OSError",
        trigger="test_a_back_end_that_fails_ends_the_loop",
    ),
    # evdns.c
    Warning(
        "evdns.c",
        "reply_schedule_callback",
        "%s: Couldn't allocate space for deferred callback.",
        LOG,
        "the lookup is told that it has failed when its DnsBase is closed: libevent has forgotten"
        " it",
    ),
    # event.c
    Warning(
        "event.c",
        "event_base_new_with_config",
        "%s: calloc",
        RAISES,
        "EventBase: MemoryError",
        trigger="base",
    ),
    Warning(
        "event.c",
        "event_base_new_with_config",
        "%s: no event mechanism available",
        RAISES,
        "EventBase: LibeventError",
        trigger="test_a_base_without_a_back_end_is_an_error",
    ),
    Warning(
        "event.c",
        "event_base_new_with_config",
        "%s: Unable to make base notifiable.",
        RAISES,
        "EventBase: LibeventError",
        trigger="base",
    ),
    Warning(
        "event.c",
        "event_base_start_iocp_",
        "%s: Couldn't launch IOCP",
        NEVER,
        "compiled for Windows only",
    ),
    Warning(
        "event.c",
        "event_base_free_",
        "%s: no base to free",
        NEVER,
        "a closed EventBase frees nothing",
    ),
    Warning(
        "event.c",
        "event_base_priority_init",
        "%s: calloc",
        RAISES,
        "EventBase(priorities=...): MemoryError",
        trigger="base",
    ),
    Warning(
        "event.c",
        "event_base_init_common_timeout",
        "%s: Too many common timeouts already in use; we only support %d per event_base",
        RAISES,
        "EventBase.init_common_timeout: LibeventError",
        trigger="test_a_base_has_room_for_so_many_common_timeouts",
    ),
    Warning(
        "event.c",
        "event_base_init_common_timeout",
        "%s: realloc",
        RAISES,
        "EventBase.init_common_timeout: MemoryError",
        trigger="common_timeouts",
    ),
    Warning(
        "event.c",
        "event_base_init_common_timeout",
        "%s: calloc",
        RAISES,
        "EventBase.init_common_timeout: MemoryError",
        trigger="common_timeouts",
    ),
    Warning(
        "event.c",
        "event_base_loop",
        "%s: reentrant invocation. Only one event_base_loop can run on each event_base at once.",
        NEVER,
        "EventBase.loop: RuntimeError before",
    ),
    Warning(
        "event.c",
        "event_assign",
        "%s: EV_SIGNAL is not compatible with EV_READ, EV_WRITE or EV_CLOSED",
        NEVER,
        "Event: ValueError before",
    ),
    Warning(
        "event.c",
        "event_finalize_impl_",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "event_pending",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "event_add",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "event_remove_timer",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "event_del_",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "event_active",
        "%s: event has no event_base set.",
        NEVER,
        "an Event always has the base that it was made with",
    ),
    Warning(
        "event.c",
        "evthread_notify_drain_eventfd",
        "Error reading from eventfd",
        LOG,
        "the loop has been woken all the same, and will be so again",
    ),
    # event_tagging.c
    Warning(
        "event_tagging.c",
        "evtag_unmarshal_string",
        "%s: malloc",
        NEVER,
        "tag.unmarshal_string takes the payload itself, by its length",
    ),
    # evmap.c
    Warning(
        "evmap.c",
        "evmap_io_add_",
        "Too many events reading or writing on fd %d",
        RAISES,
        "Event.add: LibeventError",
        trigger="test_a_descriptor_takes_so_many_events",
    ),
    Warning(
        "evmap.c",
        "evmap_io_add_",
        "Tried to mix edge-triggered and non-edge-triggered events on fd %d",
        RAISES,
        "Event.add: LibeventError",
        trigger="test_edge_and_level_do_not_mix",
    ),
    # evthread.c
    Warning(
        "evthread.c",
        "evthread_set_lock_callbacks",
        "Trying to disable lock functions after they have been set up will probaby not work.",
        NEVER,
        "libevent_py switches locks on when it is imported, and nothing changes them after",
    ),
    Warning(
        "evthread.c",
        "evthread_set_lock_callbacks",
        "Can't change lock callbacks once they have been initialized.",
        NEVER,
        "libevent_py switches locks on when it is imported, and nothing changes them after",
    ),
    Warning(
        "evthread.c",
        "evthread_set_condition_callbacks",
        "Trying to disable condition functions after they have been set up will probaby not work.",
        NEVER,
        "libevent_py switches locks on when it is imported, and nothing changes them after",
    ),
    Warning(
        "evthread.c",
        "evthread_set_condition_callbacks",
        "Can't change condition callbacks once they have been initialized.",
        NEVER,
        "libevent_py switches locks on when it is imported, and nothing changes them after",
    ),
    # evthread-internal.h
    Warning(
        "evthread-internal.h",
        "EVTHREAD_SETUP_GLOBAL_LOCK",
        "Couldn't allocate %s",
        RAISES,
        "import libevent_py: MemoryError, before there is a log",
    ),
    # evutil.c
    Warning(
        "evutil.c",
        "evutil_make_socket_nonblocking",
        "fcntl(%d, F_GETFL)",
        RAISES,
        "util.make_socket_nonblocking, and whatever is made of a descriptor: OSError",
        calls=2,
        trigger="test_a_descriptor_that_is_closed_is_refused",
    ),
    Warning(
        "evutil.c",
        "evutil_make_socket_nonblocking",
        "fcntl(%d, F_SETFL)",
        RAISES,
        "the same; the kernel has no reason to fail",
    ),
    Warning(
        "evutil.c",
        "evutil_fast_socket_nonblocking",
        "fcntl(%d, F_SETFL)",
        NEVER,
        "the kernel's accept4() and socket() do it at once",
    ),
    Warning(
        "evutil.c",
        "evutil_make_socket_closeonexec",
        "fcntl(%d, F_GETFD)",
        RAISES,
        "util.make_socket_closeonexec: OSError",
        trigger="test_a_descriptor_that_is_closed_is_refused",
    ),
    Warning(
        "evutil.c",
        "evutil_make_socket_closeonexec",
        "fcntl(%d, F_SETFD)",
        RAISES,
        "the same; the kernel has no reason to fail",
    ),
    Warning(
        "evutil.c",
        "evutil_fast_socket_closeonexec",
        "fcntl(%d, F_SETFD)",
        NEVER,
        "the kernel's accept4() and socket() do it at once",
    ),
    Warning(
        "evutil.c",
        "evutil_check_ifaddrs",
        "Unable to call getifaddrs()",
        DONE,
        "util.getaddrinfo with AI_ADDRCONFIG: the kernel is asked in another way",
    ),
    Warning(
        "evutil.c",
        "addrinfo_from_hostent",
        "Weird h_length from gethostbyname",
        NEVER,
        "compiled only where there is no getaddrinfo()",
        calls=2,
    ),
    Warning(
        "evutil.c",
        "evutil_make_internal_pipe_",
        "%s: pipe",
        RAISES,
        "EventBase: OSError before, unless other threads take the last descriptors meanwhile",
    ),
    # http.c
    Warning(
        "http.c",
        "evhttp_htmlescape",
        "%s: html_replace overflow",
        NEVER,
        "no text has that many bytes",
    ),
    Warning(
        "http.c",
        "evhttp_htmlescape",
        "%s: malloc(%lu)",
        RAISES,
        "htmlescape: MemoryError",
        trigger="htmlescape",
    ),
    Warning(
        "http.c",
        "evhttp_connection_set_local_address",
        "%s: strdup",
        RAISES,
        "HttpConnection.local_address: MemoryError",
        trigger="local_address",
    ),
    Warning(
        "http.c",
        "evhttp_parse_response_line",
        "%s: strdup",
        CALLBACK,
        "the request's callback: HttpError",
        trigger="exchange",
    ),
    Warning(
        "http.c",
        "evhttp_add_header_internal",
        "%s: calloc",
        RAISES,
        "Headers: MemoryError; in what is received, as a malformed header",
        trigger="headers",
    ),
    Warning(
        "http.c",
        "evhttp_add_header_internal",
        "%s: strdup",
        RAISES,
        "Headers: MemoryError; in what is received, as a malformed header",
        calls=2,
        trigger="headers",
    ),
    Warning(
        "http.c",
        "evhttp_read_header",
        "%s: bad header on %d",
        NEVER,
        "each request is a request or a response. Of a malformed header, which is not what these "
        "words are for, HttpRequest is told as HttpError, and a client by 400",
    ),
    Warning(
        "http.c",
        "evhttp_connection_base_bufferevent_new",
        "%s: calloc failed",
        RAISES,
        "HttpConnection: MemoryError, from memory put aside; a server closes what it has accepted",
    ),
    Warning(
        "http.c",
        "evhttp_connection_base_bufferevent_new",
        "%s: strdup failed",
        RAISES,
        "HttpConnection: MemoryError; a server closes what it has accepted",
    ),
    Warning(
        "http.c",
        "evhttp_connection_base_bufferevent_new",
        "%s: bufferevent_socket_new failed",
        RAISES,
        "HttpConnection: MemoryError; a server closes what it has accepted",
    ),
    Warning(
        "http.c",
        "evhttp_connection_connect_",
        '%s: connection to "%s" failed',
        NEVER,
        "HttpConnection refuses what libevent refuses, ports and families, by ValueError before",
    ),
    Warning(
        "http.c",
        "evhttp_make_request",
        "%s: strdup",
        CALLBACK,
        "the request's callback: HttpError, with MemoryError as its cause",
        trigger="exchange",
    ),
    Warning(
        "http.c",
        "evhttp_response_code_",
        "%s: strdup",
        LOG,
        "the reply says (null) for its reason phrase, which nobody reads",
    ),
    Warning(
        "http.c",
        "evhttp_decode_uri",
        "%s: malloc(%lu)",
        RAISES,
        "decode_uri: MemoryError",
        trigger="decode_uri",
    ),
    Warning(
        "http.c",
        "evhttp_uridecode",
        "%s: malloc(%lu)",
        RAISES,
        "uridecode: MemoryError",
        trigger="uridecode",
    ),
    Warning(
        "http.c",
        "evhttp_parse_query_impl",
        "%s: strdup",
        RAISES,
        "parse_query, parse_query_str: MemoryError",
        trigger="query",
    ),
    Warning(
        "http.c",
        "evhttp_parse_query_impl",
        "%s: mm_malloc",
        RAISES,
        "parse_query, parse_query_str: MemoryError",
        trigger="query",
    ),
    Warning(
        "http.c",
        "evhttp_bind_socket_with_handle",
        "%s: listen",
        NEVER,
        "HttpServer.bind_socket makes a Listener, which raises OSError",
    ),
    Warning(
        "http.c",
        "evhttp_new_object",
        "%s: calloc",
        RAISES,
        "HttpServer: MemoryError",
        trigger="server",
    ),
    Warning(
        "http.c",
        "evhttp_set_cb",
        "%s: calloc",
        RAISES,
        "HttpServer.set_cb: MemoryError",
        trigger="set_cb",
    ),
    Warning(
        "http.c",
        "evhttp_set_cb",
        "%s: strdup",
        RAISES,
        "HttpServer.set_cb: MemoryError",
        trigger="set_cb",
    ),
    Warning(
        "http.c",
        "evhttp_request_new",
        "%s: calloc",
        RAISES,
        "HttpRequest: MemoryError; a server closes the connection",
        calls=3,
        trigger="request",
    ),
    Warning(
        "http.c",
        "evhttp_request_new",
        "%s: evbuffer_new",
        RAISES,
        "HttpRequest: MemoryError; a server closes the connection",
        calls=2,
    ),
    Warning(
        "http.c",
        "evhttp_request_get_host",
        "%s: malloc",
        RAISES,
        "HttpServerRequest.host: MemoryError, if there is none at the second time either: "
        "libevent asks first, to find the virtual host",
    ),
    Warning(
        "http.c",
        "evhttp_associate_new_request_with_connection",
        "%s: strdup",
        LOG,
        "a server without memory closes the connection; nothing of Python is called for it yet",
    ),
    Warning(
        "http.c",
        "evhttp_get_request",
        "%s: cannot get connection on %d",
        LOG,
        "a server without memory closes the connection; nothing of Python is called for it yet",
    ),
    Warning(
        "http.c",
        "create_bind_socket_nonblock",
        "socket",
        CALLBACK,
        "HttpConnection.local_address: the request's callback, HttpError",
    ),
    Warning(
        "http.c",
        "make_addrinfo",
        "getaddrinfo",
        CALLBACK,
        "HttpConnection.local_address: the request's callback, HttpError",
    ),
    Warning(
        "http.c",
        "make_addrinfo",
        "getaddrinfo: %s",
        NEVER,
        "HttpConnection.local_address: ValueError before, for what is no numeric address",
    ),
    Warning(
        "http.c",
        "parse_authority",
        "%s: strdup",
        RAISES,
        "Uri.parse: MemoryError",
        calls=2,
        trigger="uri",
    ),
    Warning(
        "http.c",
        "parse_authority",
        "%s: malloc",
        RAISES,
        "Uri.parse: MemoryError",
        trigger="uri",
    ),
    Warning(
        "http.c",
        "evhttp_uri_parse_with_flags",
        "%s: calloc",
        RAISES,
        "Uri.parse: MemoryError; of a request, as a malformed one",
        trigger="uri",
    ),
    Warning(
        "http.c",
        "evhttp_uri_parse_with_flags",
        "%s: strdup",
        RAISES,
        "Uri.parse: MemoryError; of a request, as a malformed one",
        calls=5,
        trigger="uri",
    ),
    Warning(
        "http.c",
        "evhttp_uri_parse_authority",
        "%s: calloc",
        LOG,
        "a server without memory takes a request of CONNECT for a malformed one",
    ),
    Warning(
        "http.c",
        "evhttp_uri_parse_authority",
        "%s: strdup",
        LOG,
        "a server without memory takes a request of CONNECT for a malformed one",
    ),
    Warning(
        "http.c",
        "URI_SET_STR_",
        "%s: strdup()",
        RAISES,
        "Uri's attributes: MemoryError",
        trigger="uri_part",
    ),
    # kqueue.c
    Warning(
        "kqueue.c",
        "kq_init",
        "kqueue",
        DONE,
        "EventBase: the next back end is tried, as EventBase.method tells",
    ),
    Warning(
        "kqueue.c",
        "kq_init",
        "%s: detected broken kqueue; not using.",
        DONE,
        "EventBase: the next back end is tried, as EventBase.method tells",
    ),
    Warning(
        "kqueue.c",
        "kq_build_changes_list",
        "%s: int overflow",
        LOOP,
        "LibeventError",
    ),
    Warning(
        "kqueue.c",
        "kq_build_changes_list",
        "%s: realloc",
        LOOP,
        "MemoryError",
    ),
    Warning(
        "kqueue.c",
        "kq_dispatch",
        "kevent",
        LOOP,
        "OSError",
    ),
    Warning(
        "kqueue.c",
        "event_kq_add_notify_event_",
        "kevent: adding EVFILT_USER event",
        DONE,
        "EventBase: threads wake it by a pipe instead",
    ),
    Warning(
        "kqueue.c",
        "event_kq_notify_base_",
        "kevent: triggering EVFILT_USER event",
        LOG,
        "the loop is not woken, and finds what it was woken for in its next turn",
    ),
    # listener.c
    Warning(
        "listener.c",
        "listener_read_cb",
        "Error from accept() call",
        NEVER,
        "each Listener has an error callback, which C calls instead: Listener.on_error",
    ),
    Warning(
        "listener.c",
        "accepted_socket_cb",
        "Unexpected error on AcceptEx",
        NEVER,
        "compiled for Windows only",
    ),
    Warning(
        "listener.c",
        "evconnlistener_new_async",
        "getsockname",
        NEVER,
        "compiled for Windows only",
    ),
    Warning(
        "listener.c",
        "evconnlistener_new_async",
        "calloc",
        NEVER,
        "compiled for Windows only",
        calls=2,
    ),
    Warning(
        "listener.c",
        "evconnlistener_new_async",
        "Couldn't create accepting socket",
        NEVER,
        "compiled for Windows only",
    ),
    Warning(
        "listener.c",
        "evconnlistener_new_async",
        "Couldn't start accepting on socket",
        NEVER,
        "compiled for Windows only",
    ),
    # poll.c
    Warning(
        "poll.c",
        "poll_dispatch",
        "realloc",
        LOOP,
        "MemoryError",
    ),
    Warning(
        "poll.c",
        "poll_dispatch",
        "poll",
        LOOP,
        "OSError",
        trigger="test_a_back_end_that_fails_ends_the_loop",
    ),
    Warning(
        "poll.c",
        "poll_add",
        "realloc",
        RAISES,
        "Event.add: MemoryError",
        trigger="poll_add",
    ),
    # select.c
    Warning(
        "select.c",
        "select_dispatch",
        "select",
        LOOP,
        "OSError",
        trigger="test_a_back_end_that_fails_ends_the_loop",
    ),
    Warning(
        "select.c",
        "select_resize",
        "malloc",
        RAISES,
        "Event.add: MemoryError",
        trigger="select_add",
    ),
    # signal.c
    Warning(
        "signal.c",
        "evsig_init_",
        "%s: socketpair",
        NEVER,
        "compiled for Windows only",
    ),
    Warning(
        "signal.c",
        "evsig_set_handler_",
        "realloc",
        RAISES,
        "Event.add: MemoryError",
        trigger="signal",
    ),
    Warning(
        "signal.c",
        "evsig_set_handler_",
        "malloc",
        RAISES,
        "Event.add: MemoryError",
        trigger="signal",
    ),
    Warning(
        "signal.c",
        "evsig_set_handler_",
        "sigaction",
        NEVER,
        "Event.signal: ValueError before, for a signal that nobody can catch",
    ),
    Warning(
        "signal.c",
        "evsig_set_handler_",
        "signal",
        NEVER,
        "compiled only where there is no sigaction()",
    ),
    Warning(
        "signal.c",
        "evsig_add",
        "Added a signal to event base %p with signals already added to event_base %p. Only one "
        "can have signals at a time with the %s backend. The base with the most recently added "
        "signal or the most recent event_base_loop() call gets preference; do not rely on this "
        "behavior in future Libevent versions.",
        NEVER,
        "Event.add: LibeventError before",
    ),
    Warning(
        "signal.c",
        "evsig_restore_handler_",
        "sigaction",
        RAISES,
        "Event.delete: OSError; what could be caught can be let go",
    ),
    Warning(
        "signal.c",
        "evsig_restore_handler_",
        "signal",
        NEVER,
        "compiled only where there is no sigaction()",
    ),
    Warning(
        "signal.c",
        "evsig_handler",
        "%s: received signal %d, but have no base configured",
        NEVER,
        "a base puts back all handlers before it is freed",
    ),
)
