/* Trampolines of struct evhttp, and replies; `arg` is a key, as in event.c. */

#include <netinet/tcp.h>

static void evpy_on_http_request(struct evhttp_request *req, void *key)
{
	EVPY_CALL(evpy_http_request((uintptr_t)key, req));
}

static void evpy_on_http_completed(struct evhttp_request *req, void *key)
{
	EVPY_CALL(evpy_http_completed((uintptr_t)key, req));
}

static void evpy_on_http_written(struct evhttp_connection *evcon, void *key)
{
	(void)evcon;
	EVPY_CALL(evpy_http_written((uintptr_t)key));
}

static void evpy_on_http_closed(struct evhttp_connection *evcon, void *key)
{
	(void)evcon;
	EVPY_CALL(evpy_http_closed((uintptr_t)key));
}

/* The connection that evhttp has made for a bufferevent, whose callbacks' `arg` it is; or NULL when it
 * has none any more. */
static struct evhttp_connection *evpy_http_connection_of(struct bufferevent *bev)
{
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *evcon;

	bufferevent_getcb(bev, &read, &write, &event, &evcon);
	return evcon;
}

/* Active since evhttp asked for the bufferevent, and so ahead of whatever the client sends. */
static void evpy_on_http_refused(evutil_socket_t fd, short what, void *bev)
{
	struct evhttp_connection *evcon = evpy_http_connection_of(bev);

	(void)fd;
	(void)what;
	if (evcon != NULL)
		evhttp_connection_free(evcon);
	bufferevent_decref(bev);
}

/* evhttp has no way to refuse a connection: without a bufferevent it makes one itself, and if it can't
 * use what it gets it closes the descriptor twice (O11). */
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
	struct bufferevent *bev;

	EVPY_CALL(bev = evpy_http_bev((uintptr_t)key));
	return bev == (struct bufferevent *)-1 ? evpy_http_refuse(base) : bev;
}

/* evhttp has put its own pointer where the listener's key was. */
static void evpy_on_http_accept_error(struct evconnlistener *listener, void *http)
{
	int error = errno;

	(void)http;
	EVPY_CALL(evpy_http_accept_error(listener, error));
}

/* What is ready to be sent is all that there is for now: the second of two chunks isn't to wait until the
 * first is acknowledged, for which the peer takes its time. Where that can't be had, as with AF_UNIX,
 * there is no need. */
