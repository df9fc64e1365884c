/* Trampolines of struct evhttp, and replies; `arg` is a key, as in event.c. */

#include <netinet/tcp.h>
static int evpy_http_reply_error(struct evhttp_request *req, int code, const char *reason);

/* libevent reads no body of these methods, though the client may send one. */
static int evpy_http_leaves_body(const struct evhttp_request *req)
{
	const char *length;

	if (req->type != EVHTTP_REQ_HEAD && req->type != EVHTTP_REQ_TRACE)
		return 0;
	length = evhttp_find_header(req->input_headers, "Content-Length");
	return (length != NULL && evpy_http_number(length) != 0) ||
	    evhttp_find_header(req->input_headers, "Transfer-Encoding") != NULL;
}

/* libevent would refuse HEAD and CONNECT with a page that clients take for the next reply. So it always allows
 * them, and we decide here. */
static int evpy_http_is_allowed(const struct evhttp_request *req, void *key)
{
	int allowed = 1;

	if (req->type == EVHTTP_REQ_HEAD || req->type == EVHTTP_REQ_CONNECT)
		EVPY_ASK(allowed, evpy_http_allowed((uintptr_t)key, req->type));
	return allowed > 0;
}

/* libevent makes the connection's next request now, and crashes if there is no memory for that. */
static void evpy_on_http_sent(struct evhttp_request *req, void *none)
{
	(void)req;
	(void)none;
	evpy_loop_spend();
}

static void evpy_http_on_sent(struct evhttp_request *req)
{
	if (req->on_complete_cb == NULL) /* else that has been asked for, and does the same */
		req->on_complete_cb = evpy_on_http_sent; /* which no trace need tell */
}

/* In `begun`, that Python has the request. */
#define EVPY_TAKEN 1

static void evpy_on_http_request(struct evhttp_request *req, void *key)
{
	int begun = 0;

	evpy_http_on_sent(req);
	if (!evpy_http_is_allowed(req, key))
		evpy_http_reply_error(req, HTTP_NOTIMPLEMENTED, NULL);
	else if (evpy_http_is_misread(req, req->chunked))
		evpy_http_reply_error(req, HTTP_BADREQUEST, NULL);
	else {
		EVPY_CALL(evpy_http_request((uintptr_t)key, req, &begun));
		if (begun != EVPY_TAKEN) /* an interrupt has kept Python from taking it */
			EVPY_CALL(evpy_http_request((uintptr_t)key, req, &begun));
		if (begun != EVPY_TAKEN)
			evpy_http_reply_error(req, HTTP_INTERNAL, NULL);
	}
}

/* For requests without a handler, for the same reason. */
static void evpy_on_http_nobody(struct evhttp_request *req, void *key)
{
	int allowed = evpy_http_is_allowed(req, key);

	evpy_http_on_sent(req);
	evpy_http_reply_error(req, allowed ? HTTP_NOTFOUND : HTTP_NOTIMPLEMENTED, NULL);
}

/* The method is looked at once more. */
static void evpy_on_http_completed(struct evhttp_request *req, void *arg)
{
	struct evpy_http_flow *flow = arg;
	enum evhttp_cmd_type type = req->type;

	if (type == EVPY_REFUSED_CONNECT)
		req->type = EVHTTP_REQ_CONNECT;
	/* Calls once more if an interrupt has kept Python from noting that C frees the request. */
	EVPY_TELL(evpy_http_completed(flow->key, req));
	req->type = type;
	evpy_http_expect(flow);
	evpy_on_http_sent(req, NULL);
}

static void evpy_on_http_written(struct evhttp_connection *evcon, void *key)
{
	(void)evcon;
	EVPY_TELL(evpy_http_written((uintptr_t)key));
}

/* evhttp frees the bufferevent after this; by then its limit and its group may be gone (J1, J3). */
static void evpy_on_http_closed(struct evhttp_connection *evcon, void *arg)
{
	struct evpy_http_flow *flow = arg;

	bufferevent_disable(flow->bev, EV_READ | EV_WRITE);
	bufferevent_remove_from_rate_limit_group(flow->bev);
	evpy_bufferevent_unlimit(flow->bev, 1);
	/* Calls once more if an interrupt has kept Python from noting that C frees the connection. */
	EVPY_TELL(evpy_http_closed(flow->key));
	evhttp_connection_set_closecb(evcon, NULL, NULL);
	evpy_http_flow_free(flow);
}

