/* A server of the files in a directory: `http_file DIRECTORY`. */
#include <fcntl.h>
#include <sys/stat.h>

#include <event2/buffer.h>
#include <event2/http.h>

#include "http_server.h"

static int directory;

static void send_file(struct evhttp_request *request, void *arg)
{
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(request));
	char *decoded = evhttp_uridecode(path, 0, NULL);
	struct evbuffer *body;
	struct stat status;
	int fd = -1;

	if (decoded && decoded[0] == '/' && !strstr(decoded, ".."))
		fd = openat(directory, decoded + 1, O_RDONLY | O_CLOEXEC);
	free(decoded);
	if (fd < 0 || fstat(fd, &status)) {
		evhttp_send_error(request, HTTP_NOTFOUND, NULL);
		return;
	}
	evhttp_add_header(
	    evhttp_request_get_output_headers(request), "Content-Type", "application/octet-stream");
	body = evhttp_request_get_output_buffer(request);
	evbuffer_set_flags(body, EVBUFFER_FLAG_DRAINS_TO_FD); /* else the file would be mapped */
	evbuffer_add_file(body, fd, 0, status.st_size);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

int main(int argc, char **argv)
{
	struct event_base *base = new_base();

	if (argc != 2 || (directory = open(argv[1], O_RDONLY | O_DIRECTORY)) < 0)
		return 2;
	serve_on_loopback(base, send_file);
	return event_base_dispatch(base);
}
