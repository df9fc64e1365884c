/* Trampolines and hot paths of struct event and struct event_base.
 *
 * libevent gets as `arg` a key, a number that no other object ever gets. Python looks the object up by it,
 * and finds none if libevent calls too late. */

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>
#include <event2/listener.h>
#include <event2/thread.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

/* How often this process came out of a fork() as the child. */
static int evpy_forks;

static void evpy_note_fork(void)
{
	++evpy_forks;
}

/* After a fork in a callback, the child's loop would wait on the epoll set that it shares with its parent; so it is
 * ended. Memory put aside is for libevent itself, not for the callbacks that it calls. */
#define EVPY_CALL(call) \
	do { \
		int forks_before = evpy_forks; \
		struct evpy_aside *guarding = evpy_guarding; \
\
		evpy_guarding = NULL; \
		call; \
		evpy_guarding = guarding; \
		if (evpy_forks != forks_before) \
			(void)(evpy_forked() || evpy_forked()); \
	} while (0)

/* An interrupt may come where Python's function begins, before any of it has run. Then a function that returns 1 has
 * returned 0, and is called once more. */
#define EVPY_TELL(call) EVPY_CALL((void)((call) || (call)))

/* The same for one whose result counts. It must be an int. */
#define EVPY_NOT_CALLED -4
#define EVPY_ASK(result, call) \
	EVPY_CALL((void)(((result) = (call)) != EVPY_NOT_CALLED || ((result) = (call))))

/* The events whose callbacks this thread runs, the innermost first: more than one when a callback
 * runs another base's loop. event_base_get_running_event() can't be asked between callbacks (B8). */
struct evpy_running {
	uintptr_t key;
	struct evpy_running *outer;
};
static _Thread_local struct evpy_running *evpy_running;

static uintptr_t evpy_event_running(int depth)
{
	struct evpy_running *running = evpy_running;

	while (running != NULL && depth-- > 0)
		running = running->outer;
	return running == NULL ? 0 : running->key;
}

/* The base whose loop this thread runs, the innermost. */
static _Thread_local struct event_base *evpy_base_run;

static void evpy_on_event(evutil_socket_t fd, short what, void *key);

/* Free the event that runs, and has nobody left in Python. */
static void evpy_event_end(uintptr_t key)
{
	struct event *ev = event_base_get_running_event(evpy_base_run);

	if (ev != NULL && event_get_callback(ev) == evpy_on_event &&
	    event_get_callback_arg(ev) == (void *)key)
		event_free(ev);
}

/* Call the callback: between the steps of C no signal handler of Python's runs, so that no interrupt can come before the
 * callback has begun. */
static void evpy_event_callback(PyObject *event, struct evpy_event_state *state, short what)
{
	PyObject *callback = state->callback, *fd = state->fd, *done;

	evpy_set_member(&state->armed, state->then);
	Py_INCREF(callback);
	Py_INCREF(fd);
	done = PyObject_CallFunctionObjArgs(
	    callback, event, fd, PyTuple_GetItem(evpy_python.event_flags, what), NULL);
	Py_DECREF(fd);
	Py_DECREF(callback);
	if (done == NULL)
		evpy_tell(evpy_python.event_raised, event);
	else
		Py_DECREF(done);
}

/* Remove a key from a dictionary of a base's. */
static int evpy_forget_key(PyObject *kept, PyObject *key)
{
	if (PyDict_DelItem(kept, key) == 0)
		return 0;
	if (!PyErr_ExceptionMatches(PyExc_KeyError))
		return -1;
	PyErr_Clear();
	return 0;
}

/* Whether nothing in Python refers to the event any more, and this thread may free it. */
static int evpy_event_is_dropped(PyObject *event, const struct evpy_root_state *state)
{
	return Py_REFCNT(event) == 1 && (PyObject *)Py_TYPE(event) == evpy_python.event &&
	    state->parked == Py_None &&
	    PyLong_AsUnsignedLong(state->thread) == PyThread_get_thread_ident();
}

