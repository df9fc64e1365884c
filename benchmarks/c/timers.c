/* One-shot timers, scheduled and fired: `timers once` by event_base_once, `timers timer` by evtimer_new. */
#include <string.h>

#include "contender.h"

static long fired;

static void on_once(evutil_socket_t fd, short what, void *arg)
{
	fired++;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	fired++;
	event_free(arg);
}

static void schedule(struct event_base *base, int once, const struct timeval *timeout)
{
	if (once) {
		event_base_once(base, -1, EV_TIMEOUT, on_once, NULL, timeout);
	} else {
		struct event *event = evtimer_new(base, on_timer, event_self_cbarg());
		event_add(event, timeout);
	}
}

int main(int argc, char **argv)
{
	int once = argc > 1 && strcmp(argv[1], "once") == 0;
	struct event_base *base = new_base();
	long count;

	while (next_count(&count)) {
		long long start = processor_time();
		fired = 0;
		for (long i = 0; i < count; i++) {
			/* 1 to 100 ms, in an order that is the same for every contender. */
			struct timeval timeout = {0, (i * 37 % 100 + 1) * 1000};
			schedule(base, once, &timeout);
		}
		event_base_dispatch(base);
		answer(processor_time() - start, fired);
	}
	event_base_free(base);
	return 0;
}
