/* The memory of pending events: `idle_events timer` or `idle_events read`. */
#include <string.h>
#include <sys/socket.h>

#include "contender.h"

static void callback(evutil_socket_t fd, short what, void *arg)
{
}

static void add(struct event_base *base, evutil_socket_t fd)
{
	static const struct timeval hour = {3600, 0};
	short what = fd < 0 ? EV_TIMEOUT : EV_READ | EV_PERSIST;
	if (event_add(event_new(base, fd, what, callback, NULL), fd < 0 ? &hour : NULL))
		abort();
}

int main(int argc, char **argv)
{
	struct event_base *base = new_base();
	long long before;
	int pair[2] = {-1, -1};
	long count;

	if (argc > 1 && strcmp(argv[1], "read") == 0)
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			abort();
	if (!next_count(&count))
		return 1;
	add(base, pair[0]);
	before = resident_bytes();
	for (long i = 0; i < count; i++)
		add(base, pair[0]);
	answer(resident_bytes() - before, count);
	return 0;
}
