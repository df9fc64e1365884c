/* A signal event that deletes itself when it has been called three times.
 *
 * Then no event is left, and the loop ends. */

#include "sample.h"

struct countdown {
	struct event *event;
	int left;
};

static void on_interrupt(evutil_socket_t signum, short what, void *arg)
{
	struct countdown *countdown = arg;

	(void)signum, (void)what;
	printf("got SIGINT, %d to go\n", --countdown->left);
	if (countdown->left == 0)
		event_del(countdown->event);
}

int main(int argc, char **argv)
{
	struct countdown countdown = {.left = 3};
	struct event_base *base;

	start(argc, argv, 0, 0, "");
	base = need(event_base_new(), "event_base_new");
	countdown.event = on_signal(base, SIGINT, on_interrupt, &countdown);
	printf("waiting for SIGINT, %d times\n", countdown.left);
	event_base_dispatch(base);
	event_free(countdown.event);
	event_base_free(base);
	return 0;
}
