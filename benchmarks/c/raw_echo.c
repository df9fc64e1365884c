/* An echo server of plain events and the sockets' own recv and send. */
#include <errno.h>

#include "server.h"

struct connection {
	evutil_socket_t fd;
	struct event *readable, *writable;
	char *unsent;
	size_t n_unsent;
};

static char data[65536];

static void close_connection(struct connection *connection)
{
	event_free(connection->readable);
	event_free(connection->writable);
	evutil_closesocket(connection->fd);
	free(connection->unsent);
	free(connection);
}

/* How much was sent, 0 when the socket is full, -1 when the peer is gone. */
static ssize_t send_some(evutil_socket_t fd, const char *bytes, size_t n)
{
	ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
	return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *connection = arg;
	ssize_t n = recv(fd, data, sizeof data, 0);
	ssize_t sent = n > 0 ? send_some(fd, data, n) : -1;

	if (sent < 0) {
		close_connection(connection);
	} else if (sent < n) {
		connection->n_unsent = n - sent;
		connection->unsent = malloc(n - sent);
		memcpy(connection->unsent, data + sent, n - sent);
		event_del(connection->readable);
		event_add(connection->writable, NULL);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *connection = arg;
	ssize_t sent = send_some(fd, connection->unsent, connection->n_unsent);

	if (sent < 0) {
		close_connection(connection);
		return;
	}
	connection->n_unsent -= sent;
	if (connection->n_unsent) {
		memmove(connection->unsent, connection->unsent + sent, connection->n_unsent);
		return;
	}
	free(connection->unsent);
	connection->unsent = NULL;
	event_del(connection->writable);
	event_add(connection->readable, NULL);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *base)
{
	struct connection *connection = calloc(1, sizeof *connection);

	send_at_once(fd);
	connection->fd = fd;
	connection->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, connection);
	connection->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, connection);
	event_add(connection->readable, NULL);
}

int main(void)
{
	struct event_base *base = new_base();
	listen_on_loopback(base, on_accept);
	return event_base_dispatch(base);
}
