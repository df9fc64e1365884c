/* Trampolines of struct bufferevent; `arg` is a key, as in event.c. */

/* The object's on_read or on_write, a new reference; NULL if there is none, or not any more. */
static PyObject *evpy_data_callback(PyObject *bev, int writing)
{
	struct evpy_bufferevent_state *state = EVPY_STATE(bufferevent, bev);
	PyObject *callback = writing ? state->on_write : state->on_read;

	if (callback == NULL || callback == Py_None)
		return NULL;
	Py_INCREF(callback);
	return callback;
}

/* Call on_read or on_write, by Python's own API: docs/decisions/017-events-called-by-c.md. */
static void evpy_bufferevent_data(uintptr_t key, int writing)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *number = PyLong_FromUnsignedLongLong(key);
	PyObject *bev = number == NULL ? NULL : evpy_live_object(number, &evpy_bufferevent_class);
	PyObject *callback = bev == NULL ? NULL : evpy_data_callback(bev, writing), *done;

	if (callback != NULL) { /* or libevent is late */
		done = PyObject_CallFunctionObjArgs(callback, bev, NULL);
		if (done == NULL)
			evpy_tell(
			    writing ? evpy_python.write_raised : evpy_python.read_raised, bev);
		Py_XDECREF(done);
		Py_DECREF(callback);
	}
	Py_XDECREF(bev);
	Py_XDECREF(number);
	evpy_keep_error();
	PyGILState_Release(gil);
}

static void evpy_on_bufferevent_read(struct bufferevent *bev, void *key)
{
	(void)bev;
	EVPY_CALL(evpy_bufferevent_data((uintptr_t)key, 0));
}

static void evpy_on_bufferevent_write(struct bufferevent *bev, void *key)
{
	(void)bev;
	EVPY_CALL(evpy_bufferevent_data((uintptr_t)key, 1));
}

/* errno says why, but only until another function is called (F14). */
static void evpy_on_bufferevent_event(struct bufferevent *bev, short what, void *key)
{
	int error = errno;

	(void)bev;
	EVPY_TELL(evpy_bufferevent_event((uintptr_t)key, what, error));
}

static void evpy_bufferevent_setcb(
    struct bufferevent *bev, int read, int write, int event, uintptr_t key)
{
	bufferevent_setcb(bev, read ? evpy_on_bufferevent_read : NULL,
	    write ? evpy_on_bufferevent_write : NULL, event ? evpy_on_bufferevent_event : NULL,
	    (void *)key);
}

/* Negative seconds mean no timeout; for bufferevents, libevent's own sign for that is 0. */
static int evpy_bufferevent_set_timeouts(struct bufferevent *bev, double read, double write)
{
	struct timeval reading = {0, 1}, writing = {0, 1};

	if (read >= 1e-6)
		reading = evpy_timeval(read);
	if (write >= 1e-6)
		writing = evpy_timeval(write);
	return bufferevent_set_timeouts(
	    bev, read < 0 ? NULL : &reading, write < 0 ? NULL : &writing);
}

static void evpy_bufferevent_unlimit(struct bufferevent *bev, int busy);
static void evpy_lookup_cancel(struct bufferevent *bev);

/* The descriptors that this thread's accepting callbacks got, the innermost first. */
struct evpy_accepted {
	evutil_socket_t fd;
	int closing;
	struct evpy_accepted *outer;
};
static _Thread_local struct evpy_accepted *evpy_accepted;

/* A freed bufferevent closes its descriptor: the code that accepted it must not close it, too. */
static void evpy_note_closing(evutil_socket_t fd)
{
	struct evpy_accepted *accepted;

	for (accepted = evpy_accepted; accepted != NULL; accepted = accepted->outer)
		accepted->closing |= accepted->fd == fd;
}

/* Returned in the middle of a renegotiation, in which OpenSSL can't begin anew. */
#define EVPY_RENEGOTIATES -2

#if LIBEVENT_PY_HAVE_TLS
static int evpy_tls_setfd(struct bufferevent *bev, evutil_socket_t fd);
#endif

/* Closes the old descriptor if `bev` has owned it. taken[0] tells, in spite of an interrupt right after it, whether `bev`
 * has the new one now, and taken[1] the old one: a signal handler may have replaced the one that Python knew. */
