/* A reverse proxy: it forwards each request to another HTTP server, and returns that one's answer.
 *
 * Answers pass through in parts. If the server sends faster than the client takes, it is not read from until the rest
 * is sent, so that a transfer of any size costs little memory. (libevent 2.1 has no way to do that with the bodies of
 * requests: these are in memory as a whole, and may not be large.) Each client's connection has its own connection to
 * the server, and both are used for as many requests as either end likes. If the server can't be reached, the client
 * gets 502; if it is silent for too long, 504. When an answer breaks off, the client's connection is cut; when a
 * client goes away, its request to the server is cancelled. */

#include <event2/keyvalq_struct.h>

#include "web.h"

/* How many bytes may come of a client that still has to take its last answer. */
#define AHEAD 65536

#define BAD_GATEWAY 502
#define GATEWAY_TIMEOUT 504

/* How large headers and bodies may be. */
#define MOST_HEADERS 65536
#define MOST_BODY (16 << 20)

#define METHODS \
	(EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | \
	    EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH)

/* What may be asked once more, if a connection ends that has answered before. */
#define REPEATABLE (EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_OPTIONS)

/* The headers that are about a connection, and not for who is behind it. */
static const char *const hop_by_hop[] = {"connection", "keep-alive", "proxy-authenticate",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "expect" /* libevent has told the client to go on */};

struct proxy {
	struct event_base *base;
	const char *host;
	ev_uint16_t port;
	struct timeval timeout;
	LIST_HEAD(, relayed) all;
};

/* A client's connection and its request, and those to the server that go with it. */
struct relayed {
	LIST_ENTRY(relayed) others;
	struct proxy *proxy;
	struct evhttp_connection *client, *server;
	struct evhttp_request *request, *asked;
	struct event *pause, *end;
	int begun, cut, reused, error;
};

/* Tell whether a list such as "keep-alive, x-mine" has a name. */
static int lists(const char *list, const char *name)
{
	size_t length = strlen(name), size;

	while (list != NULL && *list != '\0') {
		list += strspn(list, ", \t");
		size = strcspn(list, ", \t");
		if (size == length && evutil_ascii_strncasecmp(list, name, size) == 0)
			return 1;
		list += size;
	}
	return 0;
}

static int is_hop_by_hop(struct evkeyvalq *headers, const char *name)
{
	struct evkeyval *header;
	size_t i;

	for (i = 0; i < sizeof hop_by_hop / sizeof *hop_by_hop; ++i)
		if (evutil_ascii_strcasecmp(name, hop_by_hop[i]) == 0)
			return 1;
	TAILQ_FOREACH(header, headers, next)
	if (evutil_ascii_strcasecmp(header->key, "Connection") == 0 && lists(header->value, name))
		return 1;
	return 0;
}

/* Add to `target` the headers of `source` that are for both ends. */
static void pass_on(struct evkeyvalq *source, struct evkeyvalq *target)
{
	struct evkeyval *header;

	TAILQ_FOREACH(header, source, next)
	if (!is_hop_by_hop(source, header->key))
		evhttp_add_header(target, header->key, header->value);
}

/* evhttp enables reading after each of its callbacks; so reading is disabled right after that. */
static void on_pause(evutil_socket_t fd, short what, void *arg)
{
	struct relayed *relayed = arg;

	(void)fd, (void)what;
	bufferevent_disable(evhttp_connection_get_bufferevent(relayed->server), EV_READ);
}

static void pause_server(struct relayed *relayed)
{
	event_active(relayed->pause, EV_TIMEOUT, 0);
}

static void resume_server(struct relayed *relayed)
{
	event_del(relayed->pause);
	bufferevent_enable(evhttp_connection_get_bufferevent(relayed->server), EV_READ);
}

/* From the client to the server. */

static int on_head(struct evhttp_request *asked, void *arg);
static void on_part(struct evhttp_request *asked, void *arg);
static void on_error(enum evhttp_request_error code, void *arg);
static void on_answered(struct evhttp_request *asked, void *arg);

/* Return a request like the client's. */
static struct evhttp_request *request_like(struct relayed *relayed)
{
	struct evhttp_request *asked = need(evhttp_request_new(on_answered, relayed), "a request");
	struct evkeyvalq *headers = evhttp_request_get_output_headers(asked);
	struct evbuffer *body = evhttp_request_get_output_buffer(asked);
	char *peer, length[24];
	ev_uint16_t port;

