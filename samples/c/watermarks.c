/* A TCP server that answers each record of 16 bytes with 4 KiB, and never keeps much in memory.
 *
 * Watermarks say when to call back. For the input: not before there is a whole record (low), and no more than a few
 * records are read (high). For the output: as soon as little of it is unsent (low), so that the socket has something
 * to send while the next answers are made.
 *
 * The server itself does the back-pressure: it doesn't read from a client that doesn't take its answers. What the
 * client sends meanwhile fills the kernel's buffers; then the client has to wait. */

#include <event2/buffer.h>

#include "sample.h"

#define RECORD 16
#define ANSWER 256 /* times the record */
#define MOST_INPUT (8 * RECORD)
/* Bytes of unsent output: when to read on, and when to stop. */
#define ENOUGH (1 << 16)
#define TOO_MUCH (1 << 18)

struct server {
	struct event_base *base;
	struct connections clients;
};

static void print_unsent(struct bufferevent *bev, const char *what)
{
	printf("%d: %zu bytes are unsent, reading %s\n", (int)bufferevent_getfd(bev),
	    evbuffer_get_length(bufferevent_get_output(bev)), what);
}

static void on_read(struct bufferevent *bev, void *client)
{
	char answer[RECORD * ANSWER];
	int i;

	(void)client;
	/* All whole records go: with the input left at its high watermark libevent would call again and again. */
	while (evbuffer_get_length(bufferevent_get_input(bev)) >= RECORD) {
		bufferevent_read(bev, answer, RECORD);
		for (i = 1; i < ANSWER; ++i)
			memcpy(answer + i * RECORD, answer, RECORD);
		bufferevent_write(bev, answer, sizeof answer);
	}
	if (evbuffer_get_length(bufferevent_get_output(bev)) >= TOO_MUCH) {
		bufferevent_disable(bev, EV_READ);
		print_unsent(bev, "stops");
	}
}

static void on_write(struct bufferevent *bev, void *client)
{
	(void)client;
	if (!(bufferevent_get_enabled(bev) & EV_READ)) {
		print_unsent(bev, "goes on");
		bufferevent_enable(bev, EV_READ);
	}
}

static void on_all_sent(struct bufferevent *bev, void *client)
{
	(void)bev;
	connection_free(client);
}

static void on_event(struct bufferevent *bev, short what, void *client)
{
	if (what & BEV_EVENT_EOF && evbuffer_get_length(bufferevent_get_output(bev)) > 0) {
		/* the last answers go out first */
		bufferevent_setwatermark(bev, EV_WRITE, 0, 0);
		bufferevent_setcb(bev, on_read, on_all_sent, on_event, client);
	} else {
		connection_free(client);
	}
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct server *server = arg;
	struct connection *client =
	    connection_new(&server->clients, sizeof *client, server->base, fd, 0);

	(void)listener, (void)address, (void)length;
	if (client == NULL)
		return;
	bufferevent_setcb(client->bev, on_read, on_write, on_event, client);
	bufferevent_setwatermark(client->bev, EV_READ, RECORD, MOST_INPUT);
	bufferevent_setwatermark(client->bev, EV_WRITE, ENOUGH, 0);
	bufferevent_enable(client->bev, EV_READ);
}

int main(int argc, char **argv)
{
	struct server server = {.clients = LIST_HEAD_INITIALIZER(server.clients)};
	struct evconnlistener *listener;
	struct event *interrupt;

	start(argc, argv, 0, 2, "[host [port]]");
	server.base = need(event_base_new(), "event_base_new");
	listener = listen_on(server.base, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"),
	    on_accept, &server);
	interrupt = stop_on_interrupt(server.base);
	print_serving(evconnlistener_get_fd(listener));
	event_base_dispatch(server.base);
	event_free(interrupt);
	evconnlistener_free(listener);
	connections_free(&server.clients);
	event_base_free(server.base);
	printf("stopped\n");
	return 0;
}
