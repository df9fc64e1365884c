/* How much of HTTP's bodies is in memory: reading that is paused, and bodies that come in parts. */

/* libevent's own way to suspend reading, used by watermarks and limits, each with its own bit. No other way
 * works, as evhttp enables reading again and again. libevent_openssl and libevent_extra call such functions of
 * libevent_core, too, so every libevent exports them. */
void bufferevent_suspend_read_(struct bufferevent *bev, ev_uint16_t what);
void bufferevent_unsuspend_read_(struct bufferevent *bev, ev_uint16_t what);

#define EVPY_SUSPEND_PAUSED 0x4000

/* Longer chunks are delivered in parts. */
#define EVPY_WHOLE_CHUNK (1 << 16)

struct evpy_client;

/* Our data of a connection that Python has asked for; a client's connection always has it. */
struct evpy_http_flow {
	struct evhttp_connection *evcon;
	struct bufferevent *bev;
	uintptr_t key;
	/* Points to the request that evhttp is working on; NULL while that isn't known. */
	struct evhttp_request **first;
	/* What a client's `first` points to. */
	struct evhttp_request *asked;
	/* How many bytes of a chunk that is delivered in parts are still to come, beyond those that evhttp waits for. */
	ev_int64_t left;
	struct evbuffer_cb_entry *watch;
	/* Reports the headers of a server's next request if they have been read already. */
	struct event next;
	int streams;
	/* Whether a client's body is sent in parts, and whether more is to come: see http_client.c. */
	int body, open;
	struct evbuffer_cb_entry *progress;
	/* How many bytes the last of a client's TLS connections has read and written. */
	ev_ssize_t has_read, has_written;
	/* More data of a client's connection: see http_client.c. */
	struct evpy_client *client;
};

/* Reading has no timeout meanwhile. A TLS handshake goes on: evhttp hasn't enabled reading yet, and would not
 * resume it afterwards. */
static void evpy_http_suspend(struct bufferevent *bev)
{
	int shakes_hands = 0;

#if LIBEVENT_PY_HAVE_TLS
	SSL *ssl = bufferevent_openssl_get_ssl(bev);

	shakes_hands = ssl != NULL && !SSL_is_init_finished(ssl) &&
	    event_pending(&bev->ev_read, EV_READ, NULL);
#endif
	bufferevent_suspend_read_(bev, EVPY_SUSPEND_PAUSED);
	if (shakes_hands)
		event_add(&bev->ev_read,
		    evutil_timerisset(&bev->timeout_read) ? &bev->timeout_read : NULL);
}

/* Bytes that OpenSSL has read already don't make the descriptor readable. */
static void evpy_http_unsuspend(struct bufferevent *bev)
{
	bufferevent_unsuspend_read_(bev, EVPY_SUSPEND_PAUSED);
#if LIBEVENT_PY_HAVE_TLS
	SSL *ssl = bufferevent_openssl_get_ssl(bev);

	if (ssl != NULL && bev->enabled & EV_READ && SSL_has_pending(ssl))
		event_active(&bev->ev_read, EV_READ, 0);
#endif
}

static struct evpy_http_flow *evpy_http_flow_new(struct evhttp_connection *evcon, uintptr_t key)
{
	struct evpy_http_flow *flow = evpy_calloc(1, sizeof *flow);

