/* The hot path of EAGER bufferevents; libevent_py/bufferevent/eager.py explains it. */

#include <unistd.h>

#define EVPY_ARENA (256 * 1024)

/* Bytes that a callback leaves to C are sent from where they are if they are more, else from a copy: to free them takes
 * Python's lock once more. */
#define EVPY_COPIED (8 * 1024)

/* What the read callback says: that it has not read, and that it runs in a forked child. */
#define EVPY_UNREAD -1
#define EVPY_PARENT_S -2

struct evpy_arena {
	PyObject *object; /* what Python sees of it, which owns it */
	int busy;
	/* Who may use it, as it has been lent: that thread, unless it has forked since, for an object that still has
	 * that class. A closed one has another. */
	unsigned long thread;
	int forks;
	PyTypeObject *class;
	char input[EVPY_ARENA];
	char output[EVPY_ARENA];
};

struct evpy_eager {
	int direct; /* its callback needs the input in the evbuffer: don't use the arena for it */
	int deferred; /* its callbacks are deferred, and wait while others use the arena */
	int corked; /* writing is held back until its read callback returns */
	int running; /* calls of its read callback that are on the stack */
	int freed;
	uintptr_t key;
	struct evpy_arena *arena;
};

/* libevent's own callback for when a socket is readable, once it has been seen. */
static event_callback_fn evpy_readable;

static struct evpy_arena *evpy_arena_new(uintptr_t object)
{
	struct evpy_arena *arena = evpy_calloc(1, sizeof *arena);

	if (arena != NULL)
		arena->object = (PyObject *)object;
	return arena;
}

static void evpy_arena_free(struct evpy_arena *arena)
{
	evpy_free(arena);
}

/* Move the input to the arena if there is room, and return its size, else -1. */
static int evpy_arena_take(struct bufferevent *bev, struct evpy_arena *arena)
{
	if (arena->busy || evbuffer_get_length(bev->input) > sizeof arena->input)
		return -1;
	return evbuffer_remove(bev->input, arena->input, sizeof arena->input);
}

static struct evpy_eager *evpy_eager_new(struct evpy_arena *arena, uintptr_t key, int deferred)
{
	struct evpy_eager *eager = evpy_calloc(1, sizeof *eager);

	if (eager != NULL) {
		eager->arena = arena;
		eager->key = key;
		eager->deferred = deferred;
	}
	return eager;
}

static void evpy_eager_free(struct evpy_eager *eager)
{
	eager->freed = 1;
	if (!eager->running)
		evpy_free(eager);
}

/* Writing is enabled, and neither data nor a connection is pending. */
static int evpy_eager_can_cork(struct bufferevent *bev)
{
	return bev->enabled & EV_WRITE && evbuffer_get_length(bev->output) == 0 &&
	    !event_pending(&bev->ev_write, EV_WRITE, NULL) && event_get_fd(&bev->ev_read) >= 0;
}

/* Send at once what the callback has written: `size` bytes of `data`, or what is in the output. libevent writes the
 * rest later. */
static void evpy_eager_flush(
    struct bufferevent *bev, struct evpy_eager *eager, const char *data, size_t size)
{
	evutil_socket_t fd = event_get_fd(&bev->ev_write);
	ssize_t written = 0;
	int failed = 0;

	eager->corked = 0;
	if (size > 0 && evbuffer_get_length(bev->output) == 0) {
		written = write(fd, data, size);
		if (written < 0)
			written = 0; /* libevent will get the same error */
		if ((size_t)written < size)
			failed = evbuffer_add(bev->output, data + written, size - (size_t)written);
	} else {
		if (size > 0)
			failed = evbuffer_add(bev->output, data, size);
		if (evbuffer_get_length(bev->output) > 0) {
			evbuffer_unfreeze(bev->output, 1);
			written = evbuffer_write_atmost(
			    bev->output, fd, bufferevent_get_max_single_write(bev));
			evbuffer_freeze(bev->output, 1);
		}
	}
	bev->enabled |= EV_WRITE;
	if (failed) {
		errno = ENOMEM;
		bufferevent_trigger_event(bev, BEV_EVENT_WRITING | BEV_EVENT_ERROR, 0);
	} else if (evbuffer_get_length(bev->output) > 0) {
		bufferevent_enable(bev, EV_WRITE);
	} else if (written > 0 && bev->writecb != NULL) {
		bufferevent_trigger(bev, EV_WRITE, 0);
	}
}

static struct evpy_arena_state *evpy_arena_state(struct evpy_arena *arena)
{
	return EVPY_STATE(arena, arena->object);
}

