/* The memory of connections over HTTP that have been answered and stay open. */
#include <event2/buffer.h>
#include <event2/http.h>

#include "http_server.h"

static long left;

static void answered(struct evhttp_request *request, void *base)
{
	if (--left == 0)
		event_base_loopexit(base, NULL);
}

static void hello(struct evhttp_request *request, void *base)
{
	evhttp_request_set_on_complete_cb(request, answered, base);
	evbuffer_add(evhttp_request_get_output_buffer(request), "Hello, World!", 13);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

int main(void)
{
	struct event_base *base = new_base();
	long count;

	serve_on_loopback(base, hello);
	while (next_count(&count)) {
		long long before = resident_bytes();
		left = count;
		event_base_dispatch(base);
		answer(resident_bytes() - before, count);
	}
	return 0;
}
