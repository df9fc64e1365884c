/* A timer that is added again whenever it fires or, with -p, a persistent one.
 *
 * The first waits from the moment of its callback, the second from the moment when it was due. So the second doesn't
 * drift. */

#include <time.h>

#include "sample.h"

struct timer {
	struct event *event;
	struct timeval period;
	int persist;
	double last;
};

static double monotonic(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct timer *timer = arg;
	double now = monotonic();

	(void)fd, (void)what;
	printf("%.3f seconds have passed\n", now - timer->last);
	timer->last = now;
	if (!timer->persist)
		event_add(timer->event, &timer->period);
}

int main(int argc, char **argv)
{
	struct timer timer = {.persist = argc > 1 && strcmp(argv[1], "-p") == 0};
	struct event_base *base;
	struct event *interrupt;
	double seconds;

	start(argc, argv, 0, 1 + timer.persist, "[-p] [seconds]");
	seconds = atof(argument(argv, 1 + timer.persist, "2"));
	timer.period = timeval_of(seconds);
	timer.last = monotonic();
	base = need(event_base_new(), "event_base_new");
	timer.event = new_event(base, -1, timer.persist ? EV_PERSIST : 0, on_timeout, &timer);
	event_add(timer.event, &timer.period);
	interrupt = stop_on_interrupt(base);
	printf("every %g seconds, Ctrl-C to stop\n", seconds);
	event_base_dispatch(base);
	event_free(interrupt);
	event_free(timer.event);
	event_base_free(base);
	return 0;
}
