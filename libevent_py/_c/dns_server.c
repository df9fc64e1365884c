/* Trampolines of struct evdns_server_port; `arg` is a key, as in event.c. */

/* How many callbacks of DNS servers are below in this thread. */
static _Thread_local int evpy_dns_callbacks;

static int evpy_dns_server_calling(void)
{
	return evpy_dns_callbacks;
}

/* An answer begins with the questions. What comes over the network may make them too long for the room
 * that libevent has, by one byte of which it doesn't notice, or be no name in its dotted form. */
static int evpy_dns_is_answerable(struct evdns_server_request *request)
{
	size_t size = 12;
	int i;

	for (i = 0; i < request->nquestions; ++i) {
		const char *name = request->questions[i]->name;
		size_t length = strlen(name);

		if (length > 253 || name[0] == '.' || strstr(name, "..") != NULL)
			return 0;
		if (length > 0 && name[length - 1] == '.')
			return 0;
		size += length + 6;
	}
	return request->nquestions > 0 && size < 1500;
}

/* A request that nobody takes is dropped, or it would keep the port open (N2). */
static void evpy_on_dns_query(struct evdns_server_request *request, void *key)
{
	int taken = 0;

	if (evpy_dns_is_answerable(request)) {
		++evpy_dns_callbacks;
		EVPY_CALL(taken = evpy_dns_query((uintptr_t)key, request));
		--evpy_dns_callbacks;
	}
	if (!taken)
		evdns_server_request_drop(request);
}

static struct evdns_server_port *evpy_dns_server_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t key)
{
	return evdns_add_server_port_with_base(base, fd, 0, evpy_on_dns_query, (void *)key);
}

/* libevent queues an answer that it can't send, and a port that is closed meanwhile is freed by the
 * callback that is about to unlock it. So it is sent a second time here and now, or not at all: 1 when
 * the network doesn't take it, -1 when it can't be sent without waiting. Either way the request is gone. */
static int evpy_dns_respond(struct evdns_server_request *request, int code)
{
	int error, result = evdns_server_request_respond(request, code);

	if (result == 1)
		result = evdns_server_request_respond(request, code);
	if (result == 0)
		return 0;
	error = errno;
	evdns_server_request_drop(request);
	errno = error;
	return result;
}
