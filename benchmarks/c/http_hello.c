/* "Hello, World!" over HTTP: `http_hello [changelist]`. */
#include <event2/buffer.h>
#include <event2/http.h>

#include "http_server.h"

static void hello(struct evhttp_request *request, void *arg)
{
	evbuffer_add(evhttp_request_get_output_buffer(request), "Hello, World!", 13);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

int main(int argc, char **argv)
{
	struct event_config *config = event_config_new();
	struct event_base *base;

	if (argc > 1 && strcmp(argv[1], "changelist") == 0)
		event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	base = event_base_new_with_config(config);
	if (base == NULL)
		abort();
	event_config_free(config);
	serve_on_loopback(base, hello);
	return event_base_dispatch(base);
}