/* The arena's numbers are Python's: `BufferEvent.read` and `write` look there. */
static int evpy_arena_set(PyObject **member, size_t value)
{
	PyObject *number = PyLong_FromSize_t(value), *before = *member;

	if (number == NULL)
		return -1;
	*member = number;
	Py_XDECREF(before);
	return 0;
}

/* Have the arena be used by the bufferevent whose callback is to run. */
static int evpy_arena_lend(struct evpy_arena *arena, PyObject *bev, size_t unread, size_t room)
{
	struct evpy_arena_state *state = evpy_arena_state(arena);

	if (evpy_arena_set(&state->unread, unread) < 0 || evpy_arena_set(&state->unsent, 0) < 0 ||
	    evpy_arena_set(&state->room, room) < 0)
		return -1;
	evpy_set_member(&state->bev, bev);
	arena->thread = PyThread_get_thread_ident();
	arena->forks = evpy_forks;
	arena->class = Py_TYPE(bev);
	Py_INCREF(arena->object);
	EVPY_STATE(bufferevent, bev)->lent = arena->object;
	return 0;
}

/* Have it be used by nobody: the callback has returned. */
static void evpy_arena_return(struct evpy_arena *arena, PyObject *bev)
{
	evpy_set_member(&evpy_arena_state(arena)->bev, Py_None);
	EVPY_STATE(bufferevent, bev)->lent = NULL;
	Py_DECREF(arena->object);
}

/* The arena that is lent to that bufferevent, if this thread may use it; else NULL. The object that is lent keeps the
 * memory, even in a child forked by another thread, which closes its base. */
static struct evpy_arena *evpy_arena_lent(PyObject *bev)
{
	PyObject *lent = NULL;
	struct evpy_arena *arena;

	if (PyObject_TypeCheck(bev, evpy_bufferevent_class.type)) /* BufferEvent.read(anything) */
		lent = EVPY_STATE(bufferevent, bev)->lent;
	arena = lent == NULL ? NULL : PyLong_AsVoidPtr(EVPY_STATE(arena, lent)->address);
	return arena != NULL && arena->forks == evpy_forks && arena->class == Py_TYPE(bev) &&
		arena->thread == PyThread_get_thread_ident()
	    ? arena
	    : NULL;
}

/* Take the input of the bufferevent whose callback runs: what BufferEvent.read() returns, or None where it isn't all in the
 * arena. */
static PyObject *evpy_arena_read(PyObject *self, PyObject *bev)
{
	struct evpy_arena *arena = evpy_arena_lent(bev);
	Py_ssize_t unread = arena == NULL ? 0 : PyLong_AsSsize_t(evpy_arena_state(arena)->unread);
	PyObject *data;

	(void)self;
	if (unread <= 0)
		Py_RETURN_NONE;
	data = PyBytes_FromStringAndSize(arena->input, unread);
	if (data != NULL && evpy_arena_set(&evpy_arena_state(arena)->unread, 0) < 0)
		Py_CLEAR(data);
	return data;
}

/* Take bytes that the bufferevent whose callback runs is to send: what BufferEvent.write() does. Return True, or False where
 * they don't go by the arena. */
static PyObject *evpy_arena_write(PyObject *self, PyObject *const *arguments, Py_ssize_t n)
{
	struct evpy_arena *arena = n == 2 ? evpy_arena_lent(arguments[0]) : NULL;
	PyObject *data = n == 2 ? arguments[1] : NULL;
	struct evpy_arena_state *state;
	Py_ssize_t size, room, unsent;

	(void)self;
	if (arena == NULL || !PyBytes_CheckExact(data))
		Py_RETURN_FALSE;
	state = evpy_arena_state(arena);
	size = PyBytes_Size(data);
	room = PyLong_AsSsize_t(state->room);
	unsent = PyLong_AsSsize_t(state->unsent);
	if (state->held != Py_None || room == 0)
		Py_RETURN_FALSE;
	if (unsent == 0 && size >= EVPY_COPIED) {
		evpy_set_member(&state->held, data);
		Py_RETURN_TRUE;
	}
	if (size > room - unsent)
		Py_RETURN_FALSE;
	memcpy(arena->output + unsent, PyBytes_AsString(data), (size_t)size);
	if (evpy_arena_set(&state->unsent, (size_t)(unsent + size)) < 0)
		return NULL;
	Py_RETURN_TRUE;
}

