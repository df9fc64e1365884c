/* What the samples of HTTP share. */

#ifndef SAMPLE_WEB_H
#define SAMPLE_WEB_H

#include <event2/buffer.h>
#include <event2/http.h>

#include "sample.h"

/* Have a server accept connections on a host and a port; return the socket that listens. */
static inline evutil_socket_t serve_on(struct evhttp *server, const char *host, const char *port)
{
	struct evhttp_bound_socket *bound;

	bound = evhttp_bind_socket_with_handle(server, host, (ev_uint16_t)atoi(port));
	if (bound == NULL)
		die("%s:%s: %s", host, port, strerror(errno));
	evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(bound), on_accept_error);
	return evhttp_bound_socket_get_fd(bound);
}

/* Print what is in a buffer, and empty it. */
static inline void print_buffer(struct evbuffer *buffer)
{
	char data[65536];
	int size;

	while ((size = evbuffer_remove(buffer, data, sizeof data)) > 0)
		fwrite(data, 1, (size_t)size, stdout);
}

/* Write a URL's host, without an IPv6 address's brackets, to `host`. */
static inline const char *host_of(const struct evhttp_uri *url, char host[static 256])
{
	const char *given = evhttp_uri_get_host(url);

	given += *given == '[';
	snprintf(host, 256, "%.*s", (int)strcspn(given, "]"), given);
	return host;
}

/* Return what a request for a URL asks for; the caller frees it. */
static inline char *target_of(const struct evhttp_uri *url)
{
	const char *path = evhttp_uri_get_path(url), *query = evhttp_uri_get_query(url);
	size_t size = strlen(path) + (query != NULL ? strlen(query) : 0) + 3;
	char *target = need(malloc(size), "malloc");

	snprintf(target, size, "%s%s%s", *path != '\0' ? path : "/", query != NULL ? "?" : "",
	    query != NULL ? query : "");
	return target;
}

/* Why a client's request has failed. */
struct failure {
	int code;  /* of evhttp_request_error, or -1 */
	int error; /* an errno, or 0 */
	bufferevent_event_cb theirs;
	void *connection;
};

static inline const char *failure_text(const struct failure *failure)
{
	static const char *const texts[] = {
	    [EVREQ_HTTP_TIMEOUT] = "nothing came for too long",
	    [EVREQ_HTTP_EOF] = "the connection ended before the response did",
	    [EVREQ_HTTP_INVALID_HEADER] = "the response's headers are malformed or too long",
	    [EVREQ_HTTP_BUFFER_ERROR] = "the connection failed",
	    [EVREQ_HTTP_REQUEST_CANCEL] = "it was cancelled",
	    [EVREQ_HTTP_DATA_TOO_LONG] = "the response's body is malformed or too long",
	};

	if (failure->error != 0)
		return strerror(failure->error);
	return failure->code >= 0 ? texts[failure->code] : "the connection could not be made";
}

/* evhttp closes the socket before it calls back, which changes errno; so this comes before its own callback. */
static inline void on_connected(struct bufferevent *bev, short what, void *arg)
{
	struct failure *failure = arg;

	if (what & (BEV_EVENT_ERROR | BEV_EVENT_EOF | BEV_EVENT_TIMEOUT))
		failure->error = what & BEV_EVENT_TIMEOUT ? ETIMEDOUT : errno;
	failure->theirs(bev, what, failure->connection);
}

/* Note why the connection can't be made that evhttp_make_request() has begun to make. */
static inline void note_failure(struct evhttp_connection *connection, struct failure *failure)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
	bufferevent_data_cb read, write;

	bufferevent_getcb(bev, &read, &write, &failure->theirs, &failure->connection);
	bufferevent_setcb(bev, read, write, on_connected, failure);
}

#endif
