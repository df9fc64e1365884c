/* A TCP server that greets each client with a line, and closes when the line has been sent.
 *
 * On Ctrl-C it goes on for two more seconds: event_base_loopexit() can stop a loop later. */

#include "sample.h"

static const char message[] = "Hello, World!\n";

struct server {
	struct event_base *base;
	struct connections clients;
};

static void on_write(struct bufferevent *bev, void *client)
{
	(void)bev;
	printf("sent the line\n");
	connection_free(client);
}

static void on_event(struct bufferevent *bev, short what, void *client)
{
	(void)bev, (void)what;
	printf("lost a client: %s\n", strerror(errno));
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
	bufferevent_setcb(client->bev, NULL, on_write, on_event, client);
	bufferevent_write(client->bev, message, strlen(message));
}

static void on_interrupt(evutil_socket_t signum, short what, void *base)
{
	struct timeval later = {2, 0};

	(void)signum, (void)what;
	printf("interrupted: exiting in two seconds\n");
	event_base_loopexit(base, &later);
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
	interrupt = on_signal(server.base, SIGINT, on_interrupt, server.base);
	print_serving(evconnlistener_get_fd(listener));
	event_base_dispatch(server.base);
	event_free(interrupt);
	evconnlistener_free(listener);
	connections_free(&server.clients);
	event_base_free(server.base);
	printf("done\n");
	return 0;
}
