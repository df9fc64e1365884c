/* Trampolines of struct evconnlistener; `arg` is a key, as in event.c. */

/* A connection that nobody takes is closed, or its descriptor would be lost (K1). */
static void evpy_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
    struct sockaddr *address, int length, void *key)
{
	int taken;

	(void)listener;
	EVPY_CALL(taken = evpy_accept((uintptr_t)key, fd, address, length));
	if (!taken)
		evutil_closesocket(fd);
}

static void evpy_on_accept_error(struct evconnlistener *listener, void *key)
{
	int error = errno;

	(void)listener;
	EVPY_CALL(evpy_accept_error((uintptr_t)key, error));
}

static struct evconnlistener *evpy_listener_new(
    struct event_base *base, evutil_socket_t fd, unsigned flags, int backlog, uintptr_t key)
{
	struct evconnlistener *listener =
	    evconnlistener_new(base, evpy_on_accept, (void *)key, flags, backlog, fd);

	if (listener != NULL)
		evconnlistener_set_error_cb(listener, evpy_on_accept_error);
	return listener;
}
