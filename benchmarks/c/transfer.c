/* Bytes without end over one bufferevent: `transfer sink|relay|source`. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "server.h"

static char data[65536];
static bufferevent_data_cb on_read, on_write;

static void take(struct bufferevent *bev, void *arg)
{
	while (bufferevent_read(bev, data, sizeof data) > 0)
		;
}

static void pass_on(struct bufferevent *bev, void *arg)
{
	evbuffer_add_buffer(bufferevent_get_output(bev), bufferevent_get_input(bev));
}

static void give(struct bufferevent *bev, void *arg)
{
	bufferevent_write(bev, data, sizeof data);
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
	bufferevent_setcb(bev, on_read, on_write, on_event, NULL);
	bufferevent_enable(bev, EV_READ);
	if (on_write)
		on_write(bev, NULL);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct event_base *base = new_base();

	on_read = strcmp(what, "sink") == 0 ? take : strcmp(what, "relay") == 0 ? pass_on : NULL;
	on_write = strcmp(what, "source") == 0 ? give : NULL;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)i;
	listen_on_loopback(base, on_accept);
	return event_base_dispatch(base);
}