static void evpy_http_hurry(evutil_socket_t fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static struct evhttp_bound_socket *evpy_http_bind(
    struct evhttp *http, struct evconnlistener *listener)
{
	struct evhttp_bound_socket *bound = evhttp_bind_listener(http, listener);

	if (bound != NULL) {
		evconnlistener_set_error_cb(listener, evpy_on_http_accept_error);
		evpy_http_hurry(evconnlistener_get_fd(listener)); /* its connections inherit that */
	}
	return bound;
}

static int evpy_http_set_cb(struct evhttp *http, const char *path, uintptr_t key)
{
	return evhttp_set_cb(http, path, evpy_on_http_request, (void *)key);
}

static void evpy_http_set_gencb(struct evhttp *http, int handled, uintptr_t key)
{
	evhttp_set_gencb(http, handled ? evpy_on_http_request : NULL, (void *)key);
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

/* libevent takes the line that tells a chunk's size however long it grows. So a connection fails when
 * more than `most` bytes wait to be parsed; that number is where a socket's bufferevent has no use for
 * it. To suspend reading, as by a watermark for that, would suspend the timeout, too. Without memory,
 * there is no such end. */
static void evpy_http_bound(struct bufferevent *bev, size_t most)
{
	bev->wm_write.high = most;
	evbuffer_add_cb(bufferevent_get_input(bev), evpy_on_http_input, bev);
}

static struct bufferevent *evpy_http_bounded(struct event_base *base, void *most)
{
	struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);

	if (bev != NULL)
		evpy_http_bound(bev, (size_t)most);
	return bev;
}

/* With 0 for `most`, libevent makes what Python doesn't. */
static void evpy_http_set_bevcb(struct evhttp *http, int made, uintptr_t key, size_t most)
{
	if (made)
		evhttp_set_bevcb(http, evpy_on_http_bev, (void *)key);
	else
		evhttp_set_bevcb(http, most > 0 ? evpy_http_bounded : NULL, (void *)most);
}

/* Negative seconds stand for no timeout; libevent takes 0 for that. */
static void evpy_http_set_timeout(struct evhttp *http, double seconds)
{
	struct timeval tv = {0, 1};

	if (seconds >= 1e-6)
		tv = evpy_timeval(seconds);
	evhttp_set_timeout_tv(http, seconds < 0 ? NULL : &tv);
}

/* Where a reply has no body, libevent would send one all the same, and the client take it for the next
 * reply. To HEAD libevent doesn't tell how long the body would be; without memory for that header, the
 * reply is a good one, too. */
static void evpy_http_trim(struct evhttp_request *req, int code)
{
	size_t size = evbuffer_get_length(req->output_buffer);
	int none = code < 200 || code == HTTP_NOCONTENT || code == HTTP_NOTMODIFIED ||
	    req->type == EVHTTP_REQ_CONNECT;
	char text[24];

	if (!none && req->type != EVHTTP_REQ_HEAD)
		return;
	if (!none && size > 0 &&
	    evhttp_find_header(req->output_headers, "Content-Length") == NULL &&
	    evhttp_find_header(req->output_headers, "Transfer-Encoding") == NULL) {
		snprintf(text, sizeof text, "%zu", size);
		evhttp_add_header(req->output_headers, "Content-Length", text);
	}
	evbuffer_drain(req->output_buffer, size);
}

/* evhttp doesn't look whether it gets memory for the parts of a reply, and would send it without them, or never. So
 * some is put aside while it makes one. */

/* After each of these but in case of failure, -1, the request is libevent's to free, or has been freed
 * (O3, O4). */
static int evpy_http_reply(
    struct evhttp_request *req, int code, const char *reason, const void *body, size_t size)
{
	int before;

	if (size > 0 && evbuffer_add(req->output_buffer, body, size) < 0)
		return -1;
	before = evpy_guard();
	if (before < 0) {
		evbuffer_drain(req->output_buffer, evbuffer_get_length(req->output_buffer));
		return -1;
	}
	evpy_http_trim(req, code);
	evhttp_send_reply(req, code, reason, NULL);
	evpy_unguard(before);
	return 0;
}

/* libevent itself ignores that it can't take the body. */
static int evpy_http_reply_buffer(
    struct evhttp_request *req, int code, const char *reason, struct evbuffer *body)
{
	int before = evpy_guard();

	if (before < 0)
		return -1;
	if (evbuffer_add_buffer(req->output_buffer, body) < 0) {
		evpy_unguard(before);
		return -1;
	}
	evpy_http_trim(req, code);
	evhttp_send_reply(req, code, reason, NULL);
	evpy_unguard(before);
	return 0;
}

/* What has been put into the body already doesn't belong there. libevent gives up a connection here
 * when it is out of memory, but not that there is none (O5). */
static void evpy_http_reply_error(struct evhttp_request *req, int code, const char *reason)
{
	int before;

	if (req->evcon == NULL) {
		evhttp_request_free(req);
		return;
	}
	before = evpy_guard(); /* it is sent without, too: it has nobody to tell */
	evbuffer_drain(req->output_buffer, evbuffer_get_length(req->output_buffer));
	evhttp_send_error(req, code, reason);
	if (before >= 0)
		evpy_unguard(before);
}

/* 1 when it is on its way, 0 when there was nothing to send, -1 when there is no memory, or the buffer
 * is frozen. */
static int evpy_http_chunk(
    struct evhttp_request *req, struct evbuffer *data, int called, uintptr_t key)
{
	size_t length = evbuffer_get_length(data);
	int before = evpy_guard();

	if (before < 0)
		return -1;
	evhttp_send_reply_chunk_with_cb(
	    req, data, called ? evpy_on_http_written : NULL, (void *)key);
	evpy_unguard(before);
	return length > evbuffer_get_length(data);
}

static int evpy_http_reply_chunk(
    struct evhttp_request *req, const void *data, size_t size, int called, uintptr_t key)
{
	struct evbuffer *way = evbuffer_new();
	int result = -1;

	if (way != NULL && evbuffer_add(way, data, size) == 0)
		result = evpy_http_chunk(req, way, called, key);
	if (way != NULL)
		evbuffer_free(way);
	return result;
}

static int evpy_http_reply_chunk_buffer(
    struct evhttp_request *req, struct evbuffer *data, int called, uintptr_t key)
{
	struct evbuffer *way = evbuffer_new();
	int result = -1;

	if (way != NULL && evbuffer_add_buffer(way, data) == 0)
		result = evpy_http_chunk(req, way, called, key);
	if (way != NULL)
		evbuffer_free(way);
	return result;
}

/* libevent would send what is in the body already as it is, before the first chunk. */
static int evpy_http_reply_start(struct evhttp_request *req, int code, const char *reason)
{
	struct evbuffer *way = evbuffer_new();
	int before = evpy_guard();

	if (way == NULL || before < 0 || evbuffer_add_buffer(way, req->output_buffer) < 0) {
		if (before >= 0)
			evpy_unguard(before);
		if (way != NULL)
			evbuffer_free(way);
		return -1;
	}
	evhttp_send_reply_start(req, code, reason);
	evhttp_send_reply_chunk(req, way);
	evpy_unguard(before);
	evbuffer_free(way);
	return 0;
}

/* For a request that nobody will answer any more. One that has been answered in part, by which it has
 * become a response, must not look complete to the client: so its connection is cut, and libevent, which
 * finds that out in its own time, frees the request with it as `userdone` says that nobody else will. */
static void evpy_http_abandon(struct evhttp_request *req)
{
	if (req->evcon == NULL || req->kind == EVHTTP_REQUEST) {
		evpy_http_reply_error(req, HTTP_INTERNAL, NULL);
	} else {
		req->userdone = 1;
		shutdown(bufferevent_getfd(evhttp_connection_get_bufferevent(req->evcon)), SHUT_RDWR);
	}
}

/* A request whose client has gone belongs to nobody in C (O5). */
static void evpy_http_free_orphan(struct evhttp_request *req)
{
	if (req->evcon == NULL)
		evhttp_request_free(req);
}

static void evpy_http_watch(struct evhttp_connection *evcon, uintptr_t key)
{
	evhttp_connection_set_closecb(evcon, evpy_on_http_closed, (void *)key);
}

static void evpy_http_await(struct evhttp_request *req, uintptr_t key)
{
	evhttp_request_set_on_complete_cb(req, evpy_on_http_completed, (void *)key);
}
