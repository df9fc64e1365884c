/* A client that writes "GET" itself, over HTTP/1.0, and prints the server's answer.
 *
 * It connects to a host by its name, and says why if the name can't be looked up. The answer ends with the
 * connection. The lookup is done before the loop begins. */

#include <event2/buffer.h>

#include "sample.h"

/* How long the server may be silent, in seconds. */
#define SILENCE 10

struct client {
	struct event_base *base;
	const char *host, *port;
	int status;
};

static void on_read(struct bufferevent *bev, void *arg)
{
	char data[65536];
	size_t size = bufferevent_read(bev, data, sizeof data);

	(void)arg;
	fwrite(data, 1, size, stdout);
	fflush(stdout);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	int error = errno, unresolved = bufferevent_socket_get_dns_error(bev);
	struct client *client = arg;

	if (what & BEV_EVENT_CONNECTED)
		return;
	if (unresolved != 0)
		fprintf(
		    stderr, "DNS error: '%s': %s\n", client->host, evutil_gai_strerror(unresolved));
	else if (what & BEV_EVENT_ERROR)
		fprintf(stderr, "%s:%s: %s\n", client->host, client->port, strerror(error));
	else if (what & BEV_EVENT_TIMEOUT)
		fprintf(
		    stderr, "%s:%s: nothing came for %d s\n", client->host, client->port, SILENCE);
	client->status = (what & BEV_EVENT_EOF) == 0;
	event_base_loopexit(client->base, NULL);
}

int main(int argc, char **argv)
{
	struct client client = {.status = 0};
	struct timeval silence = {SILENCE, 0};
	const char *path = argument(argv, 3, "/");
	struct bufferevent *bev;
	struct event *interrupt;

	start(argc, argv, 0, 3, "[host [port [path]]]");
	client.host = argument(argv, 1, "127.0.0.1");
	client.port = argument(argv, 2, "8888");
	client.base = need(event_base_new(), "event_base_new");
	bev = need(bufferevent_socket_new(
		       client.base, -1, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS),
	    "bufferevent_socket_new");
	bufferevent_setcb(bev, on_read, NULL, on_event, &client);
	bufferevent_set_timeouts(bev, &silence, &silence);
	bufferevent_enable(bev, EV_READ);
	evbuffer_add_printf(bufferevent_get_output(bev), "GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n",
	    path, client.host, client.port);
	bufferevent_socket_connect_hostname(bev, NULL, AF_UNSPEC, client.host, atoi(client.port));
	interrupt = stop_on_interrupt(client.base);
	event_base_dispatch(client.base);
	event_free(interrupt);
	bufferevent_free(bev);
	event_base_free(client.base);
	return client.status;
}
