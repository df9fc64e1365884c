/* Trampolines of the client's struct evhttp_request and evhttp_connection; `arg` is a key, as in event.c. */

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Our own data of a connection; evhttp has one of its requests at a time. */
struct evpy_client {
	/* The request that evhttp has, or NULL. */
	struct evhttp_request *sent;
	/* Whether its request line is still to be written, or has just been. */
	int waits, begins;
	enum evhttp_cmd_type type;
	struct bufferevent *bev;
	/* Whether there was input when it was sent: then answers can't be matched to requests any more. */
	int looked, early;
	struct evpy_chunks chunks;
	struct evpy_http_flow *flow;
	struct evbuffer_cb_entry *on_input, *on_output;
};

/* Why the connection could not be made, kept until evhttp calls back: it closes the socket first, which
 * changes errno. */
static _Thread_local int evpy_client_why;

/* For a new connection OpenSSL counts from 0. libevent remembers how many bytes the last connection had, and
 * gives that many back to the limits of the bufferevent and its group. So they are taken again. */

struct bufferevent_private; /* begins with the bufferevent */
int bufferevent_decrement_read_buckets_(struct bufferevent_private *bev, ev_ssize_t bytes);
int bufferevent_decrement_write_buckets_(struct bufferevent_private *bev, ev_ssize_t bytes);

static void evpy_client_note_counts(struct evpy_http_flow *flow)
{
#if LIBEVENT_PY_HAVE_TLS
	SSL *ssl = bufferevent_openssl_get_ssl(flow->bev);

	if (ssl != NULL) {
		flow->has_read = (ev_ssize_t)BIO_number_read(SSL_get_rbio(ssl));
		flow->has_written = (ev_ssize_t)BIO_number_written(SSL_get_wbio(ssl));
	}
#else
	(void)flow;
#endif
}

static void evpy_client_recount(struct evpy_http_flow *flow)
{
	struct bufferevent *bev = flow->bev;
	ev_ssize_t has_read = flow->has_read, has_written = flow->has_written;

	flow->has_read = flow->has_written = 0;
	if (has_read == 0 && has_written == 0)
		return;
	bufferevent_lock(bev);
	bufferevent_decrement_read_buckets_((struct bufferevent_private *)bev, has_read);
	bufferevent_decrement_write_buckets_((struct bufferevent_private *)bev, has_written);
	bufferevent_unlock(bev);
}

static void evpy_on_client_done(struct evhttp_request *req, void *key)
{
	int why = evpy_client_why;

	/* Calls once more if an interrupt has kept Python from noting that evhttp is finished with the request. */
	EVPY_TELL(evpy_client_done((uintptr_t)key, req != NULL, why));
}

/* A 1xx is no answer, except 101. libevent knows only 100, takes the others for the answer, and keeps the
 * headers of each among those of the answer. Before it reads on, it waits until the socket is writable; with TLS
 * and nothing to write, that would never be reported. */