/* What C reads of a base; NULL with an exception if that is something else, which an attribute may be set to. */
static const struct evpy_root_state *evpy_root_state(PyObject *base)
{
	const struct evpy_root_state *state;

	if (PyObject_TypeCheck(base, evpy_root_class.type)) {
		state = EVPY_STATE(root, base);
		if (state->live != NULL && state->ledger != NULL && state->thread != NULL)
			return state;
	}
	PyErr_Format(PyExc_TypeError, "an event's base must be an EventBase, not an object of %R",
	    (PyObject *)Py_TYPE(base));
	return NULL;
}

/* Once it has fired for the last time, take it out of what C may call. Return 1 if C is to free the event, as nothing
 * in Python refers to it. */
static int evpy_event_fired_once(PyObject *event, PyObject *key)
{
	PyObject *base = PyObject_GetAttr(event, evpy_attribute.base);
	const struct evpy_root_state *state = base == NULL ? NULL : evpy_root_state(base);
	int dropped = 0;

	if (state != NULL && evpy_forget_key(state->live, key) >= 0 &&
	    evpy_event_is_dropped(event, state) && evpy_forget_key(state->ledger, key) >= 0 &&
	    PyObject_SetAttr(event, evpy_attribute.pointer, NULL) == 0 &&
	    PyObject_SetAttr(event, evpy_attribute.class_, evpy_python.event_closed) == 0)
		dropped = 1;
	Py_XDECREF(base);
	return dropped;
}

/* Have Python ask whether libevent has more calls for it: once more, if an interrupt has come. */
static void evpy_event_fired_last(PyObject *event)
{
	PyObject *done = PyObject_CallFunctionObjArgs(evpy_python.event_fired_last, event, NULL);

	if (done == NULL) {
		evpy_tell(evpy_python.kept, Py_None);
		done = PyObject_CallFunctionObjArgs(evpy_python.event_fired_last, event, NULL);
	}
	Py_XDECREF(done);
}

/* Note that the event has fired. Return 1 if C is to free it. */
static int evpy_event_fired(PyObject *event, struct evpy_event_state *state, PyObject *key)
{
	if (state->armed == Py_True || PyObject_IsTrue(state->armed))
		return 0;
	if (PyLong_AsLong(state->what) & (EV_SIGNAL | EV_PERSIST)) {
		evpy_event_fired_last(event);
		return 0;
	}
	evpy_set_member(&state->armed, Py_False);
	return evpy_event_fired_once(event, key);
}

/* Call Python. Return 1 if C is to free the event. */
static int evpy_event(uintptr_t key, short what)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *number = PyLong_FromUnsignedLongLong(key);
	PyObject *event = number == NULL ? NULL : evpy_live_object(number, &evpy_event_class);
	int dropped = 0;

	if (event != NULL) { /* or libevent is late */
		struct evpy_event_state *state = EVPY_STATE(event, event);

		evpy_event_callback(event, state, what);
		dropped = evpy_event_fired(event, state, number);
		Py_DECREF(event);
	}
	Py_XDECREF(number);
	evpy_keep_error();
	PyGILState_Release(gil);
	return dropped;
}

static void evpy_on_event(evutil_socket_t fd, short what, void *key)
{
	struct evpy_running running = {(uintptr_t)key, evpy_running};
	int dropped;

	(void)fd;
	evpy_running = &running;
	EVPY_CALL(dropped = evpy_event((uintptr_t)key, what));
	evpy_running = running.outer;
	if (dropped)
		evpy_event_end((uintptr_t)key);
}

static void evpy_on_finalize(struct event *ev, void *key)
{
	(void)ev;
	EVPY_TELL(evpy_finalize((uintptr_t)key));
}

/* Not static: by its name a trace tells the base's own events from a program's. */
void evpy_on_wake(evutil_socket_t fd, short what, void *key);
void evpy_on_wake(evutil_socket_t fd, short what, void *key)
{
	(void)fd;
	(void)what;
	EVPY_TELL(evpy_wake((uintptr_t)key));
}

/* Without memory, libevent goes on without the base's lock, or with a worse backend. */
static struct event_base *evpy_event_base_new_with_config(const struct event_config *config)
{
	struct event_base *base;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	base = event_base_new_with_config(config);
	if (base != NULL && evpy_missed(before)) {
		event_base_free(base);
		base = NULL;
	}
	evpy_unguard(before);
	return base;
}