	evhttp_request_set_error_cb(asked, on_error);
	evhttp_request_set_header_cb(asked, on_head);
	evhttp_request_set_chunked_cb(asked, on_part);
	pass_on(evhttp_request_get_input_headers(relayed->request), headers);
	evhttp_connection_get_peer(relayed->client, &peer, &port);
	evhttp_add_header(headers, "X-Forwarded-For", peer);
	evhttp_add_header(headers, "Via", "1.1 proxy");
	evbuffer_add_buffer(body, evhttp_request_get_input_buffer(relayed->request));
	if (evbuffer_get_length(body) > 0 &&
	    evhttp_find_header(headers, "Content-Length") == NULL) {
		snprintf(length, sizeof length, "%zu", evbuffer_get_length(body));
		evhttp_add_header(headers, "Content-Length", length);
	}
	return asked;
}

static void ask(struct relayed *relayed)
{
	relayed->reused = evhttp_connection_get_addr(relayed->server)->sa_family != AF_UNSPEC;
	relayed->error = -1;
	relayed->asked = request_like(relayed);
	if (evhttp_make_request(relayed->server, relayed->asked,
		evhttp_request_get_command(relayed->request),
		evhttp_request_get_uri(relayed->request)) < 0) {
		relayed->asked = NULL;
		evhttp_send_reply(relayed->request, BAD_GATEWAY, NULL, NULL);
	}
}

/* From the server to the client. */

static int on_head(struct evhttp_request *asked, void *arg)
{
	struct relayed *relayed = arg;
	int code = evhttp_request_get_response_code(asked);

	if (code < 200) /* the answer is yet to come */
		return 0;
	pass_on(evhttp_request_get_input_headers(asked),
	    evhttp_request_get_output_headers(relayed->request));
	evhttp_send_reply_start(
	    relayed->request, code, evhttp_request_get_response_code_line(asked));
	relayed->begun = 1;
	return 0;
}

static void cut_client(struct relayed *relayed)
{
	shutdown(bufferevent_getfd(evhttp_connection_get_bufferevent(relayed->client)), SHUT_RDWR);
}

static void on_client_ready(struct evhttp_connection *client, void *arg)
{
	struct relayed *relayed = arg;

	(void)client;
	if (relayed->cut)
		cut_client(relayed);
	else
		resume_server(relayed);
}

static void on_part(struct evhttp_request *asked, void *arg)
{
	struct relayed *relayed = arg;
	struct bufferevent *bev = evhttp_connection_get_bufferevent(relayed->client);

	pause_server(relayed);
	evhttp_send_reply_chunk_with_cb(
	    relayed->request, evhttp_request_get_input_buffer(asked), on_client_ready, relayed);
	if (evbuffer_get_length(bufferevent_get_input(bev)) > AHEAD)
		bufferevent_disable(bev, EV_READ); /* it says more, before it has the answer */
}

static void on_error(enum evhttp_request_error code, void *arg)
{
	struct relayed *relayed = arg;

	relayed->error = (int)code;
}

static int is_repeatable(struct relayed *relayed)
{
	return relayed->error == EVREQ_HTTP_EOF && relayed->reused &&
	    evhttp_request_get_command(relayed->request) & REPEATABLE &&
	    evbuffer_get_length(evhttp_request_get_input_buffer(relayed->request)) == 0;
}

static void on_answered(struct evhttp_request *asked, void *arg)
{
	struct relayed *relayed = arg;
	struct bufferevent *bev = evhttp_connection_get_bufferevent(relayed->client);

	relayed->asked = NULL;
	event_del(relayed->pause); /* the connection to the server is to be seen ending */
	if (asked != NULL && evhttp_request_get_response_code(asked) != 0) {
		evhttp_send_reply_end(relayed->request);
	} else if (relayed->begun) {
		relayed->cut = evbuffer_get_length(bufferevent_get_output(bev)) > 0;
		if (!relayed->cut) /* else once the client has what has come */
			cut_client(relayed);
	} else if (is_repeatable(relayed)) {
		ask(relayed);
	} else {
		evhttp_send_reply(relayed->request,
		    relayed->error == EVREQ_HTTP_TIMEOUT ? GATEWAY_TIMEOUT : BAD_GATEWAY, NULL,
		    NULL);
	}
}

