/* The memory of accepted bufferevents that have nothing to do. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "server.h"

static long left;

static void on_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	evbuffer_drain(input, evbuffer_get_length(input));
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	bufferevent_free(bev);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *base)
{
	struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);

	bufferevent_setcb(bev, on_read, NULL, on_event, NULL);
	bufferevent_enable(bev, EV_READ);
	if (--left == 0)
		event_base_loopexit(base, NULL);
}

int main(void)
{
	struct event_base *base = new_base();
	long count;

	listen_on_loopback(base, on_accept);
	while (next_count(&count)) {
		long long before = resident_bytes();
		left = count;
		event_base_dispatch(base);
		answer(resident_bytes() - before, count);
	}
	return 0;
}