/* The connection that evhttp has made for a bufferevent: the `arg` of the bufferevent's callbacks; NULL if there is
 * none any more. */
static struct evhttp_connection *evpy_http_connection_of(struct bufferevent *bev)
{
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *evcon;

	bufferevent_getcb(bev, &read, &write, &event, &evcon);
	return evcon;
}

/* Active since evhttp asked for the bufferevent, so it runs before anything that the client sends. */
static void evpy_on_http_refused(evutil_socket_t fd, short what, void *bev)
{
	struct evhttp_connection *evcon = evpy_http_connection_of(bev);

	(void)fd;
	(void)what;
	if (evcon != NULL)
		evhttp_connection_free(evcon);
	bufferevent_decref(bev);
}

/* evhttp can't refuse a connection: without a bufferevent it makes one itself, and if it gets one that it can't
 * use, it closes the descriptor twice (O11). */
static struct bufferevent *evpy_http_refuse(struct event_base *base)
{
	struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);

	if (bev != NULL) {
		bufferevent_incref(bev);
		event_base_once(base, -1, EV_TIMEOUT, evpy_on_http_refused, bev, NULL);
	}
	return bev;
}

static struct bufferevent *evpy_on_http_bev(struct event_base *base, void *key)
{
	struct bufferevent *bev = NULL;
	int refused;

	EVPY_ASK(refused, evpy_http_bev((uintptr_t)key, &bev));
	evpy_loop_spend_accepting();
	return bev == NULL && refused ? evpy_http_refuse(base) : bev;
}

/* evhttp has put its own pointer where the listener's key was. */
static void evpy_on_http_accept_error(struct evconnlistener *listener, void *http)
{
	int error = errno;

	(void)http;
	EVPY_TELL(evpy_http_accept_error(listener, error));
}

/* Send bytes as soon as they are ready: the second of two chunks must not wait until the peer acknowledges the
 * first, which takes time. Where the option doesn't exist, as with AF_UNIX, it isn't needed. */
