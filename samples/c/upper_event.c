/* An upper-casing TCP server of bare events: libevent only reports which descriptors are ready.
 *
 * One event accepts. Each client has an event for reading and one for writing, and only one of them is pending at a
 * time: so a client that doesn't take its answers is not read from. */

#include <unistd.h>

#include "sample.h"

struct client {
	LIST_ENTRY(client) others;
	struct event *readable, *writable;
	evutil_socket_t fd;
	char data[65536];
	size_t sent, size; /* of what is read, from `sent` on it is to be sent */
};

struct server {
	struct event_base *base;
	struct event *accepting;
	LIST_HEAD(, client) clients;
};

static void client_free(struct client *client)
{
	LIST_REMOVE(client, others);
	event_free(client->readable);
	event_free(client->writable);
	close(client->fd);
	free(client);
}

/* Send what the socket takes; then wait until it takes the rest, or for more to read. */
static void send_unsent(struct client *client)
{
	ssize_t size =
	    send(client->fd, client->data + client->sent, client->size - client->sent, 0);

	if (size < 0 && errno != EAGAIN) {
		client_free(client);
		return;
	}
	client->sent += size > 0 ? size : 0;
	event_add(client->sent < client->size ? client->writable : client->readable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	ssize_t size = recv(fd, client->data, sizeof client->data, 0);

	(void)what;
	if (size < 0 && errno == EAGAIN) { /* it was a false alarm */
		event_add(client->readable, NULL);
	} else if (size <= 0) {
		client_free(client);
	} else {
		capitalize(client->data, size);
		client->sent = 0;
		client->size = size;
		send_unsent(client);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *client)
{
	(void)fd, (void)what;
	send_unsent(client);
}

static void client_new(struct server *server, evutil_socket_t fd)
{
	struct client *client = calloc(1, sizeof *client);

	if (client == NULL) {
		printf("no memory for a client\n");
		close(fd);
		return;
	}
	client->fd = fd;
	client->readable = new_event(server->base, fd, EV_READ, on_readable, client);
	event_add(client->readable, NULL);
	client->writable = new_event(server->base, fd, EV_WRITE, on_writable, client);
	LIST_INSERT_HEAD(&server->clients, client, others);
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

	(void)what;
	if (fd >= 0) {
		client_new(server, fd);
	} else if (errno != EAGAIN && errno != ECONNABORTED) { /* such as: too many open files */
		printf("can't accept, trying again in a second: %s\n", strerror(errno));
		event_del(server->accepting);
		event_base_once(
		    server->base, -1, EV_TIMEOUT, on_rested_accept, server->accepting, &second);
	}
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
	while (!LIST_EMPTY(&server.clients))
		client_free(LIST_FIRST(&server.clients));
	event_free(interrupt);
	event_free(server.accepting);
	event_base_free(server.base);
	close(listening);
	return 0;
}
