/* A client of HTTP that sends or gets many bytes: `http_transfer upload DIRECTORY|download`. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/http.h>

#include "contender.h"

static struct event_base *base;
static const char *directory;
static long received, size;

static void on_chunk(struct evhttp_request *request, void *arg)
{
	received += evbuffer_get_length(evhttp_request_get_input_buffer(request));
}

static void on_answer(struct evhttp_request *request, void *arg)
{
	if (request == NULL || evhttp_request_get_response_code(request) != HTTP_OK)
		abort();
	event_base_loopbreak(base);
}

static void ask(int port)
{
	struct evhttp_connection *connection =
	    evhttp_connection_base_new(base, NULL, "127.0.0.1", port);
	struct evhttp_request *request = evhttp_request_new(on_answer, NULL);

	evhttp_add_header(evhttp_request_get_output_headers(request), "Host", "127.0.0.1");
	if (directory) {
		char path[4096];
		snprintf(path, sizeof path, "%s/%ld", directory, size);
		if (evbuffer_add_file(
			evhttp_request_get_output_buffer(request), open(path, O_RDONLY), 0, size))
			abort();
		evhttp_make_request(connection, request, EVHTTP_REQ_POST, "/");
	} else {
		evhttp_request_set_chunked_cb(request, on_chunk);
		evhttp_make_request(connection, request, EVHTTP_REQ_GET, "/");
	}
	event_base_dispatch(base);
	evhttp_connection_free(connection);
}

int main(int argc, char **argv)
{
	long port;

	if (argc > 2 && strcmp(argv[1], "upload") == 0)
		directory = argv[2];
	signal(SIGPIPE, SIG_IGN);
	base = new_base();
	while (next_count(&port) && next_count(&size)) {
		long long start = processor_time();
		received = 0;
		ask(port);
		answer(processor_time() - start, (directory ? size : received) / 1024);
	}
	return 0;
}