/* The highest descriptor that a new base would get, or -1 if it can't get as many as it needs. Done in C, because
 * an interrupt in Python would leave some of them open. */
static int evpy_highest_reserved(void)
{
	int fds[6], highest = -1, n, error;

	for (n = 0; n < 6; ++n) {
		fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (fds[n] < 0)
			break;
		if (fds[n] > highest)
			highest = fds[n];
	}
	error = n < 6 ? errno : 0;
	while (n-- > 0)
		close(fds[n]);
	errno = error;
	return error == 0 ? highest : -1;
}

/* Whether a base of this configuration uses select; -1 if there can be none. */
static int evpy_config_uses_select(const struct event_config *config)
{
	struct event_base *base = evpy_event_base_new_with_config(config);
	int result;

	if (base == NULL)
		return -1;
	result = strcmp(event_base_get_method(base), "select") == 0;
	event_base_free(base);
	return result;
}

/* The last events that this thread has made, by key: an interrupt may come just before Python has the pointer of one,
 * and what raises it may have made others. */
#define EVPY_LAST_MADE 8

static _Thread_local struct {
	unsigned turn;
	struct {
		uintptr_t key;
		struct event *ev;
	} made[EVPY_LAST_MADE];
} evpy_last;

static struct event *evpy_event_new(
    struct event_base *base, evutil_socket_t fd, short what, uintptr_t key)
{
	struct event *ev = event_new(base, fd, what, evpy_on_event, (void *)key);
	unsigned place = evpy_last.turn++ % EVPY_LAST_MADE;

	evpy_last.made[place].key = key;
	evpy_last.made[place].ev = ev;
	return ev;
}

/* Free the event with this key, if it was made, as Python did not get it. */
static void evpy_event_unmake(uintptr_t key)
{
	int i;

	for (i = 0; i < EVPY_LAST_MADE; ++i)
		if (evpy_last.made[i].key == key && evpy_last.made[i].ev != NULL) {
			event_free(evpy_last.made[i].ev);
			evpy_last.made[i].ev = NULL;
		}
}

/* An event of the base's own; an internal one doesn't keep the loop alive. */
static struct event *evpy_wake_new(
    struct event_base *base, evutil_socket_t fd, short what, uintptr_t key, int internal)
{
	struct event *ev = event_new(base, fd, what, evpy_on_wake, (void *)key);

	if (ev != NULL) {
		if (internal)
			ev->ev_evcallback.evcb_flags |= EVLIST_INTERNAL;
		event_priority_set(ev, 0);
	}
	return ev;
}

/* To libevent, a tv_usec of a million or more marks a common timeout. */
static struct timeval evpy_timeval(double seconds)
{
	struct timeval tv;

	tv.tv_sec = (time_t)seconds;
	tv.tv_usec = (suseconds_t)((seconds - (double)tv.tv_sec) * 1e6 + 0.5);
	if (tv.tv_usec >= 1000000) {
		tv.tv_usec -= 1000000;
		++tv.tv_sec;
	}
	return tv;
}

/* libevent's sets grow as needed, but beyond FD_SETSIZE a fortified FD_SET() ends the process. */
static int evpy_beyond_select(const struct event_base *base, evutil_socket_t fd)
{
	return fd >= FD_SETSIZE && strcmp(event_base_get_method(base), "select") == 0;
}

/* Whether select can't wait for the next descriptor to be opened, which gets the lowest free number. */
static int evpy_next_beyond_select(const struct event_base *base)
{
	int fd;

	if (strcmp(event_base_get_method(base), "select") != 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		close(fd);
	return fd >= FD_SETSIZE;
}

static int evpy_is_stream(evutil_socket_t fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode));
}

/* With a changelist, only the loop calls epoll, and a refusal is only a warning in the log. So an epoll set of our
 * own is asked first. */
