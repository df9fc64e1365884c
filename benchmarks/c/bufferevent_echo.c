/* An echo server of bufferevents: `bufferevent_echo echo|four_writes`. */
#include <event2/bufferevent.h>

#include "server.h"

static char data[65536];
static size_t piece = sizeof data;

static void on_read(struct bufferevent *bev, void *arg)
{
	size_t n;
	while ((n = bufferevent_read(bev, data, sizeof data)) > 0)
		for (size_t start = 0; start < n; start += piece)
			bufferevent_write(bev, data + start, n - start < piece ? n - start : piece);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	bufferevent_free(bev);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *base)
{
	struct bufferevent *bev;

	send_at_once(fd);
	bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(bev, on_read, NULL, on_event, NULL);
	bufferevent_enable(bev, EV_READ);
}

int main(int argc, char **argv)
{
	struct event_base *base = new_base();
	if (argc > 1 && strcmp(argv[1], "four_writes") == 0)
		piece = 256;
	listen_on_loopback(base, on_accept);
	return event_base_dispatch(base);
}
