/* Packets between delimiters: each begins with "1" and ends with "2", and the rest is noise.
 *
 * Each packet is answered in capitals, with its delimiters: "1abc2" with "1ABC2". Bytes outside of packets are
 * dropped. A client that sends "1" and then no "2" is disconnected in the end. */

#include <event2/buffer.h>

#include "sample.h"

/* How long a packet may be, and how many bytes of answers a client may leave waiting. */
#define MOST 65536

struct server {
	struct event_base *base;
	struct connections clients;
};

/* Take the next packet from `data`, with what is before it. Return NULL if it is not complete; else the packet, which
 * free() frees. */
static char *next_packet(struct evbuffer *data, size_t *size)
{
	ev_ssize_t from = evbuffer_search(data, "1", 1, NULL).pos, to;
	char *packet;

	evbuffer_drain(data, from < 0 ? evbuffer_get_length(data) : (size_t)from);
	to = evbuffer_search(data, "2", 1, NULL).pos;
	if (to <= 0)
		return NULL;
	*size = to + 1;
	packet = need(malloc(*size), "malloc");
	evbuffer_remove(data, packet, *size);
	return packet;
}

static void on_read(struct bufferevent *bev, void *client)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	size_t size;
	char *packet;

	while ((packet = next_packet(input, &size)) != NULL) {
		capitalize(packet, size);
		bufferevent_write(bev, packet, size);
		free(packet);
	}
	if (evbuffer_get_length(input) > MOST) {
		printf("a packet is too long: its client is disconnected\n");
		connection_free(client);
	} else if (evbuffer_get_length(bufferevent_get_output(bev)) > MOST) {
		bufferevent_disable(bev, EV_READ);
	}
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
	if (what & BEV_EVENT_EOF && evbuffer_get_length(bufferevent_get_output(bev)) > 0)
		bufferevent_setcb(bev, on_read, on_all_sent, on_event, client);
	else
		connection_free(client);
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
	return 0;
}