static int evpy_is_refused_later(struct event *ev)
{
	int refused = 0;
#ifdef __linux__
	struct epoll_event any = {0, {0}};
	int epoll;

	if (ev->ev_fd < 0 || !(ev->ev_events & (EV_READ | EV_WRITE | EV_CLOSED)) ||
	    strcmp(event_base_get_method(ev->ev_base), "epoll (with changelist)") != 0 ||
	    event_pending(ev, EV_READ | EV_WRITE | EV_CLOSED, NULL) || evpy_is_stream(ev->ev_fd))
		return 0;
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		return 1;
	refused = epoll_ctl(epoll, EPOLL_CTL_ADD, ev->ev_fd, &any) < 0;
	if (refused) {
		int error = errno;

		close(epoll);
		errno = error;
	} else {
		close(epoll);
	}
#else
	(void)ev;
#endif
	return refused;
}

/* Returned by what isn't done at all, because no memory can be put aside. */
#define EVPY_NOT_BEGUN -2

/* If there is no memory for its own event, libevent leaves the signal's handler in place. */
static int evpy_signal_add(struct event *ev, const struct timeval *tv)
{
	int before = evpy_guard(), pending = event_pending(ev, EV_SIGNAL, NULL), result = -1;

	if (before < 0)
		return -1;
	result = event_add(ev, tv);
	if (result == 0 && evpy_missed(before) && !pending) {
		event_del(ev);
		result = -1;
	}
	evpy_unguard(before);
	return result;
}

static int evpy_event_add_timeval(struct event *ev, const struct timeval *tv)
{
	if (evpy_beyond_select(ev->ev_base, ev->ev_fd)) {
		errno = EINVAL;
		return -1;
	}
	if (evpy_is_refused_later(ev))
		return -1;
	errno = 0;
	return ev->ev_events & EV_SIGNAL ? evpy_signal_add(ev, tv) : event_add(ev, tv);
}

/* What a base is woken by: by other threads, and by signals. */
struct evpy_wakers {
	const struct event *waker[2];
	int length;
};

static int evpy_collect_waker(const struct event_base *base, const struct event *ev, void *arg)
{
	struct evpy_wakers *found = arg;

	if (found->length < 2 && ev->ev_evcallback.evcb_flags & EVLIST_INTERNAL &&
	    event_get_fd(ev) >= 0 && event_get_callback_arg(ev) == base)
		found->waker[found->length++] = ev;
	return 0;
}

/* Have the base forget that it has been woken, by what libevent calls when it sees that. */
static void evpy_forget_waking(struct event_base *base)
{
	struct evpy_wakers found = {{NULL, NULL}, 0};

	event_base_foreach_event(base, evpy_collect_waker, &found);
	while (found.length-- > 0) {
		const struct event *waker = found.waker[found.length];

		event_get_callback(waker)(event_get_fd(waker), EV_READ, base);
	}
}

/* Without memory for the backend, event_reinit() ends the process. Returns EVPY_NOT_BEGUN if none can be put aside.
 *
 * Where an event can't be added again, event_reinit() leaves the base without what other threads wake it by, unless
 * it is `silent` and has none. And a thread that has woken the base, if the loop has not seen that yet, has woken it for
 * good: libevent notes that, and the descriptor that would tell the loop is closed. */
static int evpy_event_reinit(struct event_base *base, int silent)
{
	int before = evpy_guard(), result, error;

	if (before < 0)
		return EVPY_NOT_BEGUN;
	errno = 0;
	result = event_reinit(base);
	error = errno;
	if (!silent) {
		if (evthread_make_base_notifiable(base) < 0 && result == 0) {
			result = -1;
			error = errno;
		}
		evpy_forget_waking(base);
	}
	evpy_unguard(before);
	errno = error;
	return result;
}

/* Negative seconds mean no timeout. */
static int evpy_event_add(struct event *ev, double seconds)
{
	struct timeval tv;

	if (seconds < 0)
		return evpy_event_add_timeval(ev, NULL);
	tv = evpy_timeval(seconds);
	return evpy_event_add_timeval(ev, &tv);
}

/* Make a base's own timer fire in `seconds`; without memory for that, at once. */
static void evpy_event_rouse(struct event *timer, double seconds)
{
	if (evpy_event_add(timer, seconds) < 0)
		event_active(timer, EV_TIMEOUT, 1);
}

/* evconnlistener_new(), evconnlistener_set_cb() and the functions that make a bufferevent don't report that the
 * backend refuses the descriptor. */