static int evpy_client_informational(struct evhttp_request *req, uintptr_t key)
{
	struct bufferevent *bev;
	int result;

	EVPY_ASK(result, evpy_client_informed(key, req->response_code));
	if (result < 0)
		return -1;
	evhttp_clear_headers(req->input_headers);
	if (req->response_code == 100)
		evbuffer_unfreeze(req->output_buffer, 1); /* it waited for "100 Continue" */
	req->response_code = 100;
	bev = evhttp_connection_get_bufferevent(req->evcon);
	bufferevent_trigger(bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	return 0;
}

/* Why a response must be refused, or NULL: its end, or what follows it, would be ambiguous. */
static const char *evpy_client_refusal(struct evhttp_request *req)
{
	const struct evkeyval *header;
	int lengths = 0, codings = 0;

	if (req->response_code < 100 || req->response_code > 999)
		return "the response's status code is none";
	if (req->response_code == 101 && evhttp_find_header(req->output_headers, "Upgrade") == NULL)
		return "the response switches to another protocol, which was not asked for";
	for (header = req->input_headers->tqh_first; header != NULL;
	    header = header->next.tqe_next) {
		lengths += evutil_ascii_strcasecmp(header->key, "Content-Length") == 0;
		codings += evutil_ascii_strcasecmp(header->key, "Transfer-Encoding") == 0;
	}
	if (lengths > 1)
		return "the response has more than one Content-Length";
	if (lengths > 0 && codings > 0)
		return "the response has both Content-Length and Transfer-Encoding";
	return NULL;
}

static int evpy_client_is_bare(const struct evhttp_request *req)
{
	int code = req->response_code;

	return code < 200 || code == HTTP_NOCONTENT || code == HTTP_NOTMODIFIED ||
	    req->type == EVHTTP_REQ_HEAD || req->type == EVHTTP_REQ_CONNECT;
}

/* Without a length, a body ends with the connection. libevent takes it for empty if there is a header
 * Connection, unless that says "close"; so we set it to that. */
static void evpy_client_read_to_end(struct evhttp_request *req)
{
	struct evkeyvalq *headers = req->input_headers;

	if (evpy_client_is_bare(req) || evhttp_find_header(headers, "Connection") == NULL ||
	    evhttp_find_header(headers, "Content-Length") != NULL ||
	    evpy_http_lists(headers, "Transfer-Encoding", "chunked"))
		return;
	evpy_http_remove(headers, "Connection");
	evhttp_add_header(headers, "Connection", "close");
}

/* Without memory for that, the response fails. */
static void evpy_client_filter(struct evpy_client *client, size_t from)
{
	struct bufferevent *bev = client->bev;

	if (evpy_chunks_filter(&client->chunks, bufferevent_get_input(bev), from) < 0) {
		client->chunks.state = EVPY_CHUNKS_OFF;
		shutdown(bufferevent_getfd(bev), SHUT_RDWR);
	}
}

/* Where a connection has the first of its requests; 0 until that is known. */
static ptrdiff_t evpy_client_requests;

/* Look where, after a request has been made, which is the only one. */
static void evpy_client_look(const struct evhttp_request *req)
{
	char *evcon = (char *)req->evcon, *first = (char *)req->next.tqe_prev;

	if (evcon != NULL && *req->next.tqe_prev == req && first > evcon && first < evcon + 4096)
		evpy_client_requests = first - evcon;
}

/* While it is idle, evhttp drops a connection when there is something to read. But it goes on to look for the end of
 * the idle connection, and asserts that there is one if it then fails to connect. If it is told of that end instead,
 * it drops the connection and looks no more. */
static void evpy_on_client_idle(struct bufferevent *bev, void *evcon)
{
	bev->errorcb(bev, BEV_EVENT_READING | BEV_EVENT_EOF, evcon);
}

static void evpy_on_client_input(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct evpy_client *client = arg;
	char *evcon = client->flow == NULL ? NULL : (char *)client->flow->evcon;

	if (info->n_added > 0 && evpy_client_requests != 0 && evcon != NULL &&
	    client->bev->readcb != NULL && client->bev->cbarg == evcon &&
	    *(struct evhttp_request **)(evcon + evpy_client_requests) == NULL)
		client->bev->readcb = evpy_on_client_idle;
	if (client->chunks.state != EVPY_CHUNKS_OFF && info->n_added > 0 && !client->chunks.busy)
		evpy_client_filter(client, evbuffer_get_length(input) - info->n_added);
}

/* The body begins here. That libevent is to read chunks is known to it by now, unless it is too old to
 * look before. */
static void evpy_client_begin_chunks(struct evhttp_request *req)
{
	struct evpy_http_flow *flow = req->on_complete_cb_arg;
	const char *coding = evhttp_find_header(req->input_headers, "Transfer-Encoding");

	if (flow == NULL || coding == NULL || evpy_client_is_bare(req) ||
	    !(req->chunked || evpy_http_is(coding, "chunked")))
		return;
	evpy_chunks_begin(&flow->client->chunks);
	evpy_client_filter(flow->client, 0);
}

static int evpy_client_take_headers(struct evhttp_request *req, uintptr_t key)
{
	int code = req->response_code;
	const char *refusal;

	if (code >= 100 && code < 200 && code != 101)
		return evpy_client_informational(req, key);
	refusal = evpy_client_refusal(req);
	if (refusal != NULL) {
		EVPY_TELL(evpy_client_refused(key, refusal));
		return -1;
	}
	/* Otherwise libevent leaves its body unread. */
	if (req->type == EVHTTP_REQ_CONNECT && code >= 300)
		req->type = EVPY_REFUSED_CONNECT;
	evpy_client_read_to_end(req);
	evpy_client_begin_chunks(req);
	return 1;
}

static int evpy_on_client_header(struct evhttp_request *req, void *key)
{
	return evpy_client_take_headers(req, (uintptr_t)key);
}

static int evpy_on_client_header_told(struct evhttp_request *req, void *key)
{
	int result = evpy_client_take_headers(req, (uintptr_t)key);

	if (result > 0)
		EVPY_ASK(result, evpy_client_header((uintptr_t)key));
	return result < 0 ? -1 : result;
}

static void evpy_on_client_chunk(struct evhttp_request *req, void *key)
{
	evpy_http_rejoin(req);
	EVPY_TELL(evpy_client_chunk((uintptr_t)key));
}

static void evpy_on_client_error(enum evhttp_request_error code, void *key)
{
	EVPY_TELL(evpy_client_error((uintptr_t)key, code));
}

static void evpy_on_client_closed(struct evhttp_connection *evcon, void *arg)
{
	struct evpy_http_flow *flow = arg;

	(void)evcon;
	evpy_client_note_counts(flow);
	EVPY_TELL(evpy_client_closed(flow->key));
}

/* The body must stay as it was when the request was made, because its length has been announced. */
static void evpy_client_freeze(struct evhttp_request *req, int frozen)
{
	int at_front;

	for (at_front = 0; at_front < 2; ++at_front) {
		if (frozen)
			evbuffer_freeze(req->output_buffer, at_front);
		else
			evbuffer_unfreeze(req->output_buffer, at_front);
	}
}

static int evpy_client_expects(const struct evhttp_request *req)
{
	const char *value = evhttp_find_header(req->output_headers, "Expect");

	return value != NULL && evutil_ascii_strcasecmp(value, "100-continue") == 0;
}

/* Makes a request that we free, however it ends (P2). */
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
	evhttp_request_set_header_cb(
	    req, header ? evpy_on_client_header_told : evpy_on_client_header);
	if (chunk)
		evhttp_request_set_chunked_cb(req, evpy_on_client_chunk);
	return req;
}

