/* A server that reads a whole request, and answers with four headers: `http_headers`. */
#include <sys/queue.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "http_server.h"

static const char *const HEADERS[][2] = {
    {"Content-Type", "text/plain; charset=utf-8"},
    {"Content-Length", "13"},
    {"Cache-Control", "no-store"},
    {"Set-Cookie", "session=0123456789abcdef; Path=/; HttpOnly"},
};

static void headed(struct evhttp_request *request, void *arg)
{
	struct evkeyvalq *asked = evhttp_request_get_input_headers(request);
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	struct evkeyval *header;
	size_t size = strlen(evhttp_request_get_uri(request)), i;

	TAILQ_FOREACH(header, asked, next)
	size += strlen(header->key) + strlen(header->value);
	if (size == 0 || evbuffer_get_length(evhttp_request_get_input_buffer(request)) > 0)
		abort();
	for (i = 0; i < sizeof HEADERS / sizeof HEADERS[0]; ++i)
		evhttp_add_header(headers, HEADERS[i][0], HEADERS[i][1]);
	evbuffer_add(evhttp_request_get_output_buffer(request), "Hello, World!", 13);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

int main(void)
{
	struct event_base *base = event_base_new();

	if (base == NULL)
		abort();
	serve_on_loopback(base, headed);
	return event_base_dispatch(base);
}