static void evpy_http_hurry(evutil_socket_t fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* The result is stored in `bound`, where Python finds it even if an interrupt comes on the way back. */
static int evpy_http_bind(
    struct evhttp *http, struct evconnlistener *listener, struct evhttp_bound_socket **bound)
{
	*bound = evhttp_bind_listener(http, listener);
	if (*bound == NULL)
		return -1;
	evconnlistener_set_error_cb(listener, evpy_on_http_accept_error);
	evpy_http_hurry(evconnlistener_get_fd(listener)); /* its connections inherit that */
	return 0;
}

static int evpy_http_set_cb(struct evhttp *http, const char *path, uintptr_t key)
{
	return evhttp_set_cb(http, path, evpy_on_http_request, (void *)key);
}

static void evpy_http_set_gencb(struct evhttp *http, int handled, uintptr_t key)
{
	evhttp_set_gencb(http, handled ? evpy_on_http_request : evpy_on_http_nobody, (void *)key);
}

static void evpy_on_http_input(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct bufferevent *bev = arg;

	(void)input;
	if (info->n_added > 0 && info->orig_size + info->n_added > bev->wm_write.high)
		bufferevent_trigger_event(
		    bev, BEV_EVENT_READING | BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
}

/* libevent accepts a line with a chunk's size of any length. So a connection fails when more than `most` bytes
 * wait to be parsed; that number is kept in a place that a socket's bufferevent doesn't use. Suspending reading,
 * for instance by a watermark, would suspend the timeout, too. Without memory there is no such limit. */
static void evpy_http_bound(struct bufferevent *bev, size_t most)
{
	bev->wm_write.high = most;
	evbuffer_add_cb(bufferevent_get_input(bev), evpy_on_http_input, bev);
}

static struct bufferevent *evpy_http_bounded(struct event_base *base, void *most)
{
	struct bufferevent *bev;

	evpy_loop_spend_accepting();
	bev = bufferevent_socket_new(base, -1, 0);
	if (bev != NULL)
		evpy_http_bound(bev, (size_t)most);
	return bev;
}

/* Have evhttp make the bufferevent. */
static struct bufferevent *evpy_http_unbounded(struct event_base *base, void *none)
{
	(void)base;
	(void)none;
	evpy_loop_spend_accepting();
	return NULL;
}

/* Give evhttp the bufferevent that it has asked for, with another reference for Python. As it is stored in `place`, an
 * interrupt on the way back loses nothing. */
static void evpy_http_hand_over(struct bufferevent *bev, size_t most, struct bufferevent **place)
{
	bufferevent_incref(bev);
	if (most > 0)
		evpy_http_bound(bev, most);
	*place = bev;
}

/* The same with one that Python has not made; with 0 for `most`, libevent makes it. */
static void evpy_http_make_bev(struct event_base *base, size_t most, struct bufferevent **place)
{
	if (most > 0)
		*place = evpy_http_bounded(base, (void *)most);
}

/* With 0 for `most`, libevent makes what Python doesn't. */
static void evpy_http_set_bevcb(struct evhttp *http, int made, uintptr_t key, size_t most)
{
	if (made)
		evhttp_set_bevcb(http, evpy_on_http_bev, (void *)key);
	else
		evhttp_set_bevcb(
		    http, most > 0 ? evpy_http_bounded : evpy_http_unbounded, (void *)most);
}

/* Negative seconds mean no timeout; libevent's own sign for that is 0. */
static void evpy_http_set_timeout(struct evhttp *http, double seconds)
{
	struct timeval tv = {0, 1};

	if (seconds >= 1e-6)
		tv = evpy_timeval(seconds);
	evhttp_set_timeout_tv(http, seconds < 0 ? NULL : &tv);
}

/* A client may send all its requests, and close its half, before the first answer. While a reply is being written,
 * libevent reads on, to learn whether the client has gone, and would close the connection at that end, together
 * with the requests that it has read already. */
static void evpy_http_read_no_further(struct bufferevent *bev)
{
	if (bev != NULL && evbuffer_get_length(bufferevent_get_input(bev)) > 0)
		bufferevent_disable(bev, EV_READ);
}

/* Whether a reply of that status to that request has no body. */
static int evpy_http_is_bare(const struct evhttp_request *req, int code)
{
	return req->type == EVHTTP_REQ_HEAD || code < 200 || code == HTTP_NOCONTENT ||
	    code == HTTP_NOTMODIFIED || (req->type == EVHTTP_REQ_CONNECT && code < 300);
}

static void evpy_http_refuse_connect(struct evhttp_request *req, int code)
{
	if (req->type == EVHTTP_REQ_CONNECT && code >= 300)
		req->type = EVPY_REFUSED_CONNECT;
}

/* Makes libevent say and do the same: close, or not. libevent reads only the first header Connection of each side,
 * and only its first word. With `ends` it must close, because the body ends with the connection. */
static void evpy_http_persist(struct evhttp_request *req, int ends)
{
	struct evkeyvalq *in = req->input_headers, *out = req->output_headers;
	int old = evpy_http_is_old(req);
	int closes = ends || evpy_http_leaves_body(req) ||
	    evpy_http_lists(in, "Connection", "close") ||
	    evpy_http_lists(out, "Connection", "close");

	if (old && !evpy_http_lists(in, "Connection", "keep-alive"))
		closes = 1;
	if (closes && !old && req->type == EVHTTP_REQ_CONNECT) { /* this libevent keeps open */
		evpy_http_remove(out, "Connection");
		evpy_http_remove(in, "Connection");
	} else if (closes) {
		evpy_http_remove(out, "Connection");
		evpy_http_remove(in, "Connection");
		evhttp_add_header(in, "Connection", "close");
	} else if (old) { /* libevent adds it again */
		evpy_http_remove(out, "Connection");
	}
}

/* Removes the headers of a body if there is none, or of a coding that the client's version doesn't have. */
static void evpy_http_trim_headers(struct evhttp_request *req, int code)
{
	struct evkeyvalq *headers = req->output_headers;
	int none =
	    code < 200 || code == HTTP_NOCONTENT || (req->type == EVHTTP_REQ_CONNECT && code < 300);

	if (none)
		evpy_http_remove(headers, "Content-Length");
	if (none || evpy_http_is_old(req))
		evpy_http_remove(headers, "Transfer-Encoding");
}

/* Whether a body of that size, together with what is in the output already, fits the headers. */
static int evpy_http_fits(struct evhttp_request *req, int code, size_t size)
{
	struct evpy_framing framing = evpy_http_framing(req->output_headers);

	size += evbuffer_get_length(req->output_buffer);
	return !framing.problem &&
	    (framing.length < 0 || evpy_http_is_bare(req, code) ||
		(ev_uint64_t)framing.length == size);
}

/* The reply has no connection: libevent would free the request at once, while a method may be using it. */
#define EVPY_ORPHAN 1

/* The last requests of this thread whose replies libevent has not taken, and why: an interrupt may keep Python from
 * what is returned, and a signal handler that comes before Python has used it may answer other requests. */
#define EVPY_MOST_UNTAKEN 16

static _Thread_local struct {
	struct {
		struct evhttp_request *req;
		int result;
	} of[EVPY_MOST_UNTAKEN];
	unsigned next;
} evpy_http_untaken;

/* Where the request is, or EVPY_MOST_UNTAKEN. */
static unsigned evpy_http_place(const struct evhttp_request *req)
{
	unsigned place = 0;

	while (place < EVPY_MOST_UNTAKEN && evpy_http_untaken.of[place].req != req)
		++place;
	return place;
}

static int evpy_http_result(struct evhttp_request *req, int result)
{
	unsigned place = evpy_http_place(req);

	if (result != 0 && place == EVPY_MOST_UNTAKEN)
		place = evpy_http_untaken.next++ % EVPY_MOST_UNTAKEN;
	if (place < EVPY_MOST_UNTAKEN) {
		evpy_http_untaken.of[place].req = result != 0 ? req : NULL;
		evpy_http_untaken.of[place].result = result;
	}
	return result;
}

/* What the last function that was to end the request has returned. */
static int evpy_http_outcome(struct evhttp_request *req)
{
	unsigned place = evpy_http_place(req);

	return place < EVPY_MOST_UNTAKEN ? evpy_http_untaken.of[place].result : 0;
}

/* Whether the request is an orphan that nobody has taken yet: true once. */
static int evpy_http_take_orphan(struct evhttp_request *req)
{
	if (evpy_http_outcome(req) != EVPY_ORPHAN)
		return 0;
	evpy_http_result(req, 0);
	return 1;
}

/* If a reply must have no body, libevent would send one all the same, and the client would take it for the next
 * reply. In a reply to HEAD libevent doesn't say how long the body would be. Without memory for that header, the
 * reply is still valid. What fails has changed no headers. */
static int evpy_http_send(struct evhttp_request *req, int code, const char *reason)
{
	struct bufferevent *bev;
	struct evpy_framing framing = evpy_http_framing(req->output_headers);
	size_t size = evbuffer_get_length(req->output_buffer);

	if (evpy_http_is_old(req))
		framing.chunked = 0;
	if (evpy_http_is_bare(req, code)) {
		if (req->type == EVHTTP_REQ_HEAD && code != HTTP_NOCONTENT &&
		    code != HTTP_NOTMODIFIED && size > 0 && framing.length < 0 && !framing.chunked)
			evpy_http_add_length(req->output_headers, size);
		evbuffer_drain(req->output_buffer, size);
	} else if (framing.chunked && evpy_http_chunk_whole(req->output_buffer) < 0) {
		return -1;
	}
	evpy_http_trim_headers(req, code);
	evpy_http_refuse_connect(req, code);
	evpy_http_persist(req, 0);
	if (req->evcon == NULL)
		return EVPY_ORPHAN;
	bev = evhttp_connection_get_bufferevent(req->evcon);
	evhttp_send_reply(req, code, reason, NULL);
	evpy_http_read_no_further(bev);
	return 0;
}

/* evhttp doesn't check whether it gets memory for the parts of a reply, and would send it without them, or never. So
 * memory is put aside while it makes one. */

/* If one of these succeeds, libevent will free the request or has freed it (O3, O4); -1 and EVPY_MISFRAMED mean
 * failure; after EVPY_ORPHAN evpy_http_free_orphan must free it. */
static int evpy_http_reply(
    struct evhttp_request *req, int code, const char *reason, const void *body, size_t size)
{
	int before, sent;

	if (!evpy_http_fits(req, code, size))
		return evpy_http_result(req, EVPY_MISFRAMED);
	if (size > 0 && evbuffer_add(req->output_buffer, body, size) < 0)
		return evpy_http_result(req, -1);
	before = evpy_guard();
	if (before < 0) {
		evbuffer_drain(req->output_buffer, evbuffer_get_length(req->output_buffer));
		return evpy_http_result(req, -1);
	}
	sent = evpy_http_send(req, code, reason);
	evpy_unguard(before);
	return evpy_http_result(req, sent);
}

/* The same with headers, which are added if it succeeds: it changes no others before that. */
static int evpy_http_reply_with(struct evhttp_request *req, int code, const char *reason,
    const void *body, size_t size, const char *headers, size_t headers_size, size_t pairs)
{
	struct evkeyval **place = req->output_headers->tqh_last;
	int result = evpy_http_add_packed(req->output_headers, headers, headers_size, pairs);

	if (result < 0)
		return evpy_http_result(req, result);
	result = evpy_http_reply(req, code, reason, body, size);
	if (result < 0)
		evpy_http_cut(req->output_headers, place);
	return result;
}

/* libevent itself ignores an error when it moves the body. */
static int evpy_http_send_buffer(
    struct evhttp_request *req, int code, const char *reason, struct evbuffer *body)
{
	int before, sent = -1;

	if (!evpy_http_fits(req, code, evbuffer_get_length(body)))
		return EVPY_MISFRAMED;
	before = evpy_guard();
	if (before < 0)
		return -1;
	if (evbuffer_add_buffer(req->output_buffer, body) == 0)
		sent = evpy_http_send(req, code, reason);
	evpy_unguard(before);
	return sent;
}

static int evpy_http_reply_buffer(struct evhttp_request *req, int code, const char *reason,
    struct evbuffer *body, const char *headers, size_t headers_size, size_t pairs)
{
	struct evkeyval **place = req->output_headers->tqh_last;
	int result = evpy_http_add_packed(req->output_headers, headers, headers_size, pairs);

	if (result == 0) {
		result = evpy_http_send_buffer(req, code, reason, body);
		if (result < 0)
			evpy_http_cut(req->output_headers, place);
	}
	return evpy_http_result(req, result);
}

/* Bytes that are in the body already don't belong into an error page. If the reply must have no body, libevent's
 * page doesn't, either, and can't be added while the buffer is frozen. libevent handles lack of memory here, but
 * not a connection that is gone (O5). */
static int evpy_http_reply_error(struct evhttp_request *req, int code, const char *reason)
{
	int before;

	if (req->evcon == NULL)
		return evpy_http_result(req, EVPY_ORPHAN);
	before = evpy_guard(); /* without memory for the callback it is sent all the same */
	evbuffer_drain(req->output_buffer, evbuffer_get_length(req->output_buffer));
	if (evpy_http_is_bare(req, code))
		evbuffer_freeze(req->output_buffer, 0);
	evpy_http_refuse_connect(req, code);
	evhttp_send_error(req, code, reason);
	if (before >= 0)
		evpy_unguard(before);
	return evpy_http_result(req, 0);
}

/* Returns 1 if it is being sent, 0 if there was nothing to send, -1 without memory or if the buffer is frozen.
 * libevent doesn't use `ntoread` any more: here it is how many bytes of the body's length are missing. */
static int evpy_http_chunk(
    struct evhttp_request *req, struct evbuffer *data, int called, uintptr_t key)
{
	struct bufferevent *bev =
	    req->evcon == NULL ? NULL : evhttp_connection_get_bufferevent(req->evcon);
	size_t length = evbuffer_get_length(data);
	int before = evpy_guard(), sent;

	if (before < 0)
		return -1;
	evhttp_send_reply_chunk_with_cb(
	    req, data, called ? evpy_on_http_written : NULL, (void *)key);
	evpy_unguard(before);
	sent = length > evbuffer_get_length(data);
	if (sent && req->ntoread >= 0)
		req->ntoread -= (ev_int64_t)length;
	evpy_http_read_no_further(bev);
	return sent;
}

static int evpy_http_is_too_long(const struct evhttp_request *req, size_t size)
{
	return req->evcon != NULL && req->ntoread >= 0 && size > (ev_uint64_t)req->ntoread;
}

static int evpy_http_reply_chunk(
    struct evhttp_request *req, const void *data, size_t size, int called, uintptr_t key)
{
	struct evbuffer *way;
	int result = -1;

	if (evpy_http_is_too_long(req, size))
		return EVPY_MISFRAMED;
	way = evbuffer_new();
	if (way != NULL && evbuffer_add(way, data, size) == 0)
		result = evpy_http_chunk(req, way, called, key);
	if (way != NULL)
		evbuffer_free(way);
	return result;
}

static int evpy_http_reply_chunk_buffer(
    struct evhttp_request *req, struct evbuffer *data, int called, uintptr_t key)
{
	struct evbuffer *way;
	int result = -1;

	if (evpy_http_is_too_long(req, evbuffer_get_length(data)))
		return EVPY_MISFRAMED;
	way = evbuffer_new();
	if (way != NULL && evbuffer_add_buffer(way, data) == 0)
		result = evpy_http_chunk(req, way, called, key);
	if (way != NULL)
		evbuffer_free(way);
	return result;
}

/* libevent would send bytes that are in the body already as they are, before the first chunk; repeat "chunked" if
 * the headers have it; and tell an HTTP/1.0 client that keeps its connection that there is no body. */
static int evpy_http_reply_start(struct evhttp_request *req, int code, const char *reason)
{
	struct evpy_framing framing = evpy_http_framing(req->output_headers);
	int bare = evpy_http_is_bare(req, code), before;
	size_t size = evbuffer_get_length(req->output_buffer);
	struct evbuffer *way;

	if (framing.problem || (!bare && framing.length >= 0 && size > (ev_uint64_t)framing.length))
		return evpy_http_result(req, EVPY_MISFRAMED);
	way = evbuffer_new();
	before = evpy_guard();
	if (way == NULL || before < 0 || evbuffer_add_buffer(way, req->output_buffer) < 0) {
		if (before >= 0)
			evpy_unguard(before);
		if (way != NULL)
			evbuffer_free(way);
		return evpy_http_result(req, -1);
	}
	evpy_http_trim_headers(req, code);
	if (!bare)
		evpy_http_remove(req->output_headers, "Transfer-Encoding");
	evpy_http_refuse_connect(req, code);
	evpy_http_persist(req, evpy_http_is_old(req) && !bare && framing.length < 0);
	evhttp_send_reply_start(req, code, reason);
	req->ntoread = bare ? -1 : framing.length;
	evpy_http_chunk(req, way, 0, 0);
	evpy_unguard(before);
	evbuffer_free(way);
	return evpy_http_result(req, 0);
}

/* How many bytes of a begun reply are still missing, according to its length. */
static ev_int64_t evpy_http_missing(const struct evhttp_request *req)
{
	return req->evcon == NULL || req->ntoread < 0 ? 0 : req->ntoread;
}

/* Whether the end of a begun reply would also end the request, and may free the connection, before C returns (O4). */
static int evpy_http_ends_at_once(const struct evhttp_request *req)
{
	struct bufferevent *bev;

	if (req->evcon == NULL || req->chunked)
		return 0;
	bev = evhttp_connection_get_bufferevent(req->evcon);
	return evbuffer_get_length(bufferevent_get_output(bev)) == 0;
}

static int evpy_http_reply_end(struct evhttp_request *req)
{
	struct bufferevent *bev;

	if (req->evcon == NULL)
		return evpy_http_result(req, EVPY_ORPHAN);
	if (evpy_http_ends_at_once(req)) {
		/* The reply ends in the next call, and then libevent may read the next request. */
		req->flags |= EVHTTP_REQ_DEFER_FREE;
		evhttp_send_reply_end(req);
		req->evcon = NULL;
		return evpy_http_result(req, EVPY_ORPHAN);
	}
	bev = evhttp_connection_get_bufferevent(req->evcon);
	evhttp_send_reply_end(req);
	evpy_http_read_no_further(bev);
	return evpy_http_result(req, 0);
}

/* The same for a reply that would end at once, while a method is using the connection: evpy_http_end_kept() does the
 * rest. Until then C doesn't free the request, whatever becomes of the connection, nor does it notice that the client
 * has gone, who has got all. */
static int evpy_http_keep(struct evhttp_request *req)
{
	req->flags |= EVHTTP_REQ_DEFER_FREE;
	bufferevent_disable(evhttp_connection_get_bufferevent(req->evcon), EV_READ);
	return evpy_http_result(req, 0);
}

static void evpy_http_end_kept(struct evhttp_request *req)
{
	if (req->evcon != NULL && !(req->flags & EVHTTP_REQ_NEEDS_FREE)) {
		evhttp_send_reply_end(req);
		if (!(req->flags & EVHTTP_REQ_NEEDS_FREE)) { /* something was written meanwhile */
			req->flags &= ~EVHTTP_REQ_DEFER_FREE;
			return;
		}
	}
	req->flags &= ~(EVHTTP_REQ_DEFER_FREE | EVHTTP_REQ_NEEDS_FREE);
	evhttp_request_free(req);
}

/* Nothing more is sent, read or reported until the connection can be freed, even if libevent resumes reading and
 * writing, for instance when an RPC is refused. */
static void evpy_http_mute(struct evhttp_connection *evcon)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);
	struct evbuffer *output = bufferevent_get_output(bev);

	bufferevent_setcb(bev, NULL, NULL, NULL, NULL);
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	evbuffer_unfreeze(output, 1);
	evbuffer_drain(output, evbuffer_get_length(output));
	evbuffer_freeze(output, 1);
	evbuffer_freeze(output, 0);
}

