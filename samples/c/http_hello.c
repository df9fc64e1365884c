/* An HTTP server that answers every request with hello. */

#include "web.h"

static void hello(struct evhttp_request *request, void *arg)
{
	struct evbuffer *body = evhttp_request_get_output_buffer(request);

	(void)arg;
	evbuffer_add(body, "Hello, World!\n", 14);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

int main(int argc, char **argv)
{
	struct event_base *base;
	struct evhttp *server;
	evutil_socket_t fd;
	struct event *interrupt;

	start(argc, argv, 0, 2, "[host [port]]");
	base = need(event_base_new(), "event_base_new");
	server = need(evhttp_new(base), "evhttp_new");
	evhttp_set_gencb(server, hello, NULL);
	fd = serve_on(server, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"));
	interrupt = stop_on_interrupt(base);
	print_serving(fd);
	event_base_dispatch(base);
	event_free(interrupt);
	evhttp_free(server);
	event_base_free(base);
	return 0;
}
