/* An upper-casing TCP server of bufferevents: libevent reads and writes, callbacks see only bytes.
 *
 * A client is answered when it has sent ten bytes, the low watermark, or has closed its half. The callbacks are
 * deferred: the loop calls them by themselves, not while it reads or writes. */

#include <unistd.h>

#include <event2/buffer.h>

#include "sample.h"

/* A client that leaves more bytes of its answers waiting is not read from meanwhile. */
#define MOST_UNSENT 65536

struct server {
	struct event_base *base;
	struct event *accepting;
	struct connections clients;
};

static void answer(struct bufferevent *bev)
{
	char data[65536];
	size_t size;

	while ((size = bufferevent_read(bev, data, sizeof data)) > 0) {
		capitalize(data, size);
		bufferevent_write(bev, data, size);
	}
}

static void on_read(struct bufferevent *bev, void *client)
{
	(void)client;
	answer(bev);
	if (evbuffer_get_length(bufferevent_get_output(bev)) > MOST_UNSENT)
		bufferevent_disable(bev, EV_READ);
}

static void on_write(struct bufferevent *bev, void *client)
{
	(void)client;
	bufferevent_enable(bev, EV_READ);
}

static void on_all_sent(struct bufferevent *bev, void *client)
{
	(void)bev;
	connection_free(client);
}

static void on_event(struct bufferevent *bev, short what, void *client)
{
	if (what & BEV_EVENT_EOF) {
		answer(bev); /* what has not reached the watermark */
		if (evbuffer_get_length(bufferevent_get_output(bev)) > 0) {
			bufferevent_setcb(bev, on_read, on_all_sent, on_event, client);
			return;
		}
	}
	connection_free(client);
}

static void on_rested_accept(evutil_socket_t fd, short what, void *accepting)
{
	(void)fd, (void)what;
	event_add(accepting, NULL);
}

static void on_accept(evutil_socket_t listening, short what, void *arg)
{
	struct server *server = arg;
	struct timeval second = {1, 0};
	evutil_socket_t fd = accepted(listening);
	struct connection *client;

	(void)what;
	if (fd < 0) {
		if (errno == EAGAIN || errno == ECONNABORTED) /* the client is gone already */
			return;
		printf("can't accept, trying again in a second: %s\n", strerror(errno));
		event_del(server->accepting);
		event_base_once(
		    server->base, -1, EV_TIMEOUT, on_rested_accept, server->accepting, &second);
		return;
	}
	client = connection_new(
	    &server->clients, sizeof *client, server->base, fd, BEV_OPT_DEFER_CALLBACKS);
	if (client == NULL)
		return;
	bufferevent_setcb(client->bev, on_read, on_write, on_event, client);
	bufferevent_setwatermark(client->bev, EV_READ, 10, 0);
	bufferevent_enable(client->bev, EV_READ);
}

int main(int argc, char **argv)
{
	struct server server = {.clients = LIST_HEAD_INITIALIZER(server.clients)};
	evutil_socket_t listening;
	struct event *interrupt;

	start(argc, argv, 0, 2, "[host [port]]");
	listening = listening_socket(argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"));
	server.base = need(event_base_new(), "event_base_new");
	server.accepting =
	    new_event(server.base, listening, EV_READ | EV_PERSIST, on_accept, &server);
	event_add(server.accepting, NULL);
	interrupt = stop_on_interrupt(server.base);
	print_serving(listening);
	event_base_dispatch(server.base);
	event_free(interrupt);
	event_free(server.accepting);
	connections_free(&server.clients);
	event_base_free(server.base);
	close(listening);
	return 0;
}
