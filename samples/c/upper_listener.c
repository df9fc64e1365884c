/* A complete upper-casing TCP server: a listener accepts, a bufferevent serves each client.
 *
 * It reports why each connection ends: the client has closed it, was silent for ten seconds, or there was an error.
 * A client that doesn't take its answers is not read from until it does. */

#include <event2/buffer.h>

#include "sample.h"

/* How many bytes are read at once, and how many of answers may wait for a client. */
#define MOST 65536

struct server {
	struct event_base *base;
	struct connections clients;
	double timeout;
};

struct client {
	struct connection connection;
	const struct server *server;
	char name[80];
};

static void on_read(struct bufferevent *bev, void *client)
{
	char data[MOST];
	size_t size = bufferevent_read(bev, data, sizeof data);

	(void)client;
	capitalize(data, size);
	bufferevent_write(bev, data, size);
	if (evbuffer_get_length(bufferevent_get_output(bev)) > MOST)
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

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct client *client = arg;

	if (what & BEV_EVENT_EOF) {
		printf("%s: end of file\n", client->name);
		if (evbuffer_get_length(bufferevent_get_output(bev)) > 0) {
			/* the last answers go out first */
			bufferevent_setcb(bev, on_read, on_all_sent, on_event, client);
			return;
		}
	} else if (what & BEV_EVENT_TIMEOUT) {
		printf("%s: timed out after %g s\n", client->name, client->server->timeout);
	} else {
		printf("%s: %s\n", client->name, strerror(errno));
	}
	connection_free(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct server *server = arg;
	struct timeval timeout = timeval_of(server->timeout);
	struct client *client =
	    connection_new(&server->clients, sizeof *client, server->base, fd, 0);
	struct bufferevent *bev;

	(void)listener;
	if (client == NULL)
		return;
	client->server = server;
	printf("%s: connected\n", address_text(address, length, client->name));
	bev = client->connection.bev;
	bufferevent_setcb(bev, on_read, on_write, on_event, client);
	bufferevent_set_timeouts(bev, &timeout, &timeout);
	bufferevent_setwatermark(bev, EV_READ, 0, MOST);
	bufferevent_enable(bev, EV_READ);
}

int main(int argc, char **argv)
{
	struct server server = {.clients = LIST_HEAD_INITIALIZER(server.clients)};
	struct evconnlistener *listener;
	struct event *interrupt;
	char address[80];

	start(argc, argv, 0, 3, "[host [port [read timeout in seconds]]]");
	server.timeout = atof(argument(argv, 3, "10"));
	server.base = need(event_base_new(), "event_base_new");
	listener = listen_on(server.base, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"),
	    on_accept, &server);
	interrupt = stop_on_interrupt(server.base);
	own_text(evconnlistener_get_fd(listener), address);
	printf("libevent %s with %s, serving %s\n", event_get_version(),
	    event_base_get_method(server.base), address);
	*strrchr(address, ':') = ' ';
	printf("In another terminal: nc %s        Ctrl-C here stops it\n", address);
	event_base_dispatch(server.base);
	event_free(interrupt);
	evconnlistener_free(listener);
	connections_free(&server.clients);
	event_base_free(server.base);
	printf("stopped\n");
	return 0;
}
