/* An HTTP server of the files in a directory, which are sent straight from the disk.
 *
 * A directory is answered with a list of its files. Nothing outside the directory is served: neither by "..",
 * however it is encoded, nor through symbolic links. /dump prints the request, and so does every method but GET. */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/keyvalq_struct.h>

#include "web.h"

static const struct {
	const char *extension, *type;
} types[] = {
    {".css", "text/css"},
    {".gif", "image/gif"},
    {".html", "text/html"},
    {".jpg", "image/jpeg"},
    {".js", "text/javascript"},
    {".json", "application/json"},
    {".pdf", "application/pdf"},
    {".png", "image/png"},
    {".svg", "image/svg+xml"},
    {".txt", "text/plain"},
};

static const char *type_of(const char *path)
{
	const char *dot = strrchr(path, '.');
	size_t i;

	for (i = 0; dot != NULL && i < sizeof types / sizeof *types; ++i)
		if (evutil_ascii_strcasecmp(dot, types[i].extension) == 0)
			return types[i].type;
	return "application/octet-stream";
}

static const char *command_name(enum evhttp_cmd_type command)
{
	static const char *const names[] = {
	    "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"};
	size_t i;

	for (i = 0; i < sizeof names / sizeof *names; ++i)
		if ((unsigned)command == 1u << i)
			return names[i];
	return "?";
}

static void dump(struct evhttp_request *request, void *arg)
{
	struct evbuffer *body = evhttp_request_get_input_buffer(request);
	const unsigned char *data = evbuffer_pullup(body, -1);
	size_t i, size = evbuffer_get_length(body);
	struct evkeyval *header;

	(void)arg;
	printf("%s %s\n", command_name(evhttp_request_get_command(request)),
	    evhttp_request_get_uri(request));
	TAILQ_FOREACH(header, evhttp_request_get_input_headers(request), next)
	printf("  %s: %s\n", header->key, header->value);
	printf("body: ");
	for (i = 0; i < size; ++i)
		putchar(data[i] >= ' ' && data[i] <= '~' ? data[i] : '.');
	printf("\n");
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

/* Answer a request; without this, libevent would send the body to HEAD, too, and not say how long it is. */
static void reply(struct evhttp_request *request, int code, const char *reason)
{
	struct evbuffer *body = evhttp_request_get_output_buffer(request);
	char length[24];

	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
		snprintf(length, sizeof length, "%zu", evbuffer_get_length(body));
		evhttp_add_header(
		    evhttp_request_get_output_headers(request), "Content-Length", length);
		evbuffer_drain(body, evbuffer_get_length(body));
	}
	evhttp_send_reply(request, code, reason, NULL);
}

static void refuse(struct evhttp_request *request)
{
	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD)
		reply(request, HTTP_NOTFOUND, NULL);
	else
		evhttp_send_error(request, HTTP_NOTFOUND, NULL);
}

/* Return the path that is asked for, decoded, or NULL; the caller frees it. */
static char *path_of(struct evhttp_request *request)
{
	struct evhttp_uri *uri = evhttp_uri_parse(evhttp_request_get_uri(request));
	const char *given = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
	size_t size;
	char *path = NULL;

	if (given != NULL)
		path = evhttp_uridecode(*given != '\0' ? given : "/", 0, &size);
	if (path != NULL && strlen(path) != size) { /* it contains a zero */
		free(path);
		path = NULL;
	}
	if (uri != NULL)
		evhttp_uri_free(uri);
	return path;
}

static int goes_up(const char *path)
{
	const char *found = path;

	while ((found = strstr(found, "..")) != NULL) {
		if ((found == path || found[-1] == '/') && (found[2] == '/' || found[2] == '\0'))
			return 1;
		++found;
	}
	return 0;
}

