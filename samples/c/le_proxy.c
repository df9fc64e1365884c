/* A TCP relay: it passes a client's bytes on to a server, and the server's bytes to the client.
 *
 * If one side sends faster than the other takes, it is not read from until half of the waiting bytes are sent. When
 * one side has closed, the other one is closed as soon as it has got everything; an error ends both. With --tls the
 * relay speaks TLS to the server, whose certificate must be for its host. */

#include <event2/buffer.h>

#include "tls.h"

#define OPTIONS (BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS)

/* How many bytes may wait for either. */
#define MOST (512 * 1024)

struct side {
	struct relay *relay;
	struct side *other;
	struct bufferevent *bev; /* NULL when it is closed */
	int said_all;
};

/* A client's connection, and the one to the server that goes with it. */
struct relay {
	LIST_ENTRY(relay) others;
	const struct proxy *proxy;
	struct side client, server;
	int connected;
};

struct proxy {
	struct event_base *base;
	SSL_CTX *context; /* or NULL */
	const char *to_host;
	int to_port;
	LIST_HEAD(, relay) relays;
};

static void on_read(struct bufferevent *bev, void *side);
static void on_event(struct bufferevent *bev, short what, void *side);

/* Close a side; the relay ends with the second one. */
static void side_close(struct side *side)
{
	bufferevent_free(side->bev);
	side->bev = NULL;
	if (side->other->bev == NULL) {
		LIST_REMOVE(side->relay, others);
		free(side->relay);
	}
}

/* Tell a side that the other has said all, once all that is through. */
static void finish(struct side *side)
{
	struct relay *relay = side->relay;
	struct side *other = side->other;

	if (evbuffer_get_length(bufferevent_get_output(side->bev)) > 0 ||
	    (side == &relay->server && !relay->connected))
		return;
	if (other->bev == NULL) {
		side_close(side);
	} else if (side->said_all && evbuffer_get_length(bufferevent_get_output(other->bev)) == 0) {
		side_close(side);
		side_close(other);
	} else if (side == &relay->server && relay->proxy->context != NULL) {
		SSL_shutdown(bufferevent_openssl_get_ssl(side->bev));
	} else {
		shutdown(bufferevent_getfd(side->bev), SHUT_WR);
	}
}

static void on_all_taken(struct bufferevent *bev, void *side)
{
	(void)bev;
	finish(side);
}

static void on_half_taken(struct bufferevent *bev, void *arg)
{
	struct side *side = arg;

	bufferevent_setcb(bev, on_read, NULL, on_event, side);
	bufferevent_setwatermark(bev, EV_WRITE, 0, 0);
	bufferevent_enable(side->other->bev, EV_READ);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct side *side = arg, *other = side->other;
	struct evbuffer *input = bufferevent_get_input(bev);

	if (other->bev == NULL) {
		/* by its error; this one is still writing what it had said before */
		evbuffer_drain(input, evbuffer_get_length(input));
		return;
	}
	evbuffer_add_buffer(bufferevent_get_output(other->bev), input);
	if (evbuffer_get_length(bufferevent_get_output(other->bev)) >= MOST) {
		bufferevent_disable(bev, EV_READ);
		bufferevent_setwatermark(other->bev, EV_WRITE, MOST / 2, 0);
		bufferevent_setcb(other->bev, on_read, on_half_taken, on_event, other);
	}
}

static void print_error(struct side *side)
{
	struct relay *relay = side->relay;
	int error = errno, lookup = bufferevent_socket_get_dns_error(side->bev);
	char text[200];

	errno = error;
	if (side == &relay->client)
		printf("client: %s\n", strerror(error));
	else if (lookup != 0)
		printf("server: %s: %s\n", relay->proxy->to_host, evutil_gai_strerror(lookup));
	else
		printf("server: %s\n",
		    relay->proxy->context != NULL ? tls_error(side->bev, text) : strerror(error));
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct side *side = arg, *other = side->other;

	if (what & BEV_EVENT_CONNECTED) {
		side->relay->connected = 1;
		if (other->said_all)
			finish(side);
		return;
	}
	if (what & BEV_EVENT_ERROR) {
		int was_last = other->bev == NULL;

		print_error(side);
		side_close(side);
		if (was_last)
			return;
		bufferevent_disable(other->bev, EV_READ);
	} else {
		on_read(bev, side);
	}
	side->said_all = 1;
	bufferevent_setwatermark(other->bev, EV_WRITE, 0, 0);
	bufferevent_setcb(other->bev, on_read, on_all_taken, on_event, other);
	finish(other);
}

static void side_begin(struct side *side, struct side *other, struct relay *relay)
{
	side->relay = relay;
	side->other = other;
	bufferevent_setcb(side->bev, on_read, NULL, on_event, side);
	bufferevent_enable(side->bev, EV_READ | EV_WRITE);
}

static struct bufferevent *server_bev(struct proxy *proxy)
{
	if (proxy->context == NULL)
		return bufferevent_socket_new(proxy->base, -1, OPTIONS);
	return bufferevent_openssl_socket_new(proxy->base, -1,
	    need(client_session(proxy->context, proxy->to_host), "SSL_new"),
	    BUFFEREVENT_SSL_CONNECTING, OPTIONS);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct proxy *proxy = arg;
	struct relay *relay = need(calloc(1, sizeof *relay), "calloc");

	(void)listener, (void)address, (void)length;
	relay->client.bev = need(bufferevent_socket_new(proxy->base, fd, OPTIONS), "a client");
	relay->server.bev = need(server_bev(proxy), "a server");
	relay->proxy = proxy;
	LIST_INSERT_HEAD(&proxy->relays, relay, others);
	side_begin(&relay->client, &relay->server, relay);
	side_begin(&relay->server, &relay->client, relay);
	bufferevent_socket_connect_hostname(
	    relay->server.bev, NULL, AF_UNSPEC, proxy->to_host, proxy->to_port);
}

/* Take --tls from the arguments; return whether it was there. */
static int take_tls(int *argc, char **argv)
{
	int i, k = 1;

	for (i = 1; i < *argc; ++i)
		if (strcmp(argv[i], "--tls") != 0)
			argv[k++] = argv[i];
	argv[k] = NULL;
	i = *argc > k;
	*argc = k;
	return i;
}

int main(int argc, char **argv)
{
	struct proxy proxy = {.relays = LIST_HEAD_INITIALIZER(proxy.relays)};
	int tls = take_tls(&argc, argv);
	struct evconnlistener *listener;
	struct event *interrupt;
	char address[80];

	start(argc, argv, 0, 4, "[--tls] [host [port [server's host [server's port]]]]");
	proxy.to_host = argument(argv, 3, "127.0.0.1");
	proxy.to_port = atoi(argument(argv, 4, "80"));
	proxy.context = tls ? client_context(NULL) : NULL;
	proxy.base = need(event_base_new(), "event_base_new");
	listener = listen_on(proxy.base, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"),
	    on_accept, &proxy);
	interrupt = stop_on_interrupt(proxy.base);
	printf("serving %s by %s:%d\n", own_text(evconnlistener_get_fd(listener), address),
	    proxy.to_host, proxy.to_port);
	event_base_dispatch(proxy.base);
	event_free(interrupt);
	evconnlistener_free(listener);
	while (!LIST_EMPTY(&proxy.relays)) {
		struct relay *relay = LIST_FIRST(&proxy.relays);
		struct side *last = relay->client.bev != NULL ? &relay->client : &relay->server;

		if (last->other->bev != NULL)
			side_close(last->other);
		side_close(last);
	}
	event_base_free(proxy.base);
	SSL_CTX_free(proxy.context);
	return 0;
}