/* Put these two into the dictionary at that address, by these names. */
static int evpy_arena_functions(uintptr_t names)
{
	static PyMethodDef functions[] = {
	    {"read", evpy_arena_read, METH_O, NULL},
	    {"write", (PyCFunction)(void (*)(void))evpy_arena_write, METH_FASTCALL, NULL},
	    {NULL, NULL, 0, NULL},
	};

	return evpy_python_add(names, functions);
}

/* Take the bytes that the callback has left to be sent from where they are: a new reference, or NULL for none. */
static PyObject *evpy_arena_take_held(struct evpy_arena *arena)
{
	struct evpy_arena_state *state = evpy_arena_state(arena);
	PyObject *held = state->held;

	if (held == Py_None)
		return NULL;
	Py_INCREF(Py_None);
	state->held = Py_None;
	return held;
}

/* Tell whether what on_data returns is all that there is to be sent, and may be. */
static int evpy_eager_is_all(struct evpy_eager *eager, PyObject *answer)
{
	struct evpy_arena_state *state;

	if (!PyBytes_Check(answer) || eager->freed)
		return 0;
	state = evpy_arena_state(eager->arena);
	return state->held == Py_None && PyLong_AsSsize_t(state->room) > 0 &&
	    PyLong_AsSsize_t(state->unsent) == 0;
}

/* Call on_data with the input. Return what it returns if that is all that is to be sent, else None, or NULL with an
 * exception. */
static PyObject *evpy_eager_on_data(
    struct evpy_eager *eager, PyObject *bev, PyObject *on_data, PyObject *data)
{
	PyObject *callback = PyObject_GetAttr(on_data, evpy_attribute.callback);
	PyObject *answer = NULL, *written;

	if (callback != NULL)
		answer = PyObject_CallFunctionObjArgs(callback, bev, data, NULL);
	Py_XDECREF(callback);
	if (answer == NULL || answer == Py_None || evpy_eager_is_all(eager, answer))
		return answer;
	written = PyObject_CallFunctionObjArgs(evpy_python.eager_write, bev, answer, NULL);
	Py_DECREF(answer);
	return written;
}

/* Put back what the callback has not read. */
static void evpy_eager_unread(struct evpy_eager *eager, PyObject *bev)
{
	PyObject *done;

	if (PyLong_AsSsize_t(evpy_arena_state(eager->arena)->unread) != 0) {
		done = PyObject_CallFunctionObjArgs(evpy_python.eager_unread, bev, NULL);
		Py_XDECREF(done);
		if (PyErr_Occurred())
			evpy_tell(evpy_python.read_raised, bev);
	}
}

/* Call `on_read` with `unread` bytes in the arena, or with `data` where that is on_data. Return as above, and tell of an
 * exception. */
static PyObject *evpy_eager_callback(
    struct evpy_eager *eager, PyObject *bev, PyObject *on_read, PyObject *data, size_t unread)
{
	PyObject *answer, *error, *done;

	if (data != NULL) {
		answer = evpy_eager_on_data(eager, bev, on_read, data);
	} else {
		answer = PyObject_CallFunctionObjArgs(on_read, bev, NULL);
		if (answer != NULL) { /* on_read returns nothing */
			Py_DECREF(answer);
			answer = Py_None;
			Py_INCREF(answer);
		}
	}
	error = answer == NULL ? evpy_take_error() : NULL;
	if (data == NULL && unread > 0)
		evpy_eager_unread(eager, bev);
	if (error != NULL) {
		done = evpy_except(evpy_python.read_raised, bev, error);
		Py_XDECREF(done);
		Py_DECREF(error);
		if (done == NULL)
			evpy_tell(evpy_python.kept, Py_None);
	}
	return answer;
}

/* The input as bytes where on_data gets it, or NULL, perhaps with an exception. */
static PyObject *evpy_eager_data(struct evpy_eager *eager, PyObject *on_read, size_t unread)
{
	if (unread == 0 || (PyObject *)Py_TYPE(on_read) != evpy_python.on_data)
		return NULL; /* or it is in the evbuffer */
	return PyBytes_FromStringAndSize(eager->arena->input, (Py_ssize_t)unread);
}

/* Tell whether the callback has returned in a forked child whose base waits for reinit(). */
static int evpy_eager_is_parked(PyObject *bev)
{
	PyObject *said = PyObject_CallFunctionObjArgs(evpy_python.eager_parked, bev, NULL);
	int parked = said != Py_False;

	Py_XDECREF(said);
	return parked;
}

/* Call Python. Return how many bytes of `*data` it has written, or one of the negative numbers above. They are in the
 * arena, or in `*held`, which the caller frees. */
