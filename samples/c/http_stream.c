/* An HTTP server whose answer never ends: it counts, for as long as the client listens.
 *
 * The next numbers are made when the client has got the last ones, so a client that reads slowly, or not at all,
 * costs no memory. A client that takes nothing for ten seconds is disconnected. */

#include "web.h"

/* How many numbers are sent at once. */
#define MANY 10000

struct count {
	struct evhttp_request *request;
	long first;
};

static void on_sent(struct evhttp_connection *client, void *count);

static void send_more(struct count *count)
{
	char numbers[MANY * sizeof "-9223372036854775808"];
	size_t length = 0;
	long end = count->first + MANY;
	struct evbuffer *chunk = need(evbuffer_new(), "evbuffer_new");

	for (; count->first < end; ++count->first)
		length +=
		    snprintf(numbers + length, sizeof numbers - length, "%ld\n", count->first);
	evbuffer_add(chunk, numbers, length);
	evhttp_send_reply_chunk_with_cb(count->request, chunk, on_sent, count);
	evbuffer_free(chunk);
}

static void on_sent(struct evhttp_connection *client, void *count)
{
	(void)client;
	send_more(count);
}

/* When a client goes away, libevent leaves the request that is being answered to us. */
static void on_close(struct evhttp_connection *client, void *arg)
{
	struct count *count = arg;

	(void)client;
	if (evhttp_request_get_connection(count->request) == NULL)
		evhttp_request_free(count->request);
	free(count);
}

static void answer(struct evhttp_request *request, void *arg)
{
	struct count *count;

	(void)arg;
	evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "text/plain");
	evhttp_send_reply_start(request, HTTP_OK, "OK");
	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
		evhttp_send_reply_end(request);
		return;
	}
	count = need(malloc(sizeof *count), "malloc");
	count->request = request;
	count->first = 1;
	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_close, count);
	send_more(count);
}

int main(int argc, char **argv)
{
	struct timeval timeout;
	struct event_base *base;
	struct evhttp *server;
	evutil_socket_t fd;
	struct event *interrupt;

	start(argc, argv, 0, 3, "[host [port [timeout in seconds]]]");
	timeout = timeval_of(atof(argument(argv, 3, "10")));
	base = need(event_base_new(), "event_base_new");
	server = need(evhttp_new(base), "evhttp_new");
	evhttp_set_timeout_tv(server, &timeout);
	evhttp_set_gencb(server, answer, NULL);
	fd = serve_on(server, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"));
	interrupt = stop_on_interrupt(base);
	print_serving(fd);
	event_base_dispatch(base);
	event_free(interrupt);
	evhttp_free(server);
	event_base_free(base);
	return 0;
}