static int evpy_is_refused(struct event_base *base, evutil_socket_t fd)
{
	struct event *ev = event_new(base, fd, EV_READ | EV_PERSIST, NULL, NULL);
	int refused = ev == NULL || evpy_event_add(ev, -1.0) < 0, error = errno;

	if (ev != NULL)
		event_free(ev);
	errno = error;
	return refused;
}

/* No backend refuses sockets and pipes. */
static int evpy_check_waitable(struct event_base *base, evutil_socket_t fd)
{
	return evpy_is_stream(fd) || !evpy_is_refused(base, fd) ? 0 : -1;
}

/* In the middle of a signal event's calls, event_active() would only make libevent forget the remaining ones. */
static void evpy_event_active_as(struct event *ev, int what, short ncalls)
{
	if (ev->ev_events & EV_SIGNAL && ev->ev_.ev_signal.ev_pncalls != NULL) {
		short *left = ev->ev_.ev_signal.ev_pncalls;

		*left = ncalls < SHRT_MAX - *left ? *left + ncalls : SHRT_MAX;
		ev->ev_res |= what;
		return;
	}
	event_active(ev, what, ncalls);
}

/* Activate it as its timeout would: this has one argument to convert instead of three. */
static void evpy_event_active(struct event *ev)
{
	evpy_event_active_as(ev, EV_TIMEOUT, 1);
}

/* In the middle of a signal event's calls, event_del() leaves behind a pointer to the number of calls, which is on
 * the stack of event_signal_closure(): when the event is next deleted, libevent would write there. */
static int evpy_event_del(struct event *ev, int block)
{
	int result;

	errno = 0;
	result = block < 0 ? event_del(ev) : block ? event_del_block(ev) : event_del_noblock(ev);
	if (ev->ev_events & EV_SIGNAL) {
		ev->ev_.ev_signal.ev_ncalls = 0;
		ev->ev_.ev_signal.ev_pncalls = NULL;
	}
	return result;
}

/* event_remove_timer() clears an I/O event's timeout; a signal event has its number of calls in that place. */
static int evpy_event_remove_timer(struct event *ev)
{
	short ncalls = ev->ev_.ev_signal.ev_ncalls;
	short *pncalls = ev->ev_.ev_signal.ev_pncalls;
	int result;

	errno = 0;
	result = event_remove_timer(ev);
	if (ev->ev_events & EV_SIGNAL) {
		ev->ev_.ev_signal.ev_ncalls = ncalls;
		ev->ev_.ev_signal.ev_pncalls = pncalls;
	}
	return result;
}

/* 1: libevent may still call the event. 2: it may do so until the event is deleted, whatever happens. */
static int evpy_event_stays(const struct event *ev)
{
	int flags = ev->ev_evcallback.evcb_flags;
	int waits = flags & (EVLIST_INSERTED | EVLIST_TIMEOUT);

	if (ev->ev_events & EV_SIGNAL) {
		/* Its timeout deletes even a persistent event. */
		int active = flags & (EVLIST_ACTIVE | EVLIST_ACTIVE_LATER);
		int in_calls =
		    ev->ev_.ev_signal.ev_pncalls != NULL && !event_base_got_break(ev->ev_base);

		return waits || (ev->ev_.ev_signal.ev_ncalls > 0 && (active || in_calls));
	}
	if (waits && ev->ev_events & EV_PERSIST) {
		/* libevent doesn't restart a timeout of 0, and then deletes even an event with a descriptor. */
		const struct timeval *again = &ev->ev_.ev_io.ev_timeout;

		return flags & EVLIST_TIMEOUT && !evutil_timerisset(again) ? 1 : 2;
	}
	return waits || flags & (EVLIST_ACTIVE | EVLIST_ACTIVE_LATER) ? 1 : 0;
}

static int evpy_finalize_event(struct event *ev)
{
	return event_free_finalize(0, ev, evpy_on_finalize);
}

/* event_base_once() would leave its base locked when the event can't be added (C7), and can't be cancelled. So
 * we use an event that frees itself when it fires, and a list of those that have not fired. */
