/* What EventBase.explain() asks of C. */

#include <dlfcn.h>
#include <stddef.h>

/* What an event is. */
#define EVPY_OF_EVENT 1 /* an Event: `arg` is its key */
#define EVPY_OF_ONCE 2 /* a call of once(): `arg` is its key */
#define EVPY_OF_BASE 3 /* one that each base has */
#define EVPY_OF_FINALIZER 4 /* an Event that is closed with a finalizer: `arg` is its key */
#define EVPY_OF_BUFFEREVENT 5 /* a bufferevent's, whose address is `arg` */
#define EVPY_OF_CORE 6 /* libevent's own, from the library that EventBase is from */
#define EVPY_OF_EXTRA 7 /* libevent's own, from the library that DnsBase and HttpServer are from */
#define EVPY_OF_OTHERS 8

/* What there is to tell of an event. */
struct evpy_sight {
	uintptr_t event, arg;
	int kind, fd, what, flags, priority;
	double due; /* in seconds from now, if EVLIST_TIMEOUT is among the flags */
};

struct evpy_sights {
	struct evpy_sight *sights;
	size_t length, room;
	struct timeval now;
};

/* Whether two functions are of the same library. */
static int evpy_is_from(void (*one)(void), void (*other)(void))
{
	Dl_info here, there;

	return dladdr((void *)(uintptr_t)one, &here) != 0 &&
	    dladdr((void *)(uintptr_t)other, &there) != 0 && here.dli_fbase == there.dli_fbase;
}

static int evpy_sight_kind(const struct event *ev)
{
	event_callback_fn callback = event_get_callback(ev);
	const struct bufferevent *bev = event_get_callback_arg(ev);

	if (evpy_event_key(ev) != 0)
		return EVPY_OF_EVENT;
	if (callback == evpy_on_once)
		return EVPY_OF_ONCE;
	if (callback == evpy_on_wake)
		return EVPY_OF_BASE;
	if ((void (*)(void))callback == (void (*)(void))evpy_on_finalize)
		return EVPY_OF_FINALIZER;
	/* Only addresses are compared, as `bev` may be anything; event_base_once() never has EV_FINALIZE. */
	if (ev->ev_events & EV_FINALIZE &&
	    ((uintptr_t)ev == (uintptr_t)bev + offsetof(struct bufferevent, ev_read) ||
		(uintptr_t)ev == (uintptr_t)bev + offsetof(struct bufferevent, ev_write)))
		return EVPY_OF_BUFFEREVENT;
	if (evpy_is_from((void (*)(void))callback, (void (*)(void))event_base_free))
		return EVPY_OF_CORE;
	if (evpy_is_from((void (*)(void))callback, (void (*)(void))evdns_base_new))
		return EVPY_OF_EXTRA;
	return EVPY_OF_OTHERS;
}

static int evpy_collect_sight(const struct event_base *base, const struct event *ev, void *arg)
{
	struct evpy_sights *found = arg;
	struct evpy_sight *sight = found->sights + found->length;
	int usec = (int)ev->ev_timeout.tv_usec & 0xfffff; /* the rest says which common timeout */

	(void)base;
	if (found->length++ >= found->room)
		return 0;
	sight->event = (uintptr_t)ev;
	sight->kind = evpy_sight_kind(ev);
	sight->arg = (uintptr_t)event_get_callback_arg(ev);
	if (sight->kind == EVPY_OF_ONCE)
		sight->arg = ((struct evpy_once *)event_get_callback_arg(ev))->key;
	else if (sight->kind == EVPY_OF_EVENT)
		sight->arg = evpy_event_key(ev);
	sight->fd = (int)ev->ev_fd;
	sight->what = ev->ev_events;
	sight->flags = ev->ev_evcallback.evcb_flags;
	sight->priority = ev->ev_evcallback.evcb_pri;
	sight->due = (double)(ev->ev_timeout.tv_sec - found->now.tv_sec) +
	    (usec - (int)found->now.tv_usec) / 1e6;
	return 0;
}

/* Write what there is to tell of up to `room` events of anybody's; return how many there are. */
static size_t evpy_sights(struct event_base *base, struct evpy_sight *sights, size_t room)
{
	struct evpy_sights found = {sights, 0, room, {0, 0}};

	event_gettime_monotonic(base, &found.now);
	event_base_foreach_event(base, evpy_collect_sight, &found);
	return found.length;
}

/* An option of a socket that is an int, or -1. */
static int evpy_socket_option(evutil_socket_t fd, int option)
{
	int value = -1;
	ev_socklen_t length = sizeof value;

	return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}
