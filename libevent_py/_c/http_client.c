/* Trampolines of the client's struct evhttp_request and evhttp_connection; `arg` is a key, as in event.c. */

#include <fcntl.h>

/* Why the connection could not be made, while evhttp tells of it: it closes the socket before, which
 * changes errno. */
static _Thread_local int evpy_client_why;

static void evpy_on_client_done(struct evhttp_request *req, void *key)
{
	int why = evpy_client_why;

	EVPY_CALL(evpy_client_done((uintptr_t)key, req != NULL, why));
}

static int evpy_on_client_header(struct evhttp_request *req, void *key)
{
	int result = -1;

	(void)req;
	EVPY_CALL(result = evpy_client_header((uintptr_t)key));
	return result;
}

static void evpy_on_client_chunk(struct evhttp_request *req, void *key)
{
	(void)req;
	EVPY_CALL(evpy_client_chunk((uintptr_t)key));
}

static void evpy_on_client_error(enum evhttp_request_error code, void *key)
{
	EVPY_CALL(evpy_client_error((uintptr_t)key, code));
}

static void evpy_on_client_closed(struct evhttp_connection *evcon, void *key)
{
	(void)evcon;
	EVPY_CALL(evpy_client_closed((uintptr_t)key));
}

/* Makes a request that is ours to free, whatever becomes of it (P2). */
static struct evhttp_request *evpy_client_request_new(uintptr_t key, int header, int chunk)
{
	struct evhttp_request *req;
	int before = evpy_guard(); /* evhttp_request_free() would use what has not been made */

	if (before < 0)
		return NULL;
	req = evhttp_request_new(evpy_on_client_done, (void *)key);
	if (req != NULL && evpy_missed(before)) {
		evhttp_request_free(req);
		req = NULL;
	}
	evpy_unguard(before);
	if (req == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	evhttp_request_own(req);
	evhttp_request_set_error_cb(req, evpy_on_client_error);
	if (header)
		evhttp_request_set_header_cb(req, evpy_on_client_header);
	if (chunk)
		evhttp_request_set_chunked_cb(req, evpy_on_client_chunk);
	return req;
}

/* When it fails, `bev` is the caller's to free, and evhttp_connection_free() would use what has not been made. */
static struct evhttp_connection *evpy_client_connection_new(struct event_base *base,
    struct evdns_base *dns, struct bufferevent *bev, const char *host, int port, uintptr_t key)
{
	struct evhttp_connection *evcon;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	evcon = evhttp_connection_base_bufferevent_new(base, dns, bev, host, (ev_uint16_t)port);
	if (evcon != NULL && evpy_missed(before)) {
		if (bev != NULL)
			bufferevent_incref(bev);
		evhttp_connection_free(evcon);
		evcon = NULL;
	}
	evpy_unguard(before);
	if (evcon == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	evhttp_connection_set_closecb(evcon, evpy_on_client_closed, (void *)key);
	return evcon;
}

/* What is freed tells nobody that it is closed (O6), and looks nothing up any longer (F9). evhttp shuts
 * the socket down, which ends it for another process, too: in a child, one that is the parent's is
 * replaced before. */
static void evpy_client_connection_free(struct evhttp_connection *evcon, int inherited)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);
	evutil_socket_t fd = bufferevent_getfd(bev);

	evhttp_connection_set_closecb(evcon, NULL, NULL);
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	evpy_lookup_cancel(bev);
	if (fd >= 0 && inherited) {
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

		event_del(&bev->ev_read);
		event_del(&bev->ev_write);
		if (null >= 0) {
			dup2(null, fd);
			close(null);
		}
	}
	evhttp_connection_free(evcon);
}

/* Negative seconds stand for libevent's own timeouts; it takes 0 for that, too. */
static void evpy_client_connection_set_timeout(struct evhttp_connection *evcon, double seconds)
{
	struct timeval tv = {0, 1};

	if (seconds >= 1e-6)
		tv = evpy_timeval(seconds);
	evhttp_connection_set_timeout_tv(evcon, seconds < 0 ? NULL : &tv);
}

/* evhttp's own callback for the end of connecting, which is the same for all. */
static bufferevent_event_cb evpy_client_connected;

static void evpy_on_client_connected(struct bufferevent *bev, short what, void *evcon)
{
	/* Where TLS may end without notice, a connection that is refused is such an end, too. */
	int error = what & (BEV_EVENT_ERROR | BEV_EVENT_EOF) ? errno : 0;

	if (what & BEV_EVENT_CONNECTED)
		evpy_http_hurry(bufferevent_getfd(bev));
	evpy_client_why = what & BEV_EVENT_TIMEOUT ? ETIMEDOUT : error;
	evpy_client_connected(bev, what, evcon);
	evpy_client_why = 0;
}

/* Returns nonzero when nothing will come of the request, with the reason in errno. While connecting,
 * evhttp has set no callbacks for data. */
static int evpy_client_make_request(struct evhttp_connection *evcon, struct evhttp_request *req,
    int command, const char *uri)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *arg;
	int before = evpy_guard(), failed; /* or it would send half a request, or wait without a timer */

	if (before < 0)
		return 1;
	/* What came behind the last response would be taken for the next: evhttp, idle, drops the
	 * connection when told that there is something to read. */
	if (evbuffer_get_length(bufferevent_get_input(bev)) > 0)
		bufferevent_trigger(bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS);
	failed = evhttp_make_request(evcon, req, command, uri) != 0;
	evpy_unguard(before);
	if (failed)
		return 1;
	bufferevent_getcb(bev, &read, &write, &event, &arg);
	if (read == NULL && write == NULL && event != NULL && event != evpy_on_client_connected) {
		evpy_client_connected = event;
		bufferevent_setcb(bev, NULL, NULL, evpy_on_client_connected, arg);
	}
	return 0;
}

static void evpy_on_client_late_data(struct bufferevent *bev, void *key)
{
	(void)bev;
	(void)key;
}

static void evpy_on_client_late_event(struct bufferevent *bev, short what, void *key)
{
	(void)what;
	bufferevent_setcb(bev, NULL, NULL, NULL, NULL);
	EVPY_CALL(evpy_client_settled((uintptr_t)key));
}

/* A bufferevent whose callbacks are deferred still has in line what has happened to the connection that
 * evhttp has closed, such as that it has ended, and would tell that of the next one. So all of it is
 * told to nobody before, with an event that has not happened behind it. */
static void evpy_client_settle(struct evhttp_connection *evcon, uintptr_t key)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);

	bufferevent_setcb(bev, evpy_on_client_late_data, evpy_on_client_late_data,
	    evpy_on_client_late_event, (void *)key);
	bufferevent_trigger_event(bev, BEV_EVENT_TIMEOUT, BEV_TRIG_DEFER_CALLBACKS);
}