/* Returns the bufferevent of a connection, with a reference for evpy_http_push(). */
static struct bufferevent *evpy_http_hold(struct evhttp_connection *evcon)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);

	bufferevent_incref(bev);
	return bev;
}

/* Writes at once, as far as the socket takes it, what a stopped loop would not write; as the loop does it, whatever
 * layers the bytes go through. Takes over a reference. */
static void evpy_http_push(struct bufferevent *bev)
{
	struct evbuffer *output = bufferevent_get_output(bev);
	size_t left = (size_t)-1;
	event_callback_fn writable;

	while (bufferevent_get_enabled(bev) & EV_WRITE && bufferevent_getfd(bev) >= 0 &&
	    evbuffer_get_length(output) > 0 && evbuffer_get_length(output) < left) {
		left = evbuffer_get_length(output);
		writable = event_get_callback(&bev->ev_write);
		writable(bufferevent_getfd(bev), EV_WRITE, event_get_callback_arg(&bev->ev_write));
	}
	bufferevent_decref(bev);
}

/* For a request that the user won't answer any more. One whose answer has begun, so that it has become a response,
 * must not look complete to the client: so its connection is cut. When libevent is told of that, it frees the
 * request, too, because `userdone` says that the user is done with it. It would not notice by itself where nothing is
 * to be written, and nothing read: while the connection is paused, or a further request has been read already. */