/* Whether there is unread input: data, or the end of the stream. */
static int evpy_client_has_come(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);
	ssize_t length;
	char byte;

	if (evbuffer_get_length(bufferevent_get_input(bev)) > 0)
		return 1;
	if (fd < 0)
		return 0;
	length = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (length < 0)
		return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
#if LIBEVENT_PY_HAVE_OPENSSL
	/* TLS carries more than data, such as tickets for later sessions. */
	if (length > 0 && bufferevent_openssl_get_ssl(bev) != NULL)
		return 0;
#endif
	return 1;
}

/* evhttp writes the request line, adds Content-Length to a POST or PUT that has none, even to a chunked one,
 * and then writes the headers one by one. So the request has another method at that moment. This is also when
 * the body may be sent, unless it has to wait for "100 Continue". */
static void evpy_on_client_output(
    struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
	struct evpy_client *client = arg;
	struct evhttp_request *req = client->sent;

	(void)output;
	if (req == NULL || info->n_added == 0)
		return;
	if (client->waits) {
		client->waits = 0;
		client->early = !client->looked && evpy_client_has_come(client->bev);
		if (!evpy_client_expects(req))
			evbuffer_unfreeze(req->output_buffer, 1);
		if (req->type != EVHTTP_REQ_POST && req->type != EVHTTP_REQ_PUT)
			return;
		client->begins = 1;
		client->type = req->type;
		req->type = EVHTTP_REQ_PATCH;
	} else if (client->begins) {
		client->begins = 0;
		req->type = client->type;
	}
}