/* Connections. */

static void relayed_free(struct relayed *relayed)
{
	LIST_REMOVE(relayed, others);
	event_free(relayed->pause);
	event_free(relayed->end);
	evhttp_connection_free(relayed->server);
	free(relayed);
}

static void on_end(evutil_socket_t fd, short what, void *relayed)
{
	(void)fd, (void)what;
	relayed_free(relayed);
}

/* A request whose client went away before the answer's end is ours to free. The server's connection is freed later,
 * as this may be called inside one of its callbacks. */
static void on_client_close(struct evhttp_connection *client, void *arg)
{
	struct relayed *relayed = arg;

	(void)client;
	if (relayed->request != NULL && evhttp_request_get_connection(relayed->request) == NULL)
		evhttp_request_free(relayed->request);
	if (relayed->asked != NULL)
		evhttp_cancel_request(relayed->asked);
	event_active(relayed->end, EV_TIMEOUT, 0);
}

static struct relayed *relayed_new(struct proxy *proxy, struct evhttp_connection *client)
{
	struct relayed *relayed = need(calloc(1, sizeof *relayed), "calloc");

	relayed->proxy = proxy;
	relayed->client = client;
	relayed->server =
	    need(evhttp_connection_base_new(proxy->base, NULL, proxy->host, proxy->port),
		"evhttp_connection_base_new");
	relayed->pause = need(event_new(proxy->base, -1, 0, on_pause, relayed), "event_new");
	relayed->end = need(event_new(proxy->base, -1, 0, on_end, relayed), "event_new");
	evhttp_connection_set_timeout_tv(relayed->server, &proxy->timeout);
	evhttp_connection_set_max_headers_size(relayed->server, MOST_HEADERS);
	evhttp_connection_set_closecb(client, on_client_close, relayed);
	LIST_INSERT_HEAD(&proxy->all, relayed, others);
	return relayed;
}

/* The client has the answer, and its next request may come. */
static void on_complete(struct evhttp_request *request, void *arg)
{
	struct relayed *relayed = arg;

	(void)request;
	relayed->request = NULL;
}

static void on_request(struct evhttp_request *request, void *arg)
{
	struct proxy *proxy = arg;
	struct evhttp_connection *client = evhttp_request_get_connection(request);
	struct relayed *relayed;

	LIST_FOREACH(relayed, &proxy->all, others)
	if (relayed->client == client)
		break;
	if (relayed == NULL)
		relayed = relayed_new(proxy, client);
	relayed->request = request;
	relayed->begun = 0;
	evhttp_request_set_on_complete_cb(request, on_complete, relayed);
	ask(relayed);
}

int main(int argc, char **argv)
{
	struct proxy proxy = {.all = LIST_HEAD_INITIALIZER(proxy.all)};
	struct evhttp *server;
	evutil_socket_t fd;
	struct event *interrupt;
	char address[80];

	start(argc, argv, 0, 5, "[host [port [server's host [server's port [timeout]]]]]");
	proxy.host = argument(argv, 3, "127.0.0.1");
	proxy.port = (ev_uint16_t)atoi(argument(argv, 4, "80"));
	proxy.timeout = timeval_of(atof(argument(argv, 5, "30")));
	proxy.base = need(event_base_new(), "event_base_new");
	server = need(evhttp_new(proxy.base), "evhttp_new");
	evhttp_set_allowed_methods(server, METHODS);
	evhttp_set_default_content_type(server, NULL);
	evhttp_set_max_headers_size(server, MOST_HEADERS);
	evhttp_set_max_body_size(server, MOST_BODY);
	evhttp_set_timeout_tv(server, &proxy.timeout);
	evhttp_set_gencb(server, on_request, &proxy);
	fd = serve_on(server, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"));
	interrupt = stop_on_interrupt(proxy.base);
	printf(
	    "serving %s by %s:%d, Ctrl-C to stop\n", own_text(fd, address), proxy.host, proxy.port);
	event_base_dispatch(proxy.base);
	event_free(interrupt);
	evhttp_free(server);
	while (!LIST_EMPTY(&proxy.all))
		relayed_free(LIST_FIRST(&proxy.all));
	event_base_free(proxy.base);
	return 0;
}