	if (flow == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	flow->evcon = evcon;
	flow->bev = evhttp_connection_get_bufferevent(evcon);
	flow->key = key;
	return flow;
}

/* While the bufferevent is still there. */
static void evpy_http_flow_free(struct evpy_http_flow *flow)
{
	evpy_buffer_remove_cb(bufferevent_get_input(flow->bev), flow->watch);
	evpy_buffer_remove_cb(bufferevent_get_output(flow->bev), flow->progress);
	if (flow->streams) {
		event_del(&flow->next);
		event_debug_unassign(&flow->next);
	}
	evpy_free(flow);
}

/* To evhttp, a part of a chunk is a complete chunk. */
static void evpy_http_split(struct evpy_http_flow *flow, struct evhttp_request *req, size_t here)
{
	ev_int64_t whole = req->ntoread + flow->left;

	if (req->chunk_cb == NULL || !req->chunked || req->ntoread <= 0)
		return;
	if (here >= EVPY_WHOLE_CHUNK && whole > (ev_int64_t)here)
		req->ntoread = (ev_int64_t)here;
	else
		req->ntoread = whole;
	flow->left = whole - req->ntoread;
}

/* Called in the callback for chunks, before which evhttp has set itself to read the next one's size. */
static void evpy_http_rejoin(struct evhttp_request *req)
{
	struct evpy_http_flow *flow = req->on_complete_cb_arg;

	if (flow != NULL && flow->left > 0) {
		req->ntoread = flow->left;
		flow->left = 0;
	}
}

static void evpy_http_hear(struct evpy_http_flow *flow, struct evhttp_request *req);

/* Before evhttp is told that there is something to read. */
static void evpy_on_http_flow(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct evpy_http_flow *flow = arg;
	struct evhttp_request *req = *flow->first;

	if (info->n_added == 0 || req == NULL)
		return;
	if (flow->streams)
		evpy_http_hear(flow, req);
	evpy_http_split(flow, req, evbuffer_get_length(input));
}

static int evpy_http_flow_watch(struct evpy_http_flow *flow)
{
	if (flow->watch == NULL)
		flow->watch =
		    evbuffer_add_cb(bufferevent_get_input(flow->bev), evpy_on_http_flow, flow);
	if (flow->watch == NULL) {
		errno = ENOMEM;
		return -1;
	}
	return 0;
}

/* Bodies of requests, in parts. libevent 2.1 has no callback for a server connection's new request, in which the
 * request's own callbacks could be set. */

static void evpy_on_http_chunk(struct evhttp_request *req, void *http)
{
	struct evpy_http_flow *flow = req->on_complete_cb_arg;

	(void)http;
	evpy_http_rejoin(req);
	EVPY_TELL(evpy_http_part(flow->key));
}

static void evpy_http_take_chunks(struct evhttp_request *req)
{
	evhttp_request_set_chunked_cb(req, evpy_on_http_chunk);
}

static int evpy_http_is_old(const struct evhttp_request *req)
{
	return req->major < 1 || (req->major == 1 && req->minor < 1);
}

/* A request that libevent reads with another framing than it has, because two of its headers contradict each
 * other, or one says something that libevent doesn't know: the rest of it would be taken for the client's next
 * request. */
static int evpy_http_is_misread(const struct evhttp_request *req, int chunked)
{
	const struct evkeyval *header;
	int lengths = 0, codings = 0;

	for (header = req->input_headers->tqh_first; header != NULL;
	    header = header->next.tqe_next) {
		char first = header->key[0] | 0x20;

		if (first == 'c')
			lengths += evutil_ascii_strcasecmp(header->key, "Content-Length") == 0;
		else if (first == 't')
			codings += evutil_ascii_strcasecmp(header->key, "Transfer-Encoding") == 0;
	}
	return lengths > 1 || (codings > 0 && (lengths > 0 || !chunked || evpy_http_is_old(req)));
}

/* A misread request is going to be refused, so neither its headers nor its body are reported. libevent finds out
 * right after this whether the body is chunked. */
static int evpy_on_http_headers(struct evhttp_request *req, void *http)
{
	struct evpy_http_flow *flow = req->on_complete_cb_arg;
	const char *coding = evhttp_find_header(req->input_headers, "Transfer-Encoding");
	int chunked = coding != NULL && evutil_ascii_strcasecmp(coding, "chunked") == 0;

	(void)http;
	if (evpy_http_is_misread(req, chunked))
		evpy_http_take_chunks(req);
	else
		EVPY_TELL(evpy_http_headers(flow->key, req));
	return 0;
}

static void evpy_http_await(struct evhttp_request *req, struct evpy_http_flow *flow);

/* A request that is being answered is a response. */
static void evpy_http_hear(struct evpy_http_flow *flow, struct evhttp_request *req)
{
	if (req->kind != EVHTTP_REQUEST || req->header_cb != NULL)
		return;
	flow->left = 0;
	evpy_http_await(req, flow);
	evhttp_request_set_header_cb(req, evpy_on_http_headers);
}

/* Not static: see evpy_on_wake(). */
void evpy_on_http_next(evutil_socket_t fd, short what, void *arg);
void evpy_on_http_next(evutil_socket_t fd, short what, void *arg)
{
	struct evpy_http_flow *flow = arg;
	struct evhttp_request *req = *flow->first;

	(void)fd;
	(void)what;
	if (req != NULL)
		evpy_http_hear(flow, req);
}

/* Makes each request of a server's connection report its headers. The first request has been waiting for them
 * since the connection came. To find it, we append another request to evhttp's queue, and look at its predecessor;
 * that also leads to the head of the queue, where later requests are found. Our request isn't the first in the
 * queue, so it is never sent, and it is removed at once. */
static int evpy_http_stream(struct evpy_http_flow *flow)
{
	struct evhttp_request *probe, *req;

	if (flow->streams)
		return 0;
	probe = evhttp_request_new(NULL, NULL);
	errno = ENOMEM;
	if (probe == NULL || evhttp_make_request(flow->evcon, probe, EVHTTP_REQ_GET, "/") < 0)
		return -1;
	req = (struct evhttp_request *)probe->next.tqe_prev; /* its `next`, which it begins with */
	flow->first = req->next.tqe_prev;
	evhttp_cancel_request(probe);
	if (evpy_http_flow_watch(flow) < 0)
		return -1;
	event_assign(&flow->next, bufferevent_get_base(flow->bev), -1, 0, evpy_on_http_next, flow);
	event_priority_set(&flow->next, bufferevent_get_priority(flow->bev));
	flow->streams = 1;
	evpy_http_hear(flow, req);
	return 0;
}

/* The request after an answered one doesn't exist yet. If its bytes have come already, evhttp reads it after the
 * callbacks that are active now. */
static void evpy_http_expect(struct evpy_http_flow *flow)
{
	if (flow->streams && evbuffer_get_length(bufferevent_get_input(flow->bev)) > 0)
		event_active(&flow->next, EV_TIMEOUT, 0);
}