static int evpy_client_hook(struct bufferevent *bev, struct evpy_client *client)
{
	client->on_input =
	    evbuffer_add_cb(bufferevent_get_input(bev), evpy_on_client_input, client);
	client->on_output =
	    evbuffer_add_cb(bufferevent_get_output(bev), evpy_on_client_output, client);
	return client->on_input != NULL && client->on_output != NULL;
}

static void evpy_client_unhook(struct bufferevent *bev, struct evpy_client *client)
{
	evpy_buffer_remove_cb(bufferevent_get_input(bev), client->on_input);
	evpy_buffer_remove_cb(bufferevent_get_output(bev), client->on_output);
	client->on_input = client->on_output = NULL;
}

/* If it fails, the caller must free `bev`, because evhttp_connection_free() would use parts that were never made.
 * *ours is for evpy_client_connection_free. */
static struct evhttp_connection *evpy_client_connection_new(struct event_base *base,
    struct evdns_base *dns, struct bufferevent *bev, const char *host, int port, uintptr_t key,
    struct evpy_client **ours)
{
	struct bufferevent *made = bev;
	struct evhttp_connection *evcon = NULL;
	struct evpy_client *client;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	client = evpy_calloc(1, sizeof *client);
	if (client != NULL && made == NULL)
		made = bufferevent_socket_new(base, -1, 0);
	if (client != NULL && made != NULL && evpy_client_hook(made, client))
		evcon = evhttp_connection_base_bufferevent_new(
		    base, dns, made, host, (ev_uint16_t)port);
	if (evcon != NULL)
		client->flow = evpy_http_flow_new(evcon, key);
	/* A bufferevent that was given would not be what it was before: so it is used. */
	if (evcon != NULL && (client->flow == NULL || (bev == NULL && evpy_missed(before)))) {
		if (client->flow != NULL)
			evpy_http_flow_free(client->flow);
		bufferevent_incref(made);
		evhttp_connection_free(evcon);
		evcon = NULL;
	}
	evpy_unguard(before);
	if (evcon == NULL) {
		if (client != NULL && made != NULL)
			evpy_client_unhook(made, client);
		if (bev == NULL && made != NULL)
			bufferevent_free(made);
		evpy_free(client);
		errno = ENOMEM;
		return NULL;
	}
	client->bev = made;
	client->flow->client = client;
	evhttp_connection_set_closecb(evcon, evpy_on_client_closed, client->flow);
	*ours = client;
	return evcon;
}

/* Freeing a connection, made in `process`, calls no close callback (O6), and cancels its lookup (F9). evhttp
 * shuts the socket down, which ends it for other processes, too: so a forked child replaces the parent's socket
 * first. */
