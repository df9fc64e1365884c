/* Packets with their length in front: two bytes in host byte order, then that many of payload.
 *
 * Each packet is answered with its payload in capitals. While a packet is incomplete, the low watermark is raised to
 * its size: so the callback is called once for it, even if its bytes arrive one by one. */

#include <stdint.h>

#include <event2/buffer.h>

#include "sample.h"

/* A client that leaves more bytes of its answers waiting is not read from meanwhile. */
#define MOST_UNSENT 65536

struct server {
	struct event_base *base;
	struct connections clients;
};

/* Return the size of the packet that `data` begins with, as far as it is known. */
static size_t packet_size(struct evbuffer *data)
{
	uint16_t length;

	if (evbuffer_get_length(data) < sizeof length)
		return sizeof length;
	evbuffer_copyout(data, &length, sizeof length);
	return sizeof length + length;
}

static void on_read(struct bufferevent *bev, void *client)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	char packet[sizeof(uint16_t) + UINT16_MAX], *payload = packet + sizeof(uint16_t);
	size_t size;

	(void)client;
	while (evbuffer_get_length(input) >= (size = packet_size(input))) {
		evbuffer_remove(input, packet, size);
		size -= sizeof(uint16_t);
		capitalize(payload, size);
		bufferevent_write(bev, payload, size);
	}
	bufferevent_setwatermark(bev, EV_READ, size, 0);
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
	bufferevent_setwatermark(client->bev, EV_READ, sizeof(uint16_t), 0);
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
