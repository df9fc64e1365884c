/* Objects that Python keeps alive for libevent: memory that buffers refer to, and cleanup callbacks of file
 * segments.
 *
 * libevent drops its reference in the middle of changing a buffer, with locks held, in any thread. No Python may
 * run there (D4, E6). So C only lists the keys of objects that are no longer needed, and Python takes them from
 * the list at its next clean moment. */

struct evpy_release {
	struct evpy_release *next;
	uintptr_t key;
};
static struct evpy_release *evpy_releases;

static struct evpy_release *evpy_release_new(uintptr_t key)
{
	struct evpy_release *release = evpy_malloc(sizeof *release);

	if (release != NULL)
		release->key = key;
	return release;
}

static void evpy_release(struct evpy_release *release)
{
	evpy_memory_hold();
	release->next = evpy_releases;
	evpy_releases = release;
	evpy_memory_leave();
	if (evpy_waker != NULL)
		event_active(evpy_waker, EV_TIMEOUT, 1);
}

/* The key of an object that libevent no longer needs, or 0. It stays listed until Python has released the object: an
 * interrupt may come right after this call. */
static uintptr_t evpy_released(void)
{
	uintptr_t key = 0;

	evpy_memory_hold();
	if (evpy_releases != NULL)
		key = evpy_releases->key;
	evpy_memory_leave();
	return key;
}

/* Take a key off the list, unless another thread has. */
static void evpy_released_done(uintptr_t key)
{
	struct evpy_release **at, *release;

	evpy_memory_hold();
	for (at = &evpy_releases; *at != NULL && (*at)->key != key; at = &(*at)->next)
		;
	release = *at;
	if (release != NULL)
		*at = release->next;
	evpy_memory_leave();
	evpy_free(release);
}

static void evpy_on_reference_cleanup(const void *data, size_t size, void *release)
{
	(void)data;
	(void)size;
	evpy_release(release);
}

/* Returns 0; -1 if libevent refused: then the key is listed, although libevent doesn't call the cleanup function
 * (D6); or -2 if the key isn't listed, because there is no memory for that. */
static int evpy_add_reference(struct evbuffer *buf, const void *data, size_t size, uintptr_t key)
{
	struct evpy_release *release = evpy_release_new(key);

	if (release == NULL)
		return -2;
	if (evbuffer_add_reference(buf, data, size, evpy_on_reference_cleanup, release) == 0)
		return 0;
	evpy_release(release);
	return -1;
}