struct evpy_once {
	struct event ev;
	uintptr_t key;
	struct evpy_once *next, **previous;
};

struct evpy_onces {
	struct event_base *base;
	struct evpy_once *first;
};

static struct evpy_onces *evpy_onces_new(struct event_base *base)
{
	struct evpy_onces *onces = evpy_calloc(1, sizeof *onces);

	if (onces != NULL)
		onces->base = base;
	return onces;
}

static void evpy_once_free(struct evpy_once *once)
{
	event_del(&once->ev);
	event_debug_unassign(&once->ev);
	*once->previous = once->next;
	if (once->next != NULL)
		once->next->previous = once->previous;
	evpy_free(once);
}

static void evpy_onces_free(struct evpy_onces *onces)
{
	while (onces->first != NULL)
		evpy_once_free(onces->first);
	evpy_free(onces);
}

/* Not static: see evpy_on_wake(). */
void evpy_on_once(evutil_socket_t fd, short what, void *arg);
void evpy_on_once(evutil_socket_t fd, short what, void *arg)
{
	uintptr_t key = ((struct evpy_once *)arg)->key;

	(void)fd;
	evpy_once_free(arg);
	EVPY_TELL(evpy_once_fired(key, what));
}

static int evpy_once_add(
    struct evpy_onces *onces, uintptr_t key, double seconds, evutil_socket_t fd, short what)
{
	struct evpy_once *once = evpy_malloc(sizeof *once);

	if (once == NULL ||
	    event_assign(&once->ev, onces->base, fd, what, evpy_on_once, once) < 0) {
		evpy_free(once);
		errno = ENOMEM;
		return -1;
	}
	once->key = key;
	once->next = onces->first;
	once->previous = &onces->first;
	if (once->next != NULL)
		once->next->previous = &once->next;
	onces->first = once;
	if (fd < 0 && seconds <= 0) {
		/* As in event_base_once(): don't use the timer heap; first come, first served. */
		event_active(&once->ev, EV_TIMEOUT, 1);
	} else if (evpy_event_add(&once->ev, seconds) < 0) {
		int error = errno;

		evpy_once_free(once);
		errno = error;
		return -1;
	}
	return 0;
}

/* The same without a descriptor: two arguments fewer to convert. */
static int evpy_once_timer(struct evpy_onces *onces, uintptr_t key, double seconds)
{
	return evpy_once_add(onces, key, seconds, -1, 0);
}

struct evpy_keys {
	uintptr_t *keys;
	size_t length, room;
};

/* The beginning of what aio.c and aio_stream.c make, whose events C itself calls. */
struct evpy_keyed {
	struct event ev;
	uintptr_t key;
};

void evpy_on_step(evutil_socket_t fd, short what, void *arg);
void evpy_on_stream(evutil_socket_t fd, short what, void *arg);

/* The key of the object that an event belongs to; 0 if it isn't ours. */
static uintptr_t evpy_event_key(const struct event *ev)
{
	event_callback_fn callback = event_get_callback(ev);

	if (callback == evpy_on_event)
		return (uintptr_t)event_get_callback_arg(ev);
	if (callback == evpy_on_step || callback == evpy_on_stream)
		return ((const struct evpy_keyed *)event_get_callback_arg(ev))->key;
	return 0;
}

static int evpy_collect_key(const struct event_base *base, const struct event *ev, void *arg)
{
	struct evpy_keys *found = arg;
	uintptr_t key = evpy_event_key(ev);

	(void)base;
	if (key != 0) {
		if (found->length < found->room)
			found->keys[found->length] = key;
		++found->length;
	}
	return 0;
}

/* Write the keys of up to `room` of our pending events to `keys`; return how many there are. */
static size_t evpy_event_keys(struct event_base *base, uintptr_t *keys, size_t room)
{
	struct evpy_keys found = {keys, 0, room};

	event_base_foreach_event(base, evpy_collect_key, &found);
	return found.length;
}

/* The text is malloc()ed; NULL and errno when there is no memory. */
static char *evpy_dump_events(struct event_base *base)
{
	char *text = NULL;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);

	if (stream == NULL)
		return NULL;
	event_base_dump_events(base, stream);
	if (fclose(stream) != 0) {
		int error = errno;

		evpy_free(text);
		errno = error;
		return NULL;
	}
	return text;
}

