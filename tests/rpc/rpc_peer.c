/* The C side of test_rpc_wire.py, built with what event_rpcgen.py makes of every.rpc.
 *
 *   make full|least   write a message to the standard output
 *   copy              read a message, and write it again
 *   serve             print a port; answer calls of Copy by what they have asked
 *   call PORT         read a message, call Copy with it, write the reply */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/rpc.h>
#include <event2/rpc_struct.h>
#include <event2/tag.h>

#include "every.gen.h"

EVRPC_HEADER(Copy, every, every)
EVRPC_GENERATE(Copy, every, every)

static void check(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s\n", what);
		exit(1);
	}
}

static struct every *from_input(void)
{
	struct evbuffer *input = evbuffer_new();
	struct every *message = every_new();

	while (evbuffer_read(input, 0, -1) > 0)
		;
	check(every_unmarshal(message, input) == 0, "malformed");
	evbuffer_free(input);
	return message;
}

static void to_output(const struct every *message)
{
	struct evbuffer *output = evbuffer_new();

	every_marshal(output, message);
	while (evbuffer_get_length(output) > 0)
		check(evbuffer_write(output, 1) > 0, "write");
	evbuffer_free(output);
}

static struct every *make(int full)
{
	struct every *message = every_new();
	struct inner *inner;

	EVTAG_ASSIGN(message, number, 0);
	EVTAG_ASSIGN(message, large, 0xdead0a0bcafebeefULL);
	EVTAG_ASSIGN(message, text, "");
	EVTAG_ASSIGN(message, fixed, (const ev_uint8_t *)"a\0b\xff!");
	EVTAG_ASSIGN_WITH_LEN(message, some, (const ev_uint8_t *)"\0\1\2", 3);
	check(EVTAG_GET(message, one, &inner) == 0, "one");
	EVTAG_ASSIGN(inner, name, "inner");
	if (!full)
		return message;
	EVTAG_ASSIGN(inner, count, 15);
	check(EVTAG_ARRAY_ADD_VALUE(message, numbers, 0) != NULL, "numbers");
	EVTAG_ARRAY_ADD_VALUE(message, numbers, 16);
	EVTAG_ARRAY_ADD_VALUE(message, numbers, 0xffffffff);
	EVTAG_ARRAY_ADD_VALUE(message, larges, 1ULL << 32);
	EVTAG_ARRAY_ADD_VALUE(message, texts, "Troms\303\270");
	EVTAG_ARRAY_ADD_VALUE(message, texts, "");
	check((inner = EVTAG_ARRAY_ADD(message, many)) != NULL, "many");
	EVTAG_ASSIGN(inner, name, "first");
	check((inner = EVTAG_ARRAY_ADD(message, many)) != NULL, "many");
	EVTAG_ASSIGN(inner, name, "second");
	EVTAG_ASSIGN(inner, count, 2);
	EVTAG_ASSIGN(message, maybe_number, 0xdead0a0b);
	EVTAG_ASSIGN(message, maybe_large, 255);
	EVTAG_ASSIGN(message, maybe_text, "maybe");
	EVTAG_ASSIGN(message, maybe_fixed, (const ev_uint8_t *)"xyz");
	EVTAG_ASSIGN_WITH_LEN(message, maybe_some, (const ev_uint8_t *)"?", 1);
	check(EVTAG_GET(message, maybe_one, &inner) == 0, "maybe_one");
	EVTAG_ASSIGN(inner, name, "maybe");
	return message;
}

static void copy(EVRPC_STRUCT(Copy) *rpc, void *unused)
{
	struct evbuffer *buffer = evbuffer_new();

	(void)unused;
	every_marshal(buffer, rpc->request);
	check(every_unmarshal(rpc->reply, buffer) == 0, "malformed");
	evbuffer_free(buffer);
	EVRPC_REQUEST_DONE(rpc);
}

static void serve(struct event_base *base)
{
	struct evhttp *http = evhttp_new(base);
	struct evrpc_base *server = evrpc_init(http);
	struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(http, "127.0.0.1", 0);
	struct sockaddr_in address;
	socklen_t size = sizeof address;

	check(bound != NULL, "bind");
	check(EVRPC_REGISTER(server, Copy, every, every, copy, NULL) == 0, "register");
	getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &size);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	event_base_dispatch(base);
}

static void replied(
    struct evrpc_status *status, struct every *request, struct every *reply, void *base)
{
	(void)request;
	check(status->error == EVRPC_STATUS_ERR_NONE, "status");
	to_output(reply);
	event_base_loopexit(base, NULL);
}

static void call(struct event_base *base, int port)
{
	struct evrpc_pool *pool = evrpc_pool_new(NULL);
	struct evhttp_connection *connection =
	    evhttp_connection_base_new(base, NULL, "127.0.0.1", port);

	evrpc_pool_add_connection(pool, connection);
	EVRPC_MAKE_REQUEST(Copy, pool, from_input(), every_new(), replied, base);
	event_base_dispatch(base);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();

	check(argc > 1, "usage: make full|least, copy, serve, call PORT");
	if (strcmp(argv[1], "make") == 0)
		to_output(make(strcmp(argv[2], "full") == 0));
	else if (strcmp(argv[1], "copy") == 0)
		to_output(from_input());
	else if (strcmp(argv[1], "serve") == 0)
		serve(base);
	else
		call(base, atoi(argv[2]));
	return 0;
}
