/* Trampolines of struct evdns_base; `arg` is a key, as in event.c.
 *
 * The handle of a lookup is stored here rather than returned: Python's signal handler may raise before
 * Python has stored it. */

static void evpy_on_resolved(int result, char type, int count, int ttl, void *addresses, void *key)
{
	(void)type;
	/* Calls once more if an interrupt has kept Python from noting that C frees the handle. */
	EVPY_TELL(evpy_dns_resolved((uintptr_t)key, result, count, ttl, addresses));
}

static ev_uint16_t *evpy_port_of(struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return &((struct sockaddr_in *)address)->sin_port;
	return &((struct sockaddr_in6 *)address)->sin6_port;
}

/* The result of a lookup, mended: evdns tells NULL as found where a hosts file has only addresses of the other
 * family, and a bufferevent would read it; and of what it makes of an address in that file, for streams and for
 * datagrams, only the first gets the port. */
static int evpy_lookup_result(int result, struct evutil_addrinfo *found)
{
	if (result == 0 && found == NULL)
		return EVUTIL_EAI_NODATA;
	for (; found != NULL && found->ai_next != NULL; found = found->ai_next) {
		ev_uint16_t *next = evpy_port_of(found->ai_next->ai_addr);

		if (*next == 0)
			*next = *evpy_port_of(found->ai_addr);
	}
	return result;
}

static void evpy_on_addrinfo(int result, struct evutil_addrinfo *res, void *key)
{
	result = evpy_lookup_result(result, res);
	EVPY_TELL(evpy_dns_addrinfo((uintptr_t)key, result, res));
	if (res != NULL)
		evutil_freeaddrinfo(res);
}

/* Without memory, evdns goes on without a lock, without the tables that its first question is written to, and
 * without some of the servers and hosts that the system's files name. */
static struct evdns_base *evpy_dns_base_new(struct event_base *base, int flags)
{
	struct evdns_base *dns;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	errno = 0;
	dns = evdns_base_new(base, flags);
	if (dns != NULL && evpy_missed(before)) {
		evdns_base_free(dns, 0);
		dns = NULL;
	}
	evpy_unguard(before);
	return dns;
}

/* End the guard at the beginning of a lookup. If memory ran short, cancel the lookup, which evdns would leave
 * without its timeout. By then no object has its key. */
static int evpy_dns_begun(struct evdns_base *dns, void **handle, int before)
{
	if (*handle != NULL && evpy_missed(before)) {
		evdns_cancel_request(dns, *handle);
		*handle = NULL;
	}
	evpy_unguard(before);
	return *handle == NULL ? -1 : 0;
}

static int evpy_dns_resolve(
    struct evdns_base *dns, int type, const void *what, int flags, uintptr_t key, void **handle)
{
	int before = evpy_guard();

	if (before < 0)
		return -1;
	errno = 0;
	if (type == EVDNS_TYPE_A)
		*handle = evdns_base_resolve_ipv4(dns, what, flags, evpy_on_resolved, (void *)key);
	else
		*handle = evdns_base_resolve_ipv6(dns, what, flags, evpy_on_resolved, (void *)key);
	return evpy_dns_begun(dns, handle, before);
}

static int evpy_dns_resolve_reverse(
    struct evdns_base *dns, int size, const void *address, int flags, uintptr_t key, void **handle)
{
	int before = evpy_guard();

	if (before < 0)
		return -1;
	errno = 0;
	if (size == 4)
		*handle =
		    evdns_base_resolve_reverse(dns, address, flags, evpy_on_resolved, (void *)key);
	else
		*handle = evdns_base_resolve_reverse_ipv6(
		    dns, address, flags, evpy_on_resolved, (void *)key);
	return evpy_dns_begun(dns, handle, before);
}

/* NULL is no failure here: the callback has been called already. */
static int evpy_dns_getaddrinfo(struct evdns_base *dns, const char *host, const char *service,
    const struct evutil_addrinfo *hints, uintptr_t key, void **handle)
{
	int before = evpy_guard(), missed;

	if (before < 0)
		return -1;
	*handle = evdns_getaddrinfo(dns, host, service, hints, evpy_on_addrinfo, (void *)key);
	missed = *handle != NULL && evpy_missed(before);
	if (missed) {
		evdns_getaddrinfo_cancel(*handle);
		*handle = NULL;
	}
	evpy_unguard(before);
	return missed ? -1 : 0;
}

/* Note the first event of what libevent has freed: evdns gives each of its events the block that the event is in. */
static int evpy_note_stale(const struct event_base *base, const struct event *ev, void *arg)
{
	struct event **next = arg;
	size_t i;

	(void)base;
	for (i = 0; i < evpy_held_back.count && *next == NULL; ++i)
		if (event_get_callback_arg(ev) == evpy_held_back.freed[i])
			*next = (struct event *)ev;
	return *next != NULL;
}

/* evdns frees one server after the other, and cancels the probe that asks whether that server is back. An
 * unanswered probe goes on to another server, perhaps one that evdns has just freed, and writes to it. Or
 * a waiting question is sent, perhaps to a freed server, whose event is added again. So the memory that
 * evdns frees here is freed only afterwards, without its events. */
static int evpy_dns_clear(struct event_base *base, struct evdns_base *dns)
{
	struct event *stale;
	int before = evpy_guard();

	if (before < 0)
		return -1;
	evpy_hold_back_begin();
	evdns_base_clear_nameservers_and_suspend(dns);
	evpy_hold_back_end();
	do {
		stale = NULL;
		event_base_foreach_event(base, evpy_note_stale, &stale);
		if (stale != NULL)
			event_del(stale);
	} while (stale != NULL);
	evpy_let_go();
	evpy_unguard(before);
	return 0;
}

/* No answer may be queued, and no lookup be left. Then the only requests are probes that ask whether a server
 * is back: their callbacks would find the server freed, so they are not called (L2). */
static void evpy_dns_free(struct evdns_base *dns)
{
	evdns_base_free(dns, 0);
}