/* The timer that brings the loop of this thread to a clean moment, or NULL. */
static _Thread_local struct event *evpy_waker;

/* The errno by which the kernel has refused, for want of room, to watch a descriptor; 0 if it has not. Some functions
 * fail then, and whoever tells of that forgets it. Others only log it, and then libevent waits for ever: so the
 * loop of this thread tells of it. */
static _Thread_local int evpy_unwatched;

static int evpy_loop_unwatched(void)
{
	int error = evpy_unwatched;

	evpy_unwatched = 0;
	return error;
}

/* Without some memory libevent crashes where it accepts a connection for evhttp, or makes ready for the next request on one.
 * So what is kept for that may be used only if the loop ends with that callback, and only a little at once. */

/* Whether the loop that this thread runs ends because of that, and the listener that accepts nothing until then. */
static _Thread_local int evpy_ran_out;
static _Thread_local struct evconnlistener *evpy_paused;

/* Called right before libevent needs that memory. Return whether the loop ends: then there must be no second time. */
static int evpy_loop_spend(void)
{
	if (!evpy_loop_spends())
		return 0;
	evpy_ran_out = 1;
	event_base_loopbreak(evpy_base_run);
	return 1;
}

/* The same inside a listener's callback: it would accept all that wait, in one call of libevent's own callback. */
static void evpy_loop_spend_accepting(void)
{
	struct event *ev;

	if (evpy_loop_spend()) {
		ev = event_base_get_running_event(evpy_base_run);
		evpy_paused = event_get_callback_arg(ev); /* every listener's event has it */
		evconnlistener_disable(evpy_paused);
	}
}

/* Run the base's loop. Its own timer `waker` is activated when libevent drops a reference to something that Python
 * keeps alive, as there may be no other event for long. EVPY_RAN_SHORT is added to the result if libevent has used
 * memory that was put aside, or evpy_loop_unwatched() has something to tell. Without memory the result is EVPY_NOT_BEGUN,
 * too, if the loop has ended by evpy_loop_spend(). */
#define EVPY_RAN_SHORT 16

static int evpy_loop(struct event_base *base, int flags, struct event *waker)
{
	struct event *outer = evpy_waker;
	struct event_base *outer_base = evpy_base_run;
	struct evpy_aside *outer_aside;
	int result, missed, error;

	if (evpy_loop_begin(&outer_aside) < 0)
		return EVPY_NOT_BEGUN;
	evpy_waker = waker;
	evpy_base_run = base;
	errno = 0;
	result = event_base_loop(base, flags);
	evpy_waker = outer;
	evpy_base_run = outer_base;
	error = errno;
	missed = evpy_loop_missed();
	if (evpy_paused != NULL)
		evconnlistener_enable(evpy_paused);
	evpy_paused = NULL;
	errno = error;
	if (evpy_ran_out) {
		result = EVPY_NOT_BEGUN;
		errno = ENOMEM;
	} else if (missed > 0 || evpy_unwatched != 0) {
		result += EVPY_RAN_SHORT;
	}
	evpy_ran_out = 0;
	evpy_loop_end(outer_aside);
	return result;
}

/* Not static: see evpy_on_wake(). */
void evpy_on_turned(evutil_socket_t fd, short what, void *arg);
void evpy_on_turned(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

/* Run one turn of the loop, as evpy_loop() does, that waits for `seconds` at most; if negative, without end. */
static int evpy_turn(struct event_base *base, double seconds, struct event *waker)
{
	struct event end;
	int result, error;

	if (seconds <= 0)
		return evpy_loop(
		    base, seconds < 0 ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK, waker);
	if (event_assign(&end, base, -1, 0, evpy_on_turned, NULL) < 0)
		return EVPY_NOT_BEGUN;
	result = evpy_event_add(&end, seconds) < 0 ? EVPY_NOT_BEGUN
						   : evpy_loop(base, EVLOOP_ONCE, waker);
	error = errno;
	event_del(&end);
	event_debug_unassign(&end);
	errno = error;
	return result;
}