static int evpy_bufferevent_setfd(
    struct bufferevent *bev, evutil_socket_t fd, int owned, int *taken)
{
	evutil_socket_t old = bufferevent_getfd(bev);
	int result;

#if LIBEVENT_PY_HAVE_TLS
	result = evpy_tls_setfd(bev, fd);
#else
	result = bufferevent_setfd(bev, fd);
#endif
	taken[0] = result == 0;
	taken[1] = (int)old;
	if (result == 0 && owned && old >= 0)
		evutil_closesocket(old);
	return result;
}

/* Whether the callbacks of `underlying` are those of the layer `bev` on top of it, which may be freed by now. */
static int evpy_bufferevent_calls(struct bufferevent *underlying, struct bufferevent *bev)
{
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *arg;

	bufferevent_getcb(underlying, &read, &write, &event, &arg);
	return arg == bev;
}

/* libevent frees a bufferevent only in the loop's next turn, and goes on reading till then, or for as long
 * as there is another reference (F2, F3). By then its limit and its group may be gone (J1, J3). */
static void evpy_bufferevent_free(struct bufferevent *bev)
{
	struct bufferevent *underlying = bufferevent_get_underlying(bev);

	bufferevent_disable(bev, EV_READ | EV_WRITE);
	if (underlying != NULL) {
		if (evpy_bufferevent_calls(underlying, bev))
			bufferevent_setcb(underlying, NULL, NULL, NULL, NULL);
	} else {
		evutil_socket_t fd = bufferevent_getfd(bev);

		evpy_lookup_cancel(bev); /* it would keep and connect the bufferevent (F9) */
		if (fd >= 0)
			evpy_note_closing(fd);
	}
	bufferevent_remove_from_rate_limit_group(bev);
	evpy_bufferevent_unlimit(bev, 1);
	bufferevent_free(bev);
}

/* The same for one whose descriptor stays open: from now on libevent doesn't use it. */
static void evpy_bufferevent_free_without_fd(struct bufferevent *bev)
{
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	evpy_lookup_cancel(bev); /* or the next line would do it, perhaps without memory */
	bufferevent_setfd(bev, -1);
	evpy_bufferevent_free(bev);
}

/* The same for one that connected a socket of its own making without CLOSE_ON_FREE (F8). */
static void evpy_bufferevent_free_with_fd(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);

	evpy_bufferevent_free_without_fd(bev);
	if (fd >= 0)
		evutil_closesocket(fd);
}

/* libevent doesn't check whether it got memory for the lock, or for the callbacks without which nothing is ever
 * written; and it can't undo half of a pair (bufferevent_pair_elt_new()). So memory is put aside for these. */

static struct bufferevent *evpy_bufferevent_socket_new(
    struct event_base *base, evutil_socket_t fd, int options)
{
	struct bufferevent *bev;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	bev = bufferevent_socket_new(base, fd, options);
	if (bev != NULL && evpy_missed(before)) {
		evpy_bufferevent_free_without_fd(bev);
		bev = NULL;
	}
	evpy_unguard(before);
	return bev;
}

static int evpy_bufferevent_pair_new(
    struct event_base *base, int options, struct bufferevent *pair[2])
{
	int before = evpy_guard(), result;

	if (before < 0)
		return -1;
	result = bufferevent_pair_new(base, options, pair);
	if (result == 0 && evpy_missed(before)) {
		bufferevent_free(pair[0]);
		bufferevent_free(pair[1]);
		result = -1;
	}
	if (result < 0)
		pair[0] = pair[1] = NULL;
	evpy_unguard(before);
	return result;
}

/* For a bufferevent whose buffers call only libevent. That ignores it if there is no memory to wait until the
 * socket is writable, and the bytes would never be sent. */
static int evpy_bufferevent_write_data(struct bufferevent *bev, const void *data, size_t size)
{
	int before, result;

	errno = 0;
	result = bufferevent_write(bev, data, size);
	if (result < 0 || errno != ENOMEM || !(bufferevent_get_enabled(bev) & EV_WRITE))
		return result;
	before = evpy_guard();
	if (before < 0)
		return -1;
	result = bufferevent_enable(bev, EV_WRITE);
	evpy_unguard(before);
	return result;
}
