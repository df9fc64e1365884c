/* A user event that re-activates itself. */
#include "contender.h"

static struct event *event;
static long left;

static void callback(evutil_socket_t fd, short what, void *arg)
{
	if (--left)
		event_active(event, EV_TIMEOUT, 1);
}

int main(void)
{
	struct event_base *base = new_base();
	long count;

	event = event_new(base, -1, 0, callback, NULL);
	while (next_count(&count)) {
		long long start = processor_time();
		left = count;
		event_active(event, EV_TIMEOUT, 1);
		event_base_dispatch(base);
		answer(processor_time() - start, count - left);
	}
	event_free(event);
	event_base_free(base);
	return 0;
}
