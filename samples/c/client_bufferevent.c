/* A client of a bufferevent: it connects through libevent, then joins stdin and the connection.
 *
 * It ends when the server closes, when nothing has come for ten seconds, or on an error, which it prints. */

#include <unistd.h>

#include "sample.h"

struct client {
	struct event_base *base;
	struct event *stdin_readable;
	struct bufferevent *bev;
	double timeout;
	char failure[80]; /* what has ended it, or nothing */
};

static void on_stdin(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	char data[65536];
	ssize_t size = read(fd, data, sizeof data);

	(void)what;
	if (size > 0)
		bufferevent_write(client->bev, data, size);
	else
		shutdown(bufferevent_getfd(client->bev), SHUT_WR);
}

static void on_read(struct bufferevent *bev, void *client)
{
	char data[65536];
	size_t size;

	(void)client;
	while ((size = bufferevent_read(bev, data, sizeof data)) > 0)
		fwrite(data, 1, size, stdout);
	fflush(stdout);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct client *client = arg;

	(void)bev;
	event_add(client->stdin_readable, NULL); /* all is sent: the next piece */
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct client *client = arg;

	if (what & BEV_EVENT_CONNECTED) {
		bufferevent_enable(bev, EV_READ);
		event_add(client->stdin_readable, NULL);
		return;
	}
	if (what & BEV_EVENT_TIMEOUT)
		snprintf(client->failure, sizeof client->failure, "nothing came for %g s",
		    client->timeout);
	else if (!(what & BEV_EVENT_EOF))
		snprintf(client->failure, sizeof client->failure, "%s", strerror(errno));
	event_base_loopexit(client->base, NULL);
}

int main(int argc, char **argv)
{
	const char *host = argument(argv, 1, "127.0.0.1"), *port = argument(argv, 2, "8888");
	struct client client = {.failure = ""};
	struct evutil_addrinfo *address;
	struct event_config *config;
	struct event *interrupt;
	struct timeval timeout;

	start(argc, argv, 0, 3, "[host [port [read timeout in seconds]]]");
	client.timeout = atof(argument(argv, 3, "10"));
	timeout = timeval_of(client.timeout);
	address = find_address(host, port);
	config = need(event_config_new(), "event_config_new");
	event_config_require_features(config, EV_FEATURE_FDS); /* stdin may be a file */
	client.base = need(event_base_new_with_config(config), "event_base_new_with_config");
	event_config_free(config);
	client.stdin_readable = new_event(client.base, STDIN_FILENO, EV_READ, on_stdin, &client);
	client.bev = need(bufferevent_socket_new(client.base, -1, BEV_OPT_CLOSE_ON_FREE),
	    "bufferevent_socket_new");
	bufferevent_setcb(client.bev, on_read, on_write, on_event, &client);
	bufferevent_set_timeouts(client.bev, &timeout, NULL);
	if (bufferevent_socket_connect(client.bev, address->ai_addr, address->ai_addrlen) < 0)
		die("%s:%s: %s", host, port, strerror(errno));
	interrupt = stop_on_interrupt(client.base);
	event_base_dispatch(client.base);
	event_free(client.stdin_readable);
	event_free(interrupt);
	bufferevent_free(client.bev);
	event_base_free(client.base);
	evutil_freeaddrinfo(address);
	if (client.failure[0] != '\0')
		die("%s:%s: %s", host, port, client.failure);
	return 0;
}
