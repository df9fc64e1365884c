/* A client that gets a URL through a proxy, by CONNECT.
 *
 * The proxy is asked to CONNECT to the URL's host. After that the proxy only relays bytes, and the next request on
 * the same connection reaches the server behind it. */

#include "web.h"

struct client {
	struct event_base *base;
	struct evhttp_connection *connection;
	struct evhttp_uri *url;
	struct failure failure;
	char where[300];
	int status;
};

static void on_error(enum evhttp_request_error code, void *arg)
{
	struct client *client = arg;

	client->failure.code = (int)code;
}

/* Tell whether there is an answer; if there is none, say why. */
static int is_answered(struct client *client, struct evhttp_request *request)
{
	if (request != NULL && evhttp_request_get_response_code(request) != 0)
		return 1;
	fprintf(stderr, "%s: %s\n", client->where, failure_text(&client->failure));
	event_base_loopexit(client->base, NULL);
	return 0;
}

/* Make a request, which goes to the proxy or, through it, to the server. */
static void ask(struct client *client, void (*callback)(struct evhttp_request *, void *),
    enum evhttp_cmd_type command, const char *target)
{
	struct evhttp_request *made = need(evhttp_request_new(callback, client), "a request");
	struct evkeyvalq *headers = evhttp_request_get_output_headers(made);

	evhttp_request_set_error_cb(made, on_error);
	evhttp_add_header(
	    headers, "Connection", command == EVHTTP_REQ_CONNECT ? "keep-alive" : "close");
	evhttp_add_header(headers, "Host", client->where);
	if (evhttp_make_request(client->connection, made, command, target) < 0)
		die("%s can't be asked for", target);
}

static void on_get(struct evhttp_request *request, void *arg)
{
	struct client *client = arg;

	if (!is_answered(client, request))
		return;
	print_buffer(evhttp_request_get_input_buffer(request));
	client->status = 0;
	event_base_loopexit(client->base, NULL);
}

static void on_connect(struct evhttp_request *request, void *arg)
{
	struct client *client = arg;
	char *target;
	int code;

	if (!is_answered(client, request))
		return;
	code = evhttp_request_get_response_code(request);
	if (code < 200 || code >= 300) {
		fprintf(stderr, "the proxy says %d %s\n", code,
		    evhttp_request_get_response_code_line(request));
		event_base_loopexit(client->base, NULL);
		return;
	}
	target = target_of(client->url);
	ask(client, on_get, EVHTTP_REQ_GET, target);
	free(target);
}

static struct evhttp_uri *parsed(const char *text)
{
	struct evhttp_uri *url = evhttp_uri_parse(text);

	if (url == NULL || evhttp_uri_get_host(url) == NULL || evhttp_uri_get_port(url) <= 0)
		die("%s must have a host and a port", text);
	return url;
}

int main(int argc, char **argv)
{
	struct client client = {.failure.code = -1, .status = 1};
	struct evhttp_uri *proxy;
	struct event *interrupt;
	char host[256];

	start(argc, argv, 2, 2, "http://proxy:port http://host:port/path");
	proxy = parsed(argv[1]);
	client.url = parsed(argv[2]);
	snprintf(client.where, sizeof client.where, "%s:%d", evhttp_uri_get_host(client.url),
	    evhttp_uri_get_port(client.url));
	client.base = need(event_base_new(), "event_base_new");
	client.connection = need(evhttp_connection_base_new(client.base, NULL, host_of(proxy, host),
				     (ev_uint16_t)evhttp_uri_get_port(proxy)),
	    "evhttp_connection_base_new");
	ask(&client, on_connect, EVHTTP_REQ_CONNECT, client.where);
	note_failure(client.connection, &client.failure);
	interrupt = stop_on_interrupt(client.base);
	event_base_dispatch(client.base);
	event_free(interrupt);
	evhttp_connection_free(client.connection);
	event_base_free(client.base);
	evhttp_uri_free(proxy);
	evhttp_uri_free(client.url);
	return client.status;
}