static Py_ssize_t evpy_eager_call(
    struct evpy_eager *eager, size_t unread, const char **data, PyObject **held)
{
	struct evpy_arena *arena = eager->arena;
	size_t room = eager->corked ? sizeof arena->output : 0;
	int forks = evpy_forks;
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *key = PyLong_FromUnsignedLongLong(eager->key), *answer = NULL;
	PyObject *bev = key == NULL ? NULL : evpy_live_object(key, &evpy_bufferevent_class);
	PyObject *on_read = bev == NULL ? NULL : evpy_data_callback(bev, 0);
	PyObject *input = on_read == NULL ? NULL : evpy_eager_data(eager, on_read, unread);
	Py_ssize_t result = EVPY_UNREAD;

	*data = arena->output;
	*held = NULL;
	if (on_read != NULL && !PyErr_Occurred() &&
	    evpy_arena_lend(arena, bev, input == NULL ? unread : 0, room) == 0) {
		Py_INCREF(arena->object);
		answer = evpy_eager_callback(eager, bev, on_read, input, unread);
		if (answer == NULL || answer == Py_None) {
			Py_XDECREF(answer);
			answer = evpy_arena_take_held(arena);
		}
		result = answer != NULL ? PyBytes_Size(answer)
					: PyLong_AsSsize_t(evpy_arena_state(arena)->unsent);
		if (evpy_forks != forks && evpy_eager_is_parked(bev))
			result = EVPY_PARENT_S;
		evpy_arena_return(arena, bev);
		Py_DECREF(arena->object);
	}
	Py_XDECREF(input);
	Py_XDECREF(on_read);
	Py_XDECREF(bev);
	Py_XDECREF(key);
	if (answer != NULL && result > EVPY_COPIED) {
		*data = PyBytes_AsString(answer);
		*held = answer;
	} else if (answer != NULL) {
		if (result > 0)
			memcpy(arena->output, PyBytes_AsString(answer), (size_t)result);
		Py_DECREF(answer);
	}
	evpy_keep_error(); /* there is no memory for a number */
	PyGILState_Release(gil);
	return result;
}

static void evpy_eager_drop(PyObject *held)
{
	PyGILState_STATE gil = PyGILState_Ensure();

	Py_DECREF(held);
	PyGILState_Release(gil);
}

/* Call the read callback, with `unread` bytes for it in the arena. */
static void evpy_eager_run(struct bufferevent *bev, struct evpy_eager *eager, size_t unread)
{
	struct evpy_arena *arena = eager->arena;
	PyObject *held;
	const char *data;
	Py_ssize_t unsent;

	++eager->running;
	eager->direct = 0;
	if (evpy_eager_can_cork(bev)) {
		/* Without this bit libevent does not wait for the socket to be writable. */
		eager->corked = 1;
		bev->enabled &= ~EV_WRITE;
	}
	arena->busy = 1;
	EVPY_CALL(unsent = evpy_eager_call(eager, unread, &data, &held));
	arena->busy = 0;
	if (!eager->freed && unsent == EVPY_UNREAD)
		evbuffer_prepend(bev->input, arena->input, unread);
	if (!eager->freed && eager->corked) {
		if (unsent == EVPY_PARENT_S) {
			eager->corked = 0;
			bev->enabled |= EV_WRITE;
		} else {
			evpy_eager_flush(bev, eager, data, unsent > 0 ? (size_t)unsent : 0);
		}
	}
	if (held != NULL)
		evpy_eager_drop(held);
	if (--eager->running == 0 && eager->freed)
		evpy_free(eager);
}

static void evpy_on_eager_readable(evutil_socket_t fd, short what, void *arg);

/* Make it read eagerly, unless a connection is being made: then only libevent's own callback can tell what
 * an error means. bufferevent_setfd() undoes this. */
static void evpy_eager_hook(struct bufferevent *bev, int connected)
{
	event_callback_fn *readable = &bev->ev_read.ev_evcallback.evcb_cb_union.evcb_callback;

	if (*readable != evpy_on_eager_readable && event_get_fd(&bev->ev_read) >= 0 &&
	    (connected || !event_pending(&bev->ev_write, EV_WRITE, NULL))) {
		evpy_readable = *readable;
		*readable = evpy_on_eager_readable;
	}
}

static void evpy_eager_unhook(struct bufferevent *bev)
{
	event_callback_fn *readable = &bev->ev_read.ev_evcallback.evcb_cb_union.evcb_callback;

	if (*readable == evpy_on_eager_readable)
		*readable = evpy_readable;
}

