/* A TCP server of long downloads, with a rate limit for each client and one for all together.
 *
 * Each connection has its own limit, and all are members of one group. The other clients get those of the group's
 * bytes that a slow client leaves. On Ctrl-C the server says how much it has sent. */

#include <event2/buffer.h>

#include "sample.h"

#define SIZE (1 << 20) /* bytes of a download */
#define LINE "All work and no play makes Jack a dull boy.\n"
#define PIECE (400 * strlen(LINE))
#define TICKS 10 /* a second: the more there are, the more evenly the bytes flow */

struct server {
	struct event_base *base;
	struct connections clients;
	double rate; /* of each client */
	struct bufferevent_rate_limit_group *group;
	char *piece;
};

/* What one client gets. */
struct download {
	struct connection connection;
	struct server *server;
	struct ev_token_bucket_cfg *limit;
	size_t left;
};

static void download_free(struct download *download)
{
	struct ev_token_bucket_cfg *limit = download->limit;

	connection_free(&download->connection);
	ev_token_bucket_cfg_free(limit); /* which the bufferevent has used */
}

/* Allow `rate` bytes per second to be written, and read what little clients have to say. */
static struct ev_token_bucket_cfg *limit(double rate)
{
	struct timeval tick = {0, 1000000 / TICKS};
	size_t bytes = rate >= TICKS ? (size_t)rate / TICKS : 1;

	return need(
	    ev_token_bucket_cfg_new(EV_RATE_LIMIT_MAX, EV_RATE_LIMIT_MAX, bytes, bytes, &tick),
	    "ev_token_bucket_cfg_new");
}

static void on_read(struct bufferevent *bev, void *download)
{
	(void)download;
	evbuffer_drain(bufferevent_get_input(bev), evbuffer_get_length(bufferevent_get_input(bev)));
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct download *download = arg;
	size_t size = download->left < PIECE ? download->left : PIECE;

	if (size > 0) {
		bufferevent_write(bev, download->server->piece, size);
		download->left -= size;
		bufferevent_setwatermark(bev, EV_WRITE, download->left > 0 ? PIECE : 0, 0);
	} else {
		download_free(download);
	}
}

static void on_event(struct bufferevent *bev, short what, void *download)
{
	(void)bev;
	if (what & BEV_EVENT_ERROR)
		download_free(download);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct server *server = arg;
	struct download *download =
	    connection_new(&server->clients, sizeof *download, server->base, fd, 0);
	struct bufferevent *bev;

	(void)listener, (void)address, (void)length;
	if (download == NULL)
		return;
	download->server = server;
	download->left = SIZE;
	bev = download->connection.bev;
	bufferevent_setcb(bev, on_read, on_write, on_event, download);
	bufferevent_setwatermark(bev, EV_WRITE, PIECE, 0);
	bufferevent_enable(bev, EV_READ); /* or nobody notices that the client has gone */
	download->limit = limit(server->rate);
	bufferevent_set_rate_limit(bev, download->limit);
	bufferevent_add_to_rate_limit_group(bev, server->group);
	on_write(bev, download);
}

int main(int argc, char **argv)
{
	struct server server = {.clients = LIST_HEAD_INITIALIZER(server.clients)};
	struct ev_token_bucket_cfg *all;
	struct evconnlistener *listener;
	struct event *interrupt;
	ev_uint64_t read, written;
	size_t i;

	start(argc, argv, 0, 4, "[host [port [bytes per second for each client [for all]]]]");
	server.piece = need(malloc(PIECE), "malloc");
	for (i = 0; i < PIECE; ++i)
		server.piece[i] = LINE[i % strlen(LINE)];
	server.base = need(event_base_new(), "event_base_new");
	all = limit(atof(argument(argv, 4, "500000")));
	server.group = need(
	    bufferevent_rate_limit_group_new(server.base, all), "bufferevent_rate_limit_group_new");
	ev_token_bucket_cfg_free(all); /* the group has a copy */
	server.rate = atof(argument(argv, 3, "200000"));
	listener = listen_on(server.base, argument(argv, 1, "127.0.0.1"), argument(argv, 2, "8888"),
	    on_accept, &server);
	interrupt = stop_on_interrupt(server.base);
	print_serving(evconnlistener_get_fd(listener));
	event_base_dispatch(server.base);
	bufferevent_rate_limit_group_get_totals(server.group, &read, &written);
	printf("sent %llu bytes\n", (unsigned long long)written);
	event_free(interrupt);
	evconnlistener_free(listener);
	while (!LIST_EMPTY(&server.clients))
		download_free((struct download *)LIST_FIRST(&server.clients));
	bufferevent_rate_limit_group_free(server.group);
	event_base_free(server.base);
	free(server.piece);
	return 0;
}