static void evpy_client_connection_free(
    struct evhttp_connection *evcon, struct evpy_client *client, int process)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);
	evutil_socket_t fd = bufferevent_getfd(bev);

	evhttp_connection_set_closecb(evcon, NULL, NULL);
	evpy_client_unhook(bev, client);
	evpy_http_flow_free(client->flow);
	evpy_free(client);
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	bufferevent_remove_from_rate_limit_group(bev);
	evpy_bufferevent_unlimit(bev, 1);
	evpy_lookup_cancel(bev);
	if (fd >= 0 && process != (int)getpid()) {
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

/* Negative seconds mean libevent's own timeouts; to libevent, 0 means that, too. */
static void evpy_client_connection_set_timeout(struct evhttp_connection *evcon, double seconds)
{
	struct timeval tv = {0, 1};

	if (seconds >= 1e-6)
		tv = evpy_timeval(seconds);
	evhttp_connection_set_timeout_tv(evcon, seconds < 0 ? NULL : &tv);
}

/* Without memory for the address, libevent silently goes on without it. */
static int evpy_client_connection_set_local_address(
    struct evhttp_connection *evcon, const char *address)
{
	unsigned before = evpy_warned;

	evhttp_connection_set_local_address(evcon, address);
	if (evpy_warned == before)
		return 0;
	errno = ENOMEM;
	return -1;
}

/* A body that the user sends in parts. When its write callback is called, evhttp takes the request for sent, and
 * waits for the response. So that callback isn't called before the end of the body; until then we replace evhttp's
 * callbacks, which are the same for all connections. */

enum { EVPY_BODY_WHOLE, EVPY_BODY_LENGTH, EVPY_BODY_CHUNKED };

/* The most bytes that are kept of an answer that comes before the whole body is sent. */
#define EVPY_EARLY (1 << 16)

static bufferevent_data_cb evpy_client_written;
static bufferevent_event_cb evpy_client_failed;

/* libevent keeps the front of a socket's output frozen. It doesn't freeze that of TLS, from which it could take
 * nothing any more. */
static void evpy_client_drop_output(struct evbuffer *output)
{
	int frozen = evpy_buffer_frozen(output, 1);

	if (frozen)
		evbuffer_unfreeze(output, 1);
	evbuffer_drain(output, evbuffer_get_length(output));
	if (frozen)
		evbuffer_freeze(output, 1);
}

static void evpy_client_end_body(struct evpy_http_flow *flow)
{
	struct bufferevent *bev = flow->bev;

	flow->body = EVPY_BODY_WHOLE;
	evpy_buffer_remove_cb(bufferevent_get_output(bev), flow->progress);
	flow->progress = NULL;
	bufferevent_setwatermark(bev, EV_READ, 0, 0);
}

static void evpy_on_client_ready(struct bufferevent *bev, void *arg)
{
	struct evpy_http_flow *flow = arg;

	if (flow->asked != NULL && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		EVPY_TELL(evpy_client_ready((uintptr_t)flow->asked->cb_arg));
}

static void evpy_on_client_body_failed(struct bufferevent *bev, short what, void *arg)
{
	struct evpy_http_flow *flow = arg;

	evpy_client_failed(bev, what, flow->evcon);
}

/* The timeout for the server's answer counts from the last byte that it has taken. */
static void evpy_on_client_progress(
    struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
	struct evpy_http_flow *flow = arg;

	(void)output;
	if (info->n_deleted > 0 && flow->bev->writecb == evpy_on_client_ready)
		bufferevent_enable(flow->bev, EV_READ);
}

/* A server that refuses doesn't get the rest. Otherwise it gets all before its answer is read. */
static void evpy_on_client_early(struct bufferevent *bev, void *arg)
{
	struct evpy_http_flow *flow = arg;
	char status[sizeof "HTTP/1.1 400" - 1];

	if (evbuffer_copyout(bufferevent_get_input(bev), status, sizeof status) <
		(ev_ssize_t)sizeof status ||
	    memcmp(status, "HTTP/", 5) != 0 || status[9] < '3' || status[9] > '9')
		return;
	if (evhttp_add_header(flow->asked->output_headers, "Connection", "close") < 0)
		return;
	evpy_client_end_body(flow);
	evpy_client_drop_output(bufferevent_get_output(bev));
	bufferevent_setcb(bev, NULL, evpy_client_written, evpy_client_failed, flow->evcon);
	/* Not here: TLS may have deferred a callback for earlier bytes, and evhttp must not get two calls. */
	bufferevent_trigger(bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

/* Called when evhttp has just written the head of a request, and the body so far. Without memory the request
 * fails. */
static void evpy_client_begin_body(struct evpy_http_flow *flow)
{
	struct bufferevent *bev = flow->bev;
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *evcon;

	bufferevent_getcb(bev, &read, &write, &event, &evcon);
	if (flow->body == EVPY_BODY_WHOLE || read != NULL || write == NULL ||
	    write == evpy_on_client_ready)
		return;
	if (flow->open)
		flow->progress =
		    evbuffer_add_cb(bufferevent_get_output(bev), evpy_on_client_progress, flow);
	if (flow->open && flow->progress == NULL) {
		bufferevent_trigger_event(
		    bev, BEV_EVENT_WRITING | BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
	} else if (flow->open) {
		evpy_client_written = write;
		evpy_client_failed = event;
		bufferevent_setcb(bev, evpy_on_client_early, evpy_on_client_ready,
		    evpy_on_client_body_failed, flow);
		bufferevent_setwatermark(bev, EV_READ, 0, EVPY_EARLY);
	} else {
		flow->body = EVPY_BODY_WHOLE;
	}
}

/* The bufferevent's output or, before evhttp has written the head, the buffer that it will write after that; NULL
 * if the server has answered already. */
static struct evbuffer *evpy_client_way(struct evpy_http_flow *flow, struct evhttp_request *req)
{
	if (flow->asked != req)
		return req->output_buffer;
	if (flow->body == EVPY_BODY_WHOLE)
		return NULL;
	return flow->bev->writecb == evpy_on_client_ready ? bufferevent_get_output(flow->bev)
							  : req->output_buffer;
}

/* The body is frozen like that of any request that has been made: only this function adds to it. */
static int evpy_client_add_part(struct evpy_http_flow *flow, struct evhttp_request *req,
    struct evbuffer *way, struct evbuffer *part)
{
	int result;

	if (way == req->output_buffer)
		evbuffer_unfreeze(way, 0);
	result = evbuffer_add_buffer(way, part);
	if (way == req->output_buffer)
		evbuffer_freeze(way, 0);
	else if (result == 0) /* and timeouts begin anew */
		bufferevent_enable(flow->bev, EV_READ | EV_WRITE);
	return result;
}

/* Returns 1 if it is being sent, 0 if the server has answered already, -1 without memory. */
static int evpy_client_send_part(struct evpy_http_flow *flow, struct evhttp_request *req, int body,
    struct evbuffer *part, int failed)
{
	struct evbuffer *way = evpy_client_way(flow, req), *head = evbuffer_new();
	int result = -1;

	if (way == NULL)
		result = 0;
	else if (!failed && head != NULL &&
	    (body != EVPY_BODY_CHUNKED ||
		(evbuffer_add_printf(head, "%zx\r\n", evbuffer_get_length(part)) >= 0 &&
		    evbuffer_add(part, "\r\n", 2) == 0)) &&
	    evbuffer_prepend_buffer(part, head) == 0 &&
	    evpy_client_add_part(flow, req, way, part) == 0)
		result = 1;
	if (head != NULL)
		evbuffer_free(head);
	return result;
}

static int evpy_client_send(
    struct evpy_client *client, struct evhttp_request *req, int body, const void *data, size_t size)
{
	struct evpy_http_flow *flow = client->flow;
	struct evbuffer *part = evbuffer_new();
	int result;

	if (part == NULL)
		return -1;
	result = evpy_client_send_part(flow, req, body, part, evbuffer_add(part, data, size) < 0);
	evbuffer_free(part);
	return result;
}

/* If nothing is sent, `data` is not changed. */
static int evpy_client_send_buffer(
    struct evpy_client *client, struct evhttp_request *req, int body, struct evbuffer *data)
{
	struct evpy_http_flow *flow = client->flow;
	struct evbuffer *part;
	int result;

	if (evpy_client_way(flow, req) == NULL)
		return 0;
	if ((part = evbuffer_new()) == NULL)
		return -1;
	result = evpy_client_send_part(flow, req, body, part, evbuffer_add_buffer(part, data) < 0);
	evbuffer_free(part);
	return result;
}

static int evpy_client_add_last(struct evhttp_request *req, struct evbuffer *way)
{
	int result;

	if (way == req->output_buffer)
		evbuffer_unfreeze(way, 0);
	result = evbuffer_add(way, "0\r\n\r\n", 5);
	if (way == req->output_buffer)
		evbuffer_freeze(way, 0);
	return result;
}

static int evpy_client_send_end(struct evpy_client *client, struct evhttp_request *req, int body)
{
	struct evpy_http_flow *flow = client->flow;
	struct bufferevent *bev = flow->bev;
	struct evbuffer *way = evpy_client_way(flow, req);

	if (way == NULL)
		return 0;
	if (body == EVPY_BODY_CHUNKED && evpy_client_add_last(req, way) < 0)
		return -1;
	if (flow->asked == req)
		flow->open = 0;
	if (way != req->output_buffer) {
		evpy_client_end_body(flow);
		bufferevent_setcb(bev, NULL, evpy_client_written, evpy_client_failed, flow->evcon);
		if (evbuffer_get_length(way) == 0)
			bufferevent_trigger(bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
	}
	return 1;
}

/* Tells whether the server doesn't want the rest of a body any more. */
static int evpy_client_answered(struct evpy_client *client, struct evhttp_request *req)
{
	return evpy_client_way(client->flow, req) == NULL;
}

/* evhttp's own callback for the end of connecting; it is the same function for all connections. */
static bufferevent_event_cb evpy_client_connected;

static void evpy_client_wrapped(struct bufferevent *bev, short what, void *arg)
{
	struct evpy_http_flow *flow = arg;
	/* If TLS may end without a closing notice, a refused connection looks like such an end. */
	int error = what & (BEV_EVENT_ERROR | BEV_EVENT_EOF) ? errno : 0;

	if (what & BEV_EVENT_CONNECTED)
		evpy_http_hurry(bufferevent_getfd(bev));
	evpy_client_recount(flow); /* a failed handshake counts, too */
	if (!(what & BEV_EVENT_CONNECTED))
		evpy_client_note_counts(flow);
	evpy_client_why = what & BEV_EVENT_TIMEOUT ? ETIMEDOUT : error;
	evpy_client_connected(bev, what, flow->evcon);
	evpy_client_why = 0;
	evpy_client_begin_body(flow);
}

/* Make evhttp drop a connection that is idle. */
static void evpy_client_reset(struct bufferevent *bev)
{
	bufferevent_data_cb read;
	void *evcon;

	bufferevent_getcb(bev, &read, NULL, NULL, &evcon);
	if (read != NULL && bufferevent_getfd(bev) >= 0)
		evpy_on_client_idle(bev, evcon);
}

/* Returns nonzero if the request has failed, with the reason in errno. While connecting, evhttp has set no
 * callbacks for data. */
static int evpy_client_make_request(struct evhttp_connection *evcon, struct evpy_client *client,
    struct evhttp_request *req, int command, const char *uri, int body, int open)
{
	struct evpy_http_flow *flow = client->flow;
	struct bufferevent *bev = flow->bev;
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *arg;
	int before, failed;

	flow->first = &flow->asked;
	if (req->chunk_cb != NULL && evpy_http_flow_watch(flow) < 0)
		return 1;
	before = evpy_guard(); /* or evhttp would send half a request, or wait without a timer */
	if (before < 0)
		return 1;
	/* Bytes after the last response, or before this request, would be taken for the next response. */
	if (evpy_client_has_come(bev))
		evpy_client_reset(bev);
	evpy_client_freeze(req, 1);
	client->sent = req;
	client->waits = 1;
	client->looked = bufferevent_getfd(bev) >= 0;
	client->begins = client->early = 0;
	client->chunks.state = EVPY_CHUNKS_OFF;
	flow->asked = req;
	flow->left = 0;
	flow->body = body;
	flow->open = open;
	evhttp_request_set_on_complete_cb(req, NULL, flow); /* for the callbacks to find it */
	failed = evhttp_make_request(evcon, req, command, uri) != 0;
	evpy_unguard(before);
	if (failed)
		return 1;
	evpy_client_look(req);
	bufferevent_getcb(bev, &read, &write, &event, &arg);
	if (read == NULL && write == NULL && event != NULL && event != evpy_client_wrapped) {
		evpy_client_connected = event;
		bufferevent_setcb(bev, NULL, NULL, evpy_client_wrapped, flow);
	}
	evpy_client_begin_body(flow);
	return 0;
}

/* Its body must not be sent any more. */
static void evpy_client_release(struct evpy_http_flow *flow)
{
	if (flow->body != EVPY_BODY_WHOLE)
		evpy_client_end_body(flow);
	flow->asked = NULL;
}

/* The request has ended, and evhttp has forgotten it, often without saying so (P2). */
static void evpy_client_forget(struct evpy_client *client, struct evhttp_request *req)
{
	if (client != NULL && client->sent == req) {
		if (client->begins)
			req->type = client->type;
		client->sent = NULL;
		evpy_client_release(client->flow);
	}
	if (req->type == EVPY_REFUSED_CONNECT)
		req->type = EVHTTP_REQ_CONNECT;
	req->evcon = NULL;
	req->on_complete_cb_arg = NULL;
	evpy_client_freeze(req, 0);
}

/* Whether a connection must not be used again after that response: the server closes it, speaks another
 * protocol by now, or it is unclear which bytes belong to which request. */
static int evpy_client_is_spent(
    struct evhttp_connection *evcon, const struct evpy_client *client, struct evhttp_request *req)
{
	struct evkeyvalq *headers = req->input_headers;
	struct evpy_framing framing = evpy_http_framing(headers);
	int code = req->response_code;

	if (req->type == EVHTTP_REQ_CONNECT && code >= 200 && code < 300)
		return 0; /* the next requests go through the proxy */
	if (client->early || code == 101 || evpy_http_lists(headers, "Connection", "close"))
		return 1;
	if ((req->major < 1 || (req->major == 1 && req->minor < 1)) &&
	    !evpy_http_lists(headers, "Connection", "keep-alive"))
		return 1;
	if (code == HTTP_NOCONTENT && (framing.chunked || framing.length > 0))
		return 1;
	if (evbuffer_get_length(req->output_buffer) > 0)
		return 1; /* a body that the server may still expect */
	return evbuffer_get_length(
		   bufferevent_get_input(evhttp_connection_get_bufferevent(evcon))) > 0;
}

/* What make_request refuses, apart from wrong headers. */
#define EVPY_NO_BODY (-5)

/* Frames the body once and for all. Returns 0, -1 without memory, EVPY_MISFRAMED, or EVPY_NO_BODY for a method
 * without bodies. If a method expects a body, the length 0 is sent, too, as libevent does for two methods. */
static int evpy_client_frame(struct evhttp_request *req, int command)
{
	size_t size = evbuffer_get_length(req->output_buffer);
	struct evpy_framing framing = evpy_http_framing(req->output_headers);
	int wants =
	    command == EVHTTP_REQ_POST || command == EVHTTP_REQ_PUT || command == EVHTTP_REQ_PATCH;

	if (framing.problem || (framing.length >= 0 && (ev_uint64_t)framing.length != size))
		return EVPY_MISFRAMED;
	if ((command == EVHTTP_REQ_TRACE || command == EVHTTP_REQ_CONNECT) &&
	    (size > 0 || framing.chunked))
		return EVPY_NO_BODY;
	if (framing.chunked) {
		if (evpy_http_chunk_whole(req->output_buffer) < 0)
			return -1;
	} else if (framing.length < 0 && (size > 0 || wants)) {
		if (evpy_http_add_length(req->output_headers, size) < 0)
			return -1;
	}
	evpy_client_freeze(req, 1);
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
	EVPY_TELL(evpy_client_settled((uintptr_t)key));
}

/* A bufferevent with deferred callbacks may still have callbacks queued for the connection that evhttp has closed,
 * such as its end, and would call them for the next connection. So they all run first, without effect, followed
 * by an artificial event that marks the end of the queue. */
static void evpy_client_settle(struct evhttp_connection *evcon, uintptr_t key)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);

	bufferevent_setcb(bev, evpy_on_client_late_data, evpy_on_client_late_data,
	    evpy_on_client_late_event, (void *)key);
	bufferevent_trigger_event(bev, BEV_EVENT_TIMEOUT, BEV_TRIG_DEFER_CALLBACKS);
}
