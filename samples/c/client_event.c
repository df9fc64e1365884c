/* A client of bare events: one loop waits for stdin and for the socket, as nc does.
 *
 * The next piece of stdin is read when the last one has been sent. At the end of stdin the client closes its half of
 * the connection, and prints what the server still sends. The backend must be one that can wait for any descriptor,
 * because stdin may be a file, which epoll refuses. */

#include <unistd.h>

#include "sample.h"

struct client {
	struct event_base *base;
	struct event *stdin_readable, *writable;
	evutil_socket_t fd;
	int error; /* that has ended it, or 0 */
	char data[65536];
	size_t sent, size;
};

static void end(struct client *client, int error)
{
	client->error = error;
	event_base_loopexit(client->base, NULL);
}

static void on_stdin(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	ssize_t size = read(fd, client->data, sizeof client->data);

	(void)what;
	if (size < 0) {
		end(client, errno);
	} else if (size > 0) {
		client->sent = 0;
		client->size = size;
		event_add(client->writable, NULL);
	} else {
		shutdown(client->fd, SHUT_WR);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	ssize_t size = send(fd, client->data + client->sent, client->size - client->sent, 0);

	(void)what;
	if (size < 0) {
		end(client, errno);
		return;
	}
	client->sent += size;
	event_add(client->sent < client->size ? client->writable : client->stdin_readable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *client)
{
	char data[65536];
	ssize_t size = recv(fd, data, sizeof data, 0);

	(void)what;
	if (size > 0) {
		fwrite(data, 1, size, stdout);
		fflush(stdout);
	} else {
		end(client, size < 0 ? errno : 0);
	}
}

int main(int argc, char **argv)
{
	const char *host = argument(argv, 1, "127.0.0.1"), *port = argument(argv, 2, "8888");
	struct client client = {.error = 0};
	struct event_config *config;
	struct event *readable, *interrupt;

	start(argc, argv, 0, 2, "[host [port]]");
	config = need(event_config_new(), "event_config_new");
	event_config_require_features(config, EV_FEATURE_FDS);
	client.fd = connected_socket(host, port);
	client.base = need(event_base_new_with_config(config), "event_base_new_with_config");
	evutil_make_socket_nonblocking(client.fd);
	client.stdin_readable = new_event(client.base, STDIN_FILENO, EV_READ, on_stdin, &client);
	event_add(client.stdin_readable, NULL);
	client.writable = new_event(client.base, client.fd, EV_WRITE, on_writable, &client);
	readable = new_event(client.base, client.fd, EV_READ | EV_PERSIST, on_readable, &client);
	event_add(readable, NULL);
	interrupt = stop_on_interrupt(client.base);
	event_base_dispatch(client.base);
	event_free(interrupt);
	event_free(readable);
	event_free(client.writable);
	event_free(client.stdin_readable);
	event_base_free(client.base);
	event_config_free(config);
	close(client.fd);
	if (client.error != 0)
		die("%s:%s: %s", host, port, strerror(client.error));
	return 0;
}
