/* Trampolines of struct evdns_base; `arg` is a key, as in event.c.
 *
 * The handle of a lookup is stored here rather than returned: a signal handler of Python's may raise
 * before Python has stored it. */

static void evpy_on_resolved(int result, char type, int count, int ttl, void *addresses, void *key)
{
	(void)type;
	EVPY_CALL(evpy_dns_resolved((uintptr_t)key, result, count, ttl, addresses));
}

static void evpy_on_addrinfo(int result, struct evutil_addrinfo *res, void *key)
{
	EVPY_CALL(evpy_dns_addrinfo((uintptr_t)key, result, res));
	if (res != NULL)
		evutil_freeaddrinfo(res);
}

static int evpy_dns_resolve(struct evdns_base *dns, int type, const void *what, int flags,
    uintptr_t key, void **handle)
{
	errno = 0;
	if (type == EVDNS_TYPE_A)
		*handle = evdns_base_resolve_ipv4(dns, what, flags, evpy_on_resolved, (void *)key);
	else
		*handle = evdns_base_resolve_ipv6(dns, what, flags, evpy_on_resolved, (void *)key);
	return *handle == NULL ? -1 : 0;
}

static int evpy_dns_resolve_reverse(struct evdns_base *dns, int size, const void *address, int flags,
    uintptr_t key, void **handle)
{
	errno = 0;
	if (size == 4)
		*handle = evdns_base_resolve_reverse(dns, address, flags, evpy_on_resolved, (void *)key);
	else
		*handle =
		    evdns_base_resolve_reverse_ipv6(dns, address, flags, evpy_on_resolved, (void *)key);
	return *handle == NULL ? -1 : 0;
}

/* NULL is no failure here: then the callback has been called. */
static int evpy_dns_getaddrinfo(struct evdns_base *dns, const char *host, const char *service,
    const struct evutil_addrinfo *hints, uintptr_t key, void **handle)
{
	*handle = evdns_getaddrinfo(dns, host, service, hints, evpy_on_addrinfo, (void *)key);
	return 0;
}

/* Without its name servers first, evdns_base_free() would have the answer to a probe, by which evdns asks
 * whether one is back, find that one freed. No answer may be on its way, and no lookup be left. */
static void evpy_dns_free(struct evdns_base *dns)
{
	evdns_base_clear_nameservers_and_suspend(dns);
	evdns_base_free(dns, 1);
}