static int evpy_http_abandon(struct evhttp_request *req)
{
	struct bufferevent *bev;

	if (req->evcon == NULL || req->kind == EVHTTP_REQUEST)
		return evpy_http_reply_error(req, HTTP_INTERNAL, NULL);
	req->userdone = 1;
	bev = evhttp_connection_get_bufferevent(req->evcon);
	shutdown(bufferevent_getfd(bev), SHUT_RDWR);
	bufferevent_trigger_event(bev, BEV_EVENT_READING | BEV_EVENT_EOF, BEV_TRIG_DEFER_CALLBACKS);
	return evpy_http_result(req, 0);
}

/* A request whose client has gone has no owner in C (O5), nor has one that has just been answered. */
static void evpy_http_free_orphan(struct evhttp_request *req)
{
	if (req->evcon == NULL) {
		req->flags &= ~(EVHTTP_REQ_DEFER_FREE | EVHTTP_REQ_NEEDS_FREE);
		evhttp_request_free(req);
	}
}

/* Puts into `place` what we keep about the connection, unless it is there. */
static int evpy_http_watch(
    struct evhttp_connection *evcon, uintptr_t key, struct evpy_http_flow **place)
{
	if (*place != NULL)
		return 0;
	*place = evpy_http_flow_new(evcon, key);
	if (*place == NULL)
		return -1;
	evhttp_connection_set_closecb(evcon, evpy_on_http_closed, *place);
	return 0;
}

static void evpy_http_await(struct evhttp_request *req, struct evpy_http_flow *flow)
{
	evhttp_request_set_on_complete_cb(req, evpy_on_http_completed, flow);
}
