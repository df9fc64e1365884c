/* Trampolines of struct evdns_server_port. libevent calls back while it reads from the port, with the port
 * locked: closing the port there would free it (N3), and a child forked there could never lock it again.
 * So requests are queued until libevent has left the port, and only then Python is called. */

/* How many requests wait; more are dropped, as by the kernel. */
#define EVPY_DNS_WAITING 256

struct evpy_dns_server {
	struct evdns_server_port *port;
	uintptr_t key;
	struct event *ready;
	struct evdns_server_request *waiting[EVPY_DNS_WAITING];
	unsigned int first, after;
	/* How many requests Python has: until the last of them ends, the port is open, and calls back (N2). */
	unsigned int given;
	int closed;
};

/* The servers whose callbacks this thread runs, the innermost first; NULL for one that was freed meanwhile. */
struct evpy_dns_running {
	struct evpy_dns_server *server;
	struct evpy_dns_running *outer;
};
static _Thread_local struct evpy_dns_running *evpy_dns_running;

/* An answer begins with the questions. Those from the network may be too long for the room that libevent
 * has (it doesn't notice one byte too many), or contain a name that has no dotted form. */
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

static void evpy_on_dns_query(struct evdns_server_request *request, void *arg)
{
	struct evpy_dns_server *server = arg;

	if (server->closed || server->after - server->first == EVPY_DNS_WAITING ||
	    !evpy_dns_is_answerable(request)) {
		evdns_server_request_drop(request);
		return;
	}
	server->waiting[server->after++ % EVPY_DNS_WAITING] = request;
	event_active(server->ready, EV_READ, 0);
}

/* Python has one request less. */
static void evpy_dns_ended(struct evpy_dns_server *server)
{
	if (--server->given == 0 && server->closed)
		evpy_free(server);
}

static void evpy_dns_drop(struct evpy_dns_server *server, struct evdns_server_request *request)
{
	evdns_server_request_drop(request);
	evpy_dns_ended(server);
}

/* The first question, nearly always the only one, is passed along: Python would be slower to fetch it.
 *
 * A request that Python doesn't take is dropped, or it would keep the port open (N2). */
static void evpy_on_dns_ready(evutil_socket_t fd, short what, void *arg)
{
	struct evpy_dns_server *server = arg;
	struct evpy_dns_running running = {server, evpy_dns_running};
	int taken;

	(void)fd;
	(void)what;
	evpy_dns_running = &running;
	while (running.server != NULL && server->first != server->after) {
		struct evdns_server_request *request =
		    server->waiting[server->first++ % EVPY_DNS_WAITING];
		const struct evdns_server_question *asked = request->questions[0];

		taken = 0;
		++server->given;
		EVPY_CALL(evpy_dns_query(server->key, request, request->nquestions, asked->name,
		    asked->type, asked->dns_question_class, &taken));
		if (!taken) /* perhaps an interrupt has kept Python from it */
			EVPY_CALL(evpy_dns_query(server->key, request, request->nquestions,
			    asked->name, asked->type, asked->dns_question_class, &taken));
		if (!taken)
			evpy_dns_drop(server, request);
	}
	evpy_dns_running = running.outer;
}

static struct evpy_dns_server *evpy_dns_server_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t key)
{
	struct evpy_dns_server *server = evpy_calloc(1, sizeof *server);

	if (server == NULL)
		return NULL;
	server->key = key;
	server->ready = event_new(base, -1, 0, evpy_on_dns_ready, server);
	if (server->ready != NULL)
		server->port =
		    evdns_add_server_port_with_base(base, fd, 0, evpy_on_dns_query, server);
	if (server->port != NULL)
		return server;
	if (server->ready != NULL)
		event_free(server->ready);
	evpy_free(server);
	return NULL;
}

static void evpy_dns_server_free(struct evpy_dns_server *server, struct evdns_server_port *port)
{
	struct evpy_dns_running *running;

	while (server->first != server->after)
		evdns_server_request_drop(server->waiting[server->first++ % EVPY_DNS_WAITING]);
	for (running = evpy_dns_running; running != NULL; running = running->outer)
		if (running->server == server)
			running->server = NULL;
	event_free(server->ready);
	server->closed = 1;
	evdns_close_server_port(port);
	if (server->given == 0)
		evpy_free(server);
}

/* libevent queues an answer that it can't send; if the port is closed meanwhile, the callback that is about to
 * unlock it frees it. So the answer is sent a second time here and now, or not at all. Returns 1 if the
 * network doesn't take it, -1 if it can't be sent without waiting. In both cases the request is freed. */
static int evpy_dns_respond(
    struct evpy_dns_server *server, struct evdns_server_request *request, int code)
{
	int before = evpy_guard(), result = -1, error; /* or the answer would lose its records */

	if (before >= 0) {
		do
			result = evdns_server_request_respond(request, code);
		while (result < 0 && errno == EINTR); /* evdns has not queued it, either */
		if (result == 1)
			result = evdns_server_request_respond(request, code);
		error = errno;
		evpy_unguard(before);
		errno = error;
	}
	error = errno;
	if (result != 0)
		evdns_server_request_drop(request);
	evpy_dns_ended(server);
	errno = error;
	return result;
}
