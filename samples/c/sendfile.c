/* A TCP server that sends a file to each client by sendfile(), without loading it into memory.
 *
 * All clients share one segment of the file, and so one descriptor. A client that takes nothing for ten seconds is
 * disconnected. */

#include <fcntl.h>

#include <event2/buffer.h>

#include "sample.h"

struct server {
	struct event_base *base;
	struct evbuffer_file_segment *segment;
	struct connections clients;
};

struct client {
	struct connection connection;
	char name[80];
};

static void on_write(struct bufferevent *bev, void *arg)
{
	struct client *client = arg;

	(void)bev;
	printf("%s: has the file\n", client->name);
	connection_free(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	int error = errno;
	struct client *client = arg;

	if (what & BEV_EVENT_EOF)
		printf("%s: %zu bytes are missing, for the file is shorter now\n", client->name,
		    evbuffer_get_length(bufferevent_get_output(bev)));
	else if (what & BEV_EVENT_TIMEOUT)
		printf("%s: takes nothing\n", client->name);
	else
		printf("%s: %s\n", client->name, strerror(error));
	connection_free(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct timeval patience = {10, 0};
	struct server *server = arg;
	struct client *client =
	    connection_new(&server->clients, sizeof *client, server->base, fd, 0);
	struct bufferevent *bev;

	(void)listener;
	if (client == NULL)
		return;
	address_text(address, length, client->name);
	bev = client->connection.bev;
	bufferevent_setcb(bev, NULL, on_write, on_event, client);
	bufferevent_set_timeouts(bev, NULL, &patience);
	evbuffer_add_file_segment(bufferevent_get_output(bev), server->segment, 0, -1);
	if (evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		on_write(bev, client); /* then there is nothing to wait for */
}

int main(int argc, char **argv)
{
	struct server server = {.clients = LIST_HEAD_INITIALIZER(server.clients)};
	const char *path = argument(argv, 3, __FILE__);
	struct evconnlistener *listener;
	struct event *interrupt;
	int file;

	start(argc, argv, 0, 3, "[host [port [file]]]");
	if ((file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		die("%s: %s", path, strerror(errno));
	server.segment = need(evbuffer_file_segment_new(file, 0, -1, EVBUF_FS_CLOSE_ON_FREE), path);
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
	evbuffer_file_segment_free(server.segment);
	return 0;
}
