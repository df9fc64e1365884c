/* Trampolines of struct evconnlistener; `arg` is a key, as in event.c. */

/* A connection that Python doesn't take is closed, or its descriptor would leak (K1). But code that has closed it
 * and opened another one may have got the same number again. */
static void evpy_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
    struct sockaddr *address, int length, void *key)
{
	struct evpy_accepted accepted = {fd, 0, evpy_accepted};
	struct stat then, now;
	int taken;

	(void)listener;
	memset(&then, 0, sizeof then);
	fstat(fd, &then);
	evpy_accepted = &accepted;
	EVPY_ASK(taken, evpy_accept((uintptr_t)key, fd, address, length));
	evpy_accepted = accepted.outer;
	if (taken <= 0 && !accepted.closing && fstat(fd, &now) == 0 && now.st_dev == then.st_dev &&
	    now.st_ino == then.st_ino)
		evutil_closesocket(fd);
}

static void evpy_on_accept_error(struct evconnlistener *listener, void *key)
{
	int error = errno;

	(void)listener;
	EVPY_TELL(evpy_accept_error((uintptr_t)key, error));
}

/* As in C, connections wait in the kernel until there is a first callback. */
static struct evconnlistener *evpy_listener_new(struct event_base *base, evutil_socket_t fd,
    unsigned flags, int backlog, int callback, uintptr_t key)
{
	struct evconnlistener *listener;
	int before;

	if (evpy_is_refused(base, fd) || (before = evpy_guard()) < 0)
		return NULL;
	/* A listener made with memory put aside is complete, and is kept: freeing it could close the descriptor. */
	listener = evconnlistener_new(
	    base, callback ? evpy_on_accept : NULL, (void *)key, flags, backlog, fd);
	evpy_unguard(before);
	if (listener != NULL)
		evconnlistener_set_error_cb(listener, evpy_on_accept_error);
	return listener;
}

static int evpy_listener_set_cb(struct evconnlistener *listener, int callback, uintptr_t key)
{
	if (callback &&
	    evpy_is_refused(evconnlistener_get_base(listener), evconnlistener_get_fd(listener)))
		return -1;
	evconnlistener_set_cb(listener, callback ? evpy_on_accept : NULL, (void *)key);
	return 0;
}

struct evpy_listener_event {
	struct evconnlistener *listener;
	struct event *event;
};

static int evpy_note_listener_event(
    const struct event_base *base, const struct event *ev, void *arg)
{
	struct evpy_listener_event *found = arg;

	(void)base;
	if (event_get_callback_arg(ev) == found->listener)
		found->event = (struct event *)ev;
	return found->event != NULL;
}

/* Leaves the descriptor of a listener that could not be completed to the caller: libevent will close the one that
 * the listener's event has. */
static void evpy_listener_disown(struct evconnlistener *listener)
{
	struct evpy_listener_event found = {listener, NULL};

	evconnlistener_set_cb(listener, evpy_on_accept, NULL); /* or the event may not be pending */
	event_base_foreach_event(
	    evconnlistener_get_base(listener), evpy_note_listener_event, &found);
	if (found.event != NULL) {
		event_del(found.event);
		found.event->ev_fd = -1;
	}
}

static void evpy_listener_free_without_fd(struct evconnlistener *listener)
{
	evpy_listener_disown(listener);
	evconnlistener_free(listener);
}