/* Return a descriptor of what a path leads to, or -1 if it leads to nothing or out of the directory `root`. */
static int open_inside(const char *root, const char *path)
{
	size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
	char *whole, *real;
	int fd = -1;

	if (asprintf(&whole, "%s/%s", root, path) < 0)
		return -1;
	real = goes_up(path) ? NULL : realpath(whole, NULL);
	if (real != NULL && strncmp(real, root, length) == 0 &&
	    (real[length] == '/' || real[length] == '\0'))
		fd = open(
		    real, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* else a FIFO would hold all up */
	free(real);
	free(whole);
	return fd;
}

static int is_listed(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Add a page about a directory to `body`. */
static void add_list(struct evbuffer *body, int fd, const char *directory)
{
	char *shown = evhttp_htmlescape(directory), *link, *name;
	struct dirent **entries;
	int i, count = scandirat(fd, ".", &entries, is_listed, alphasort);

	evbuffer_add_printf(body,
	    "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>%s</title></head>\n"
	    "<body><h1>%s</h1>\n<ul>\n",
	    shown, shown);
	for (i = 0; i < count; ++i) {
		link = evhttp_uriencode(entries[i]->d_name, -1, 0);
		name = evhttp_htmlescape(entries[i]->d_name);
		evbuffer_add_printf(body, "<li><a href='%s'>%s</a></li>\n", link, name);
		free(name);
		free(link);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	free(shown);
	evbuffer_add_printf(body, "</ul></body></html>\n");
}

/* Answer with the file or directory that `fd` is open on, and `path` leads to. */
static void send_found(struct evhttp_request *request, const char *path, int fd)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	struct evbuffer *body = evhttp_request_get_output_buffer(request);
	const char *last = strrchr(path, '/'), *name = last != NULL ? last + 1 : path;
	char *link, location[3 * NAME_MAX + 2];
	struct stat found;
	int copy;

	if (fstat(fd, &found) < 0 ||
	    !(S_ISDIR(found.st_mode) || (S_ISREG(found.st_mode) && *name != '\0'))) {
		refuse(request);
	} else if (S_ISREG(found.st_mode)) {
		evhttp_add_header(headers, "Content-Type", type_of(name));
		evbuffer_set_flags(body, EVBUFFER_FLAG_DRAINS_TO_FD); /* else it is mapped */
		copy = dup(fd); /* which libevent closes */
		if (copy >= 0 && evbuffer_add_file(body, copy, 0, found.st_size) == 0)
			reply(request, HTTP_OK, "OK");
		else
			evhttp_send_error(request, HTTP_INTERNAL, NULL);
	} else if (*name == '\0') {
		evhttp_add_header(headers, "Content-Type", "text/html; charset=utf-8");
		add_list(body, fd, path);
		reply(request, HTTP_OK, "OK");
	} else {
		link = evhttp_uriencode(name, -1, 0);
		snprintf(location, sizeof location, "%s/", link);
		free(link);
		evhttp_add_header(headers, "Location", location);
		reply(request, HTTP_MOVEPERM, "Moved Permanently");
	}
}

static void answer(struct evhttp_request *request, void *root)
{
	enum evhttp_cmd_type command = evhttp_request_get_command(request);
	char *path;
	int fd;

	if (command != EVHTTP_REQ_GET && command != EVHTTP_REQ_HEAD) {
		dump(request, NULL);
		return;
	}
	path = path_of(request);
	fd = path != NULL ? open_inside(root, path) : -1;
	if (fd >= 0) {
		send_found(request, path, fd);
		close(fd);
	} else {
		refuse(request);
	}
	free(path);
}

/* Have a server accept connections on a Unix socket. */
static void serve_on_path(struct event_base *base, struct evhttp *server, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct evconnlistener *listener;

	if (strlen(path) >= sizeof address.sun_path)
		die("%s: %s", path, strerror(ENAMETOOLONG));
	strcpy(address.sun_path, path);
	listener =
	    evconnlistener_new_bind(base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
		-1, (struct sockaddr *)&address, sizeof address);
	if (listener == NULL || evhttp_bind_listener(server, listener) == NULL)
		die("%s: %s", path, strerror(errno));
	evconnlistener_set_error_cb(listener, on_accept_error);
}

int main(int argc, char **argv)
{
	struct timeval timeout = {10, 0};
	const char *path = NULL;
	char *root;
	struct event_base *base;
	struct evhttp *server;
	struct event *interrupt;
	evutil_socket_t fd = -1;

	start(argc, argv, 0, 5, "[-U socket] [host [port [directory]]]");
	if (argc > 2 && strcmp(argv[1], "-U") == 0) {
		path = argv[2];
		argv += 2;
	}
	if ((root = realpath(argument(argv, 3, "."), NULL)) == NULL)
		die("%s: %s", argument(argv, 3, "."), strerror(errno));
	base = need(event_base_new(), "event_base_new");
	server = need(evhttp_new(base), "evhttp_new");
	evhttp_set_timeout_tv(server, &timeout);
	evhttp_set_max_body_size(server, 1 << 20);
	evhttp_set_cb(server, "/dump", dump, NULL);
	evhttp_set_gencb(server, answer, root);
	if (path != NULL)
		serve_on_path(base, server, path);
	else
		fd = serve_on(server, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"));
	interrupt = stop_on_interrupt(base);
	if (path != NULL)
		printf("serving %s, Ctrl-C to stop\n", path);
	else
		print_serving(fd);
	event_base_dispatch(base);
	event_free(interrupt);
	evhttp_free(server);
	event_base_free(base);
	free(root);
	return 0;
}
