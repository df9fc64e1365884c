/* Priorities: the most urgent of the active events is always called next.
 *
 * Three events are made active at once, the least urgent first. The second one's callback makes the first active
 * again, which is then called before the third. */

#include "sample.h"

static void on_urgent(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	printf("urgent\n");
}

static void on_normal(evutil_socket_t fd, short what, void *urgent)
{
	(void)fd, (void)what;
	printf("normal, which has something urgent to do\n");
	event_active(urgent, EV_TIMEOUT, 1);
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	printf("idle\n");
}

int main(int argc, char **argv)
{
	struct event_base *base;
	struct event *urgent, *normal, *idle;

	start(argc, argv, 0, 0, "");
	base = need(event_base_new(), "event_base_new");
	if (event_base_priority_init(base, 3) < 0)
		die("event_base_priority_init failed");
	urgent = need(evuser_new(base, on_urgent, NULL), "evuser_new");
	normal = need(evuser_new(base, on_normal, urgent), "evuser_new");
	idle = need(evuser_new(base, on_idle, NULL), "evuser_new");
	event_priority_set(urgent, 0);
	event_priority_set(normal, 1);
	event_priority_set(idle, 2);
	event_active(idle, EV_TIMEOUT, 1);
	event_active(normal, EV_TIMEOUT, 1);
	event_active(urgent, EV_TIMEOUT, 1);
	event_base_dispatch(base);
	event_free(idle);
	event_free(normal);
	event_free(urgent);
	event_base_free(base);
	return 0;
}
