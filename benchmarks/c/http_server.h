/* What the C servers of HTTP share: a server on an ephemeral loopback port that says where it is. */
#include <signal.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <event2/http.h>

#include "contender.h"

typedef void handler(struct evhttp_request *request, void *arg);

static inline struct evhttp *serve_on_loopback(struct event_base *base, handler *answer_request)
{
	struct sockaddr_in address;
	socklen_t length = sizeof address;
	struct evhttp *server = evhttp_new(base);
	struct evhttp_bound_socket *bound;

	signal(SIGPIPE, SIG_IGN);
	evhttp_set_gencb(server, answer_request, base);
	bound = evhttp_bind_socket_with_handle(server, "127.0.0.1", 0);
	if (bound == NULL)
		abort();
	getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &length);
	say_port(ntohs(address.sin_port));
	return server;
}