/* libevent calls this when there is input in the evbuffer: deferred, triggered, or read by itself. */
static void evpy_on_eager_read(struct bufferevent *bev, void *arg)
{
	struct evpy_eager *eager = arg;
	int unread = -1;

	if (eager->arena->busy) { /* inside another bufferevent's callback, or its own */
		EVPY_CALL(evpy_bufferevent_data(eager->key, 0));
		return;
	}
	evpy_eager_hook(bev, 0);
	if (!eager->direct)
		unread = evpy_arena_take(bev, eager->arena);
	evpy_eager_run(bev, eager, unread > 0 ? (size_t)unread : 0);
}

/* Read into the arena or the evbuffer, as the callback needs it; return what read() does. */
static ssize_t evpy_eager_fill(struct bufferevent *bev, struct evpy_eager *eager, int direct)
{
	evutil_socket_t fd = event_get_fd(&bev->ev_read);
	size_t most = (size_t)bufferevent_get_max_single_read(bev);
	struct evbuffer_iovec space;
	ssize_t got = -1;

	if (most > EVPY_ARENA)
		most = EVPY_ARENA;
	if (!direct)
		return read(fd, eager->arena->input, most);
	errno = ENOMEM;
	evbuffer_unfreeze(bev->input, 0);
	if (evbuffer_reserve_space(bev->input, (ev_ssize_t)most, &space, 1) == 1) {
		got = read(fd, space.iov_base, most);
		if (got > 0) {
			space.iov_len = (size_t)got;
			evbuffer_commit_space(bev->input, &space, 1);
		}
	}
	evbuffer_freeze(bev->input, 0);
	return got;
}

/* Replaces libevent's own callback, which asks the kernel how much input there is, and reads at most 4096
 * bytes of it (D13). Everything but input is left to that callback. */
static void evpy_on_eager_readable(evutil_socket_t fd, short what, void *arg)
{
	struct bufferevent *bev = arg;
	struct evpy_eager *eager = bev->cbarg;
	int direct;
	ssize_t got;

	if (!(what & EV_READ) || bev->readcb != evpy_on_eager_read || eager->arena->busy) {
		evpy_readable(fd, what, arg);
		return;
	}
	direct = eager->direct || eager->deferred || evbuffer_get_length(bev->input) > 0;
	got = evpy_eager_fill(bev, eager, direct);
	if (got == 0) { /* the end of the stream: libevent's own callback will find it, too */
		evpy_readable(fd, what, arg);
	} else if (got > 0) {
		bufferevent_incref(bev);
		if (direct)
			bufferevent_trigger(bev, EV_READ, 0);
		else
			evpy_eager_run(bev, eager, (size_t)got);
		bufferevent_decref(bev);
	} else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
		int error = errno;

		bufferevent_incref(bev);
		bufferevent_disable(bev, EV_READ);
		errno = error;
		bufferevent_trigger_event(bev, BEV_EVENT_READING | BEV_EVENT_ERROR, 0);
		bufferevent_decref(bev);
	}
}

static void evpy_on_eager_write(struct bufferevent *bev, void *arg)
{
	(void)bev;
	EVPY_CALL(evpy_bufferevent_data(((struct evpy_eager *)arg)->key, 1));
}

static void evpy_on_eager_event(struct bufferevent *bev, short what, void *arg)
{
	struct evpy_eager *eager = arg;
	int error = errno;

	if (what & BEV_EVENT_CONNECTED)
		evpy_eager_hook(bev, 1);
	EVPY_TELL(evpy_bufferevent_event(eager->key, what, error));
}

static void evpy_eager_setcb(struct bufferevent *bev, int read, int write, struct evpy_eager *eager)
{
	bufferevent_setcb(bev, read ? evpy_on_eager_read : NULL, write ? evpy_on_eager_write : NULL,
	    evpy_on_eager_event, eager);
	evpy_eager_hook(bev, 0);
}

/* Put back input that the callback has not read, or wants to see as a buffer. */
static int evpy_eager_put_back(struct bufferevent *bev, struct evpy_eager *eager, size_t unread)
{
	return evbuffer_prepend(bev->input, eager->arena->input, unread);
}

/* Move what the callback has written to the output, still corked. */
static int evpy_eager_spill(struct bufferevent *bev, const char *data, size_t size)
{
	return evbuffer_add(bev->output, data, size);
}

/* Return to libevent's usual way for the rest of the callback. */
static int evpy_eager_uncork(struct bufferevent *bev, struct evpy_eager *eager)
{
	if (!eager->corked)
		return 0;
	eager->corked = 0;
	bev->enabled |= EV_WRITE;
	return evbuffer_get_length(bev->output) > 0 ? bufferevent_enable(bev, EV_WRITE) : 0;
}
