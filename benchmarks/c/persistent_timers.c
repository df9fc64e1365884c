/* A thousand persistent timers of 10 ms each; an operation is one of them firing. */
#include "contender.h"

#define TIMERS 1000

static long fired;

static void callback(evutil_socket_t fd, short what, void *arg)
{
	fired++;
}

int main(void)
{
	const struct timeval interval = {0, 10000};
	struct event_base *base = new_base();
	struct event *timers[TIMERS];
	long count;

	while (next_count(&count)) {
		long microseconds = count / TIMERS * interval.tv_usec;
		struct timeval duration = {microseconds / 1000000, microseconds % 1000000};
		long long start;

		fired = 0;
		for (int i = 0; i < TIMERS; i++) {
			timers[i] = event_new(base, -1, EV_PERSIST, callback, NULL);
			event_add(timers[i], &interval);
		}
		event_base_loopexit(base, &duration);
		start = processor_time();
		event_base_dispatch(base);
		answer(processor_time() - start, fired);
		for (int i = 0; i < TIMERS; i++)
			event_free(timers[i]);
	}
	event_base_free(base);
	return 0;
}
