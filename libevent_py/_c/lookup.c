/* The lookups that bufferevents begin: their own, and those of the HTTP connections that they belong to.
 *
 * A bufferevent has a slot for one lookup, and the lookup's callback clears that slot. The callback of a cancelled
 * lookup runs only in the loop. If another lookup has begun by then, that one can't be cancelled any more: it
 * outlives the bufferevent and the evdns_base, connects a socket that is never closed, and its timer uses freed
 * memory. The same happens if a lookup is begun inside the callback of another one that is answered before the
 * call returns. And a bufferevent with TLS never cancels a lookup.
 *
 * libevent's core doesn't know evdns: it calls the lookup function that was set first. We set this one, before any
 * evdns_base is made. So we know all lookups of each bufferevent, the newest first; each can be cancelled; and when
 * a replaced lookup ends, it only drops its reference to the bufferevent. */

/* From libevent's util-internal.h: exported for evdns, which is in another library. */
typedef struct evdns_getaddrinfo_request *(*evpy_getaddrinfo_fn)(struct evdns_base *, const char *,
    const char *, const struct evutil_addrinfo *, evdns_getaddrinfo_cb, void *);
void evutil_set_evdns_getaddrinfo_fn_(evpy_getaddrinfo_fn fn);

struct evpy_lookup {
	struct evpy_lookup *next;
	struct bufferevent *bev;
	struct evdns_base *dns;
	/* NULL until it is clear that the answer comes later. */
	struct evdns_getaddrinfo_request *handle;
	evdns_getaddrinfo_cb cb;
	int cancelled;
};

#define EVPY_LOOKUPS 1024
static struct evpy_lookup *evpy_lookups[EVPY_LOOKUPS];

static struct evpy_lookup **evpy_lookups_of(const struct bufferevent *bev)
{
	uintptr_t bits = (uintptr_t)bev;

	return &evpy_lookups[(bits >> 4 ^ bits >> 14 ^ bits >> 24) % EVPY_LOOKUPS];
}

/* The newest lookup of the bufferevent in the list that begins with `lookup`. */
static struct evpy_lookup *evpy_lookup_find(
    struct evpy_lookup *lookup, const struct bufferevent *bev)
{
	while (lookup != NULL && lookup->bev != bev)
		lookup = lookup->next;
	return lookup;
}

static void evpy_on_lookup(int result, struct evutil_addrinfo *found, void *arg)
{
	struct evpy_lookup *lookup = arg, **at = evpy_lookups_of(lookup->bev);
	int newest;

	evpy_memory_hold();
	newest = evpy_lookup_find(*at, lookup->bev) == lookup;
	while (*at != lookup)
		at = &(*at)->next;
	*at = lookup->next;
	evpy_memory_leave();
	if (newest) {
		lookup->cb(evpy_lookup_result(result, found), found, lookup->bev);
	} else {
		if (found != NULL)
			evutil_freeaddrinfo(found);
		bufferevent_decref(lookup->bev);
	}
	evpy_free(lookup);
}

static struct evdns_getaddrinfo_request *evpy_lookup_begin(struct evdns_base *dns, const char *host,
    const char *service, const struct evutil_addrinfo *hints, evdns_getaddrinfo_cb cb, void *bev)
{
	struct evpy_lookup *lookup = evpy_calloc(1, sizeof *lookup), **first = evpy_lookups_of(bev);
	struct evdns_getaddrinfo_request *handle;
	int before = lookup == NULL ? -1 : evpy_guard(); /* half a lookup would be freed twice */

	if (before < 0) {
		evpy_free(lookup);
		cb(EVUTIL_EAI_MEMORY, NULL, bev);
		return NULL;
	}
	lookup->bev = bev;
	lookup->dns = dns;
	lookup->cb = cb;
	evpy_memory_hold();
	lookup->next = *first;
	*first = lookup;
	evpy_memory_leave();
	handle = evdns_getaddrinfo(dns, host, service, hints, evpy_on_lookup, lookup);
	evpy_unguard(before);
	evpy_memory_hold();
	if (handle != NULL) {
		lookup->handle = handle;
	} else { /* it is over, but its callback may have begun another, which the bufferevent now has */
		struct evpy_lookup *other = evpy_lookup_find(*first, bev);

		if (other != NULL && !other->cancelled)
			handle = other->handle;
	}
	evpy_memory_leave();
	return handle;
}

static void evpy_lookup_init(void)
{
	evutil_set_evdns_getaddrinfo_fn_(evpy_lookup_begin);
}

/* The next unfinished lookup in this bucket of the bufferevent or, with NULL, of the evdns_base; it is marked as
 * cancelled. */
static struct evdns_getaddrinfo_request *evpy_lookup_take(
    struct evpy_lookup **place, const struct bufferevent *bev, const struct evdns_base *dns)
{
	struct evdns_getaddrinfo_request *handle = NULL;
	struct evpy_lookup *lookup;

	evpy_memory_hold();
	for (lookup = *place; lookup != NULL && handle == NULL; lookup = lookup->next) {
		if (lookup->cancelled || (bev != NULL ? lookup->bev != bev : lookup->dns != dns))
			continue;
		lookup->cancelled = lookup->handle != NULL;
		handle = lookup->handle;
	}
	evpy_memory_leave();
	return handle;
}

/* Tells whether the bufferevent is looking up the name that it will connect to. */
static int evpy_lookup_under_way(struct bufferevent *bev)
{
	struct evpy_lookup *lookup;
	int under_way;

	evpy_memory_hold();
	lookup = evpy_lookup_find(*evpy_lookups_of(bev), bev);
	under_way = lookup != NULL && !lookup->cancelled;
	evpy_memory_leave();
	return under_way;
}

/* Cancels all lookups of the bufferevent; its evdns_base must still exist. */
static void evpy_lookup_cancel(struct bufferevent *bev)
{
	struct evdns_getaddrinfo_request *handle;
	int before = -1;

	while ((handle = evpy_lookup_take(evpy_lookups_of(bev), bev, NULL)) != NULL) {
		if (before < 0)
			before =
			    evpy_guard_closing(); /* or the callback, which has a reference, would never run */
		evdns_getaddrinfo_cancel(handle);
	}
	if (before >= 0)
		evpy_unguard(before);
}

/* The same for all lookups by this evdns_base, which is freed once their callbacks have run. */
static void evpy_lookup_cancel_all(struct evdns_base *dns)
{
	struct evdns_getaddrinfo_request *handle;
	int i, before = -1;

	for (i = 0; i < EVPY_LOOKUPS; ++i)
		while ((handle = evpy_lookup_take(&evpy_lookups[i], NULL, dns)) != NULL) {
			if (before < 0)
				before = evpy_guard_closing();
			evdns_getaddrinfo_cancel(handle);
		}
	if (before >= 0)
		evpy_unguard(before);
}
