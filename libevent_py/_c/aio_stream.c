
/* What asyncio's transports read and write by, for libevent_py/aio/transports.py, which explains it; and the classes
 * of aio.c. */

#include <sys/uio.h>

/* A stream holds back so many pieces, or bytes, at most. */
#define EVPY_PIECES 16
#define EVPY_HELD (64 * 1024)

#ifndef MSG_NOSIGNAL /* Python ignores SIGPIPE */
#define MSG_NOSIGNAL 0
#endif

/* What libevent calls when a socket is readable. */
struct evpy_stream {
	struct event ev;
	uintptr_t key;
	struct evpy_stream_object *object; /* NULL when that is gone */
	struct evpy_bowl *bowl;
	int running, freed;
};

/* The same as Python sees it, and keeps it alive: it has what is called. */
struct evpy_stream_object {
	PyObject ob_base;
	struct evpy_core *core;
	PyObject *context, *protocol, *transport;
	struct evpy_stream *reading; /* NULL when nothing waits for it */
	int fd;
	char open; /* whether what is written may go to the socket without asking Python */
	int pieces;
	Py_ssize_t held; /* bytes in the pieces */
	PyObject *piece[EVPY_PIECES];
	struct evpy_stream_object *next, **previous; /* those that hold something back */
};

static void evpy_cork(struct evpy_core *core)
{
	if (core->corking++ == 0)
		core->forks = evpy_forks;
}

/* Take a stream out of the list of those that hold something back. */
static void evpy_stream_unlink(struct evpy_stream_object *stream)
{
	if (stream->previous == NULL)
		return;
	*stream->previous = stream->next;
	if (stream->next != NULL)
		stream->next->previous = stream->previous;
	stream->next = NULL;
	stream->previous = NULL;
	Py_DECREF(stream); /* whoever calls this has one more */
}

/* Send at once; like send(), but what is interrupted counts as not sent. */
static ssize_t evpy_send(int fd, struct iovec *vector, int n, int *error)
{
	struct msghdr message;
	ssize_t sent;

	if (n == 1) {
		sent = send(fd, vector->iov_base, vector->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	} else {
		memset(&message, 0, sizeof message);
		message.msg_iov = vector;
		message.msg_iovlen = (size_t)n;
		sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	*error = sent < 0 ? errno : 0;
	if (*error == EWOULDBLOCK || *error == EINTR)
		*error = EAGAIN;
	return sent < 0 ? 0 : sent;
}

/* Give Python what was not sent, and why: 0 or EAGAIN when the socket took no more. Return -1 with an exception. */
static int evpy_stream_give_back(struct evpy_stream_object *stream, PyObject *rest, int error)
{
	PyObject *why, *transport = stream->transport, *done = NULL;

	if (transport == NULL) /* it is gone */
		return 0;
	Py_INCREF(transport);
	why = PyLong_FromLong(error);
	if (why != NULL)
		done = PyObject_CallMethodObjArgs(transport, evpy_names.unsent, rest, why, NULL);
	Py_DECREF(transport);
	Py_XDECREF(why);
	Py_XDECREF(done);
	return done == NULL ? -1 : 0;
}

/* Join what is left of the pieces after the first `sent` bytes. */
static PyObject *evpy_join(PyObject **piece, int n, Py_ssize_t sent, Py_ssize_t all)
{
	PyObject *rest = PyBytes_FromStringAndSize(NULL, all - sent);
	char *to = rest == NULL ? NULL : PyBytes_AsString(rest);
	int i;

	for (i = 0; i < n && to != NULL; ++i) {
		Py_ssize_t length = PyBytes_Size(piece[i]);
		Py_ssize_t from = sent < length ? sent : length;

		memcpy(to, PyBytes_AsString(piece[i]) + from, (size_t)(length - from));
		to += length - from;
		sent -= from;
	}
	return rest;
}

/* Send what is held back. Return -1 with an exception. */
static int evpy_stream_flush(struct evpy_stream_object *stream)
{
	struct iovec vector[EVPY_PIECES];
	PyObject *piece[EVPY_PIECES], *rest;
	Py_ssize_t held = stream->held;
	ssize_t sent = 0;
	int n = stream->pieces, i, error = 0, result = 0;

	evpy_stream_unlink(stream);
	if (n == 0)
		return 0;
	for (i = 0; i < n; ++i) {
		piece[i] = stream->piece[i];
		vector[i].iov_base = PyBytes_AsString(piece[i]);
		vector[i].iov_len = (size_t)PyBytes_Size(piece[i]);
	}
	stream->pieces = 0;
	stream->held = 0;
	if (stream->core == NULL ||
	    stream->core->forks == evpy_forks) { /* a forked child's parent sends it */
		if (stream->open)
			sent = evpy_send(stream->fd, vector, n, &error);
		if (sent < held) {
			rest = evpy_join(piece, n, sent, held);
			result = rest == NULL ? -1 : evpy_stream_give_back(stream, rest, error);
			Py_XDECREF(rest);
		}
	}
	for (i = 0; i < n; ++i)
		Py_DECREF(piece[i]);
	return result;
}

/* Send what all streams have held back. */
static void evpy_uncork_all(struct evpy_core *core)
{
	if (core->corking > 1) {
		--core->corking;
		return;
	}
	while (core->corked != NULL) {
		struct evpy_stream_object *stream = core->corked;

		Py_INCREF(stream);
		if (evpy_stream_flush(stream) < 0)
			evpy_core_report(core);
		Py_DECREF(stream);
	}
	core->corking = 0;
}

/* Hold back a piece until the callback returns that writes it. The list keeps the stream, and so its transport, which
 * the callback may drop: what it has written is sent all the same. */
static void evpy_stream_hold(struct evpy_stream_object *stream, PyObject *data, Py_ssize_t size)
{
	struct evpy_core *core = stream->core;

	stream->piece[stream->pieces++] = evpy_new_ref(data);
	stream->held += size;
	if (stream->previous == NULL) {
		stream->next = core->corked;
		stream->previous = &core->corked;
		if (stream->next != NULL)
			stream->next->previous = &stream->next;
		core->corked = stream;
		Py_INCREF(stream);
	}
}

static PyObject *evpy_stream_write(PyObject *self, PyObject *data)
{
	struct evpy_stream_object *stream = (struct evpy_stream_object *)self;
	struct iovec vector;
	Py_ssize_t size;
	PyObject *rest;
	ssize_t sent;
	int error, failed;

	if (!stream->open || stream->core == NULL || !PyBytes_CheckExact(data)) {
		if (evpy_stream_flush(stream) < 0 || evpy_stream_give_back(stream, data, 0) < 0)
			return NULL;
		return evpy_new_ref(Py_None);
	}
	size = PyBytes_Size(data);
	if (size == 0)
		return evpy_new_ref(Py_None);
	if (stream->pieces == EVPY_PIECES || stream->held + size > EVPY_HELD) {
		if (evpy_stream_flush(stream) < 0)
			return NULL;
		if (!stream->open) /* the socket has taken no more, or failed */
			return evpy_stream_write(self, data);
	}
	if (stream->core->corking > 0 && size <= EVPY_HELD && stream->core->forks == evpy_forks) {
		evpy_stream_hold(stream, data, size);
		return evpy_new_ref(Py_None);
	}
	vector.iov_base = PyBytes_AsString(data);
	vector.iov_len = (size_t)size;
	sent = evpy_send(stream->fd, &vector, 1, &error);
	if (sent < size) {
		rest = evpy_join(&data, 1, sent, size);
		failed = rest == NULL ? -1 : evpy_stream_give_back(stream, rest, error);
		Py_XDECREF(rest);
		if (failed < 0)
			return NULL;
	}
	return evpy_new_ref(Py_None);
}

static PyObject *evpy_stream_flush_(PyObject *self, PyObject *none)
{
	(void)none;
	if (evpy_stream_flush((struct evpy_stream_object *)self) < 0)
		return NULL;
	return evpy_new_ref(Py_None);
}

/* Tell the transport of what its protocol has raised, which is set. Return -1 with an exception that ends the program. */
static int evpy_stream_failed(struct evpy_stream_object *stream, PyObject *context)
{
	PyObject *transport = stream->transport, *error, *failed, *done = NULL;
	struct evpy_handled outer;

	if (transport == NULL || evpy_ends())
		return -1;
	Py_INCREF(transport);
	error = evpy_take_error();
	failed = error == NULL ? NULL : PyObject_GetAttr(transport, evpy_names.failed);
	if (failed != NULL) {
		evpy_except_begin(&outer, error);
		done = PyObject_CallFunctionObjArgs(evpy_aio.run, context, failed, error, NULL);
		evpy_except_end(&outer);
		Py_DECREF(failed);
	}
	Py_XDECREF(error);
	Py_DECREF(transport);
	Py_XDECREF(done);
	return done == NULL ? -1 : 0;
}

/* Call the method of `object`, the protocol or the transport, that is told of input, an end or an error. It is looked
 * up each time, as asyncio does: a program may have replaced it. Return -1 with an exception that ends the program. */
static int evpy_stream_call(
    struct evpy_stream_object *stream, PyObject *object, PyObject *name, PyObject *argument)
{
	PyObject *context = stream->context, *function, *done = NULL;
	int result = 0;

	if (object == NULL || context == NULL || argument == NULL) {
		Py_XDECREF(argument);
		return PyErr_Occurred() ? -1 : 0;
	}
	Py_INCREF(object);
	Py_INCREF(context);
	function = PyObject_GetAttr(object, name);
	if (function != NULL)
		done =
		    PyObject_CallFunctionObjArgs(evpy_aio.run, context, function, argument, NULL);
	if (done == NULL)
		result = evpy_stream_failed(stream, context);
	Py_XDECREF(done);
	Py_XDECREF(function);
	Py_DECREF(argument);
	Py_DECREF(context);
	Py_DECREF(object);
	return result;
}

/* After a callback that may have made something ready: run that, unless others were ready before it. */
static void evpy_core_go_on(struct evpy_core *core)
{
	if (core->stopping == Py_True) { /* after the other descriptors' callbacks */
		if (evpy_call_method((PyObject *)core, evpy_names.exit) < 0)
			evpy_core_report(core);
	} else if (PyObject_Size(core->ready) != 0) {
		evpy_core_step(core);
	} else if (evpy_core_arm(core) < 0) {
		evpy_core_report(core);
	}
}

static void evpy_stream_run(struct evpy_stream *reading)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	struct evpy_stream_object *stream = reading->object;
	struct evpy_core *core;
	ssize_t got;
	int error, first, ends;

	if (stream == NULL || stream->core == NULL) {
		PyGILState_Release(gil);
		return;
	}
	got = recv(stream->fd, reading->bowl->bytes, sizeof reading->bowl->bytes, MSG_DONTWAIT);
	error = errno;
	if (got < 0 && (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)) {
		PyGILState_Release(gil);
		return;
	}
	core = stream->core;
	first = core->idle;
	Py_INCREF(stream);
	Py_INCREF(core);
	core->idle = 0;
	evpy_cork(core);
	if (got > 0)
		ends = evpy_stream_call(stream, stream->protocol, evpy_names.data_received,
		    PyBytes_FromStringAndSize(reading->bowl->bytes, got));
	else
		ends = evpy_stream_call(stream, stream->transport, evpy_names.ended,
		    PyLong_FromLong(got == 0 ? 0 : error));
	if (ends < 0)
		evpy_core_report(core);
	if (first)
		evpy_core_go_on(core);
	evpy_uncork_all(core);
	Py_DECREF(core);
	Py_DECREF(stream);
	PyGILState_Release(gil);
}

/* By its name a trace tells the loop's own events from a program's. */
void evpy_on_stream(evutil_socket_t fd, short what, void *arg)
{
	struct evpy_stream *reading = arg;
	struct evpy_running running = {reading->key, evpy_running};

	(void)fd;
	(void)what;
	++reading->running;
	evpy_running = &running;
	EVPY_CALL(evpy_stream_run(reading));
	evpy_running = running.outer;
	if (--reading->running == 0 && reading->freed)
		evpy_free(reading);
}

/* Make the event by which `stream`, an evpy_stream_object, reads; it is freed by evpy_stream_free(). */
static struct event *evpy_stream_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t stream, uintptr_t key)
{
	struct evpy_stream *reading = evpy_calloc(1, sizeof *reading);
	PyGILState_STATE gil;

	if (reading == NULL)
		return NULL;
	if (event_assign(&reading->ev, base, fd, EV_READ | EV_PERSIST, evpy_on_stream, reading) <
	    0) {
		evpy_free(reading);
		errno = ENOMEM;
		return NULL;
	}
	gil = PyGILState_Ensure();
	reading->key = key;
	reading->object = (struct evpy_stream_object *)stream;
	reading->object->reading = reading;
	reading->bowl = reading->object->core->bowl;
	++reading->bowl->users;
	PyGILState_Release(gil);
	return &reading->ev;
}

static void evpy_stream_free(struct event *ev)
{
	struct evpy_stream *reading = (struct evpy_stream *)ev;
	PyGILState_STATE gil;

	event_del(ev);
	event_debug_unassign(ev);
	gil = PyGILState_Ensure();
	if (reading->object != NULL && reading->object->reading == reading)
		reading->object->reading = NULL;
	reading->object = NULL;
	evpy_bowl_leave(reading->bowl);
	reading->freed = 1;
	if (!reading->running)
		evpy_free(reading);
	PyGILState_Release(gil);
}

/* The classes. */

static int evpy_stream_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct evpy_stream_object *stream = (struct evpy_stream_object *)self;

	Py_VISIT(Py_TYPE(self));
	Py_VISIT((PyObject *)stream->core);
	Py_VISIT(stream->context);
	Py_VISIT(stream->protocol);
	Py_VISIT(stream->transport);
	return 0;
}

static int evpy_stream_clear(PyObject *self)
{
	struct evpy_stream_object *stream = (struct evpy_stream_object *)self;
	PyObject *core = (PyObject *)stream->core;

	stream->open = 0;
	evpy_stream_unlink(stream);
	stream->core = NULL;
	if (stream->reading != NULL)
		stream->reading->object = NULL;
	stream->reading = NULL;
	while (stream->pieces > 0)
		Py_DECREF(stream->piece[--stream->pieces]);
	stream->held = 0;
	Py_XDECREF(core);
	Py_CLEAR(stream->context);
	Py_CLEAR(stream->protocol);
	Py_CLEAR(stream->transport);
	return 0;
}

static void evpy_stream_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	evpy_stream_clear(self);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* Stream(loop, fd) */
static int evpy_stream_init(PyObject *self, PyObject *args, PyObject *keywords)
{
	struct evpy_stream_object *stream = (struct evpy_stream_object *)self;
	PyObject *loop;
	int fd;

	(void)keywords;
	if (!PyArg_ParseTuple(args, "O!i", (PyObject *)evpy_aio.core, &loop, &fd))
		return -1;
	if (((struct evpy_core *)loop)->bowl == NULL || stream->core != NULL) {
		PyErr_SetString(PyExc_RuntimeError, "the loop has not begun, or the stream has");
		return -1;
	}
	stream->core = (struct evpy_core *)evpy_new_ref(loop);
	stream->fd = fd;
	return 0;
}

/* Let go of all that it calls: nothing is read any more, and what is written is forgotten. */
static PyObject *evpy_stream_end(PyObject *self, PyObject *none)
{
	(void)none;
	evpy_stream_clear(self);
	return evpy_new_ref(Py_None);
}

/* A timer's place in the heap. All else is asyncio's own. */
static PyObject *evpy_timer_compare(PyObject *one, PyObject *other, int how)
{
	static const char *const names[] = {
	    "__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"};
	struct evpy_timer *left = evpy_timer_of(one), *right = evpy_timer_of(other);
	PyObject *compare, *result;

	if (how == Py_LT && left != NULL && right != NULL && left->when != NULL &&
	    right->when != NULL) {
		double a = PyFloat_AsDouble(left->when), b = PyFloat_AsDouble(right->when);

		if (PyErr_Occurred())
			return NULL;
		return evpy_new_ref(a < b ? Py_True : Py_False);
	}
	compare = PyObject_GetAttrString(
	    (PyObject *)PyType_GetSlot(evpy_aio.timer, Py_tp_base), names[how]);
	if (compare == NULL)
		return NULL;
	result = PyObject_CallFunctionObjArgs(compare, one, other, NULL);
	Py_DECREF(compare);
	return result;
}

static Py_hash_t evpy_timer_hash(PyObject *self)
{
	struct evpy_timer *timer = evpy_timer_of(self);

	if (timer != NULL && timer->when != NULL)
		return PyObject_Hash(timer->when);
	PyErr_SetString(PyExc_AttributeError, "_when");
	return -1;
}

#define EVPY_OBJECT(name, type, member) {name, T_OBJECT_EX, offsetof(type, member), 0, NULL}

static PyMemberDef evpy_core_members[] = {
    EVPY_OBJECT("_ready", struct evpy_core, ready),
    EVPY_OBJECT("_scheduled", struct evpy_core, scheduled),
    EVPY_OBJECT("_debug", struct evpy_core, debug),
    EVPY_OBJECT("_closed", struct evpy_core, closed),
    EVPY_OBJECT("_stopping", struct evpy_core, stopping),
    {"_timer_cancelled_count", T_INT, offsetof(struct evpy_core, cancelled_count), 0, NULL},
    {"_clock_resolution", T_DOUBLE, offsetof(struct evpy_core, resolution), 0, NULL},
    {"_idle", T_BOOL, offsetof(struct evpy_core, idle), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define EVPY_METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef evpy_core_methods[] = {
    {"call_soon", EVPY_METHOD(evpy_core_call_soon), METH_FASTCALL | METH_KEYWORDS,
	"call_soon($self, callback, *args, context=None)\n--\n\n"
	"Have ``callback(*args)`` called in the next turn, in the order of the calls."},
    {"call_later", EVPY_METHOD(evpy_core_call_later), METH_FASTCALL | METH_KEYWORDS,
	"call_later($self, delay, callback, *args, context=None)\n--\n\n"
	"Have ``callback(*args)`` called in *delay* seconds."},
    {"call_at", EVPY_METHOD(evpy_core_call_at), METH_FASTCALL | METH_KEYWORDS,
	"call_at($self, when, callback, *args, context=None)\n--\n\n"
	"Have ``callback(*args)`` called when `time` is *when*, in seconds."},
    {"time", evpy_core_get_time, METH_NOARGS,
	"time($self, /)\n--\n\nReturn the time of the loop's clock, in seconds: `time.monotonic`."},
    {"_arm", evpy_core_arm_, METH_NOARGS, "Have the step run when there is something to do."},
    {"_begin", evpy_core_begin, METH_NOARGS, "Begin to use the queue that asyncio has made."},
    {NULL, NULL, 0, NULL},
};

/* Closed until it is made. */
static PyObject *evpy_core_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	PyObject *self = PyType_GenericAlloc(type, 0);
	struct evpy_core *core = (struct evpy_core *)self;

	(void)args;
	(void)keywords;
	if (core != NULL) {
		core->closed = evpy_new_ref(Py_True);
		core->debug = evpy_new_ref(Py_False);
		core->stopping = evpy_new_ref(Py_False);
	}
	return self;
}

static PyType_Slot evpy_core_slots[] = {
    {Py_tp_new, evpy_core_new},
    {Py_tp_doc, "The queue, the timers and the turns of an asyncio loop, in C."},
    {Py_tp_members, evpy_core_members},
    {Py_tp_methods, evpy_core_methods},
    {Py_tp_traverse, evpy_core_traverse},
    {Py_tp_clear, evpy_core_clear},
    {Py_tp_dealloc, evpy_core_dealloc},
    {0, NULL},
};

static PyType_Spec evpy_core_spec = {
    "libevent_py.aio.native.Core",
    sizeof(struct evpy_core),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    evpy_core_slots,
};

static PyMemberDef evpy_stream_members[] = {
    {"context", T_OBJECT, offsetof(struct evpy_stream_object, context), 0, NULL},
    {"protocol", T_OBJECT, offsetof(struct evpy_stream_object, protocol), 0, NULL},
    {"transport", T_OBJECT, offsetof(struct evpy_stream_object, transport), 0, NULL},
    {"open", T_BOOL, offsetof(struct evpy_stream_object, open), 0, NULL},
    {"held", T_PYSSIZET, offsetof(struct evpy_stream_object, held), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef evpy_stream_methods[] = {
    {"write", evpy_stream_write, METH_O,
	"write($self, data, /)\n--\n\nWrite *data* to the transport."},
    {"flush", evpy_stream_flush_, METH_NOARGS, "Send what is held back."},
    {"end", evpy_stream_end, METH_NOARGS, "Let go of everything."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot evpy_stream_slots[] = {
    {Py_tp_doc, "Stream(loop, fd): what a transport reads and writes by."},
    {Py_tp_init, evpy_stream_init},
    {Py_tp_members, evpy_stream_members},
    {Py_tp_methods, evpy_stream_methods},
    {Py_tp_traverse, evpy_stream_traverse},
    {Py_tp_clear, evpy_stream_clear},
    {Py_tp_dealloc, evpy_stream_dealloc},
    {0, NULL},
};

static PyType_Spec evpy_stream_spec = {
    "libevent_py.aio.native.Stream",
    sizeof(struct evpy_stream_object),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    evpy_stream_slots,
};

/* Their places are counted from where asyncio's own handle ends; those of a timer stand behind those of a handle. */
static const char *const evpy_handle_names[] = {"_callback", "_args", "_context", "_loop",
    "_cancelled", "_repr", "_source_traceback", "_when", "_scheduled"};

#define EVPY_HANDLE_MEMBERS (sizeof(struct evpy_handle) / sizeof(PyObject *))
#define EVPY_TIMER_MEMBERS (EVPY_HANDLE_MEMBERS + sizeof(struct evpy_timer) / sizeof(PyObject *))

static PyObject *evpy_imported(const char *module, const char *name)
{
	PyObject *imported = PyImport_ImportModule(module);
	PyObject *found = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);

	Py_XDECREF(imported);
	return found;
}

static int evpy_aio_make(void)
{
	PyObject *handle = evpy_imported("asyncio", "Handle"),
		 *timer = evpy_imported("asyncio", "TimerHandle"),
		 *context = evpy_imported("contextvars", "Context");
	PyType_Slot plain[] = {{0, NULL}, {0, NULL}};
	PyType_Slot ordered[] = {{0, NULL}, {Py_tp_richcompare, evpy_timer_compare},
	    {Py_tp_hash, evpy_timer_hash}, {0, NULL}};

	if (handle != NULL && timer != NULL && context != NULL) {
		evpy_aio.copy_context = evpy_imported("contextvars", "copy_context");
		evpy_aio.run = PyObject_GetAttrString(context, "run");
		evpy_aio.monotonic = evpy_imported("time", "monotonic");
		evpy_aio.heappush = evpy_imported("heapq", "heappush");
		evpy_aio.heappop = evpy_imported("heapq", "heappop");
		evpy_aio.handle =
		    evpy_extended("libevent_py.aio.native.Handle", handle, evpy_handle_names,
			EVPY_HANDLE_MEMBERS, plain, Py_TPFLAGS_DEFAULT, &evpy_aio.handle_at);
		evpy_aio.timer =
		    evpy_extended("libevent_py.aio.native.TimerHandle", timer, evpy_handle_names,
			EVPY_TIMER_MEMBERS, ordered, Py_TPFLAGS_DEFAULT, &evpy_aio.timer_at);
		evpy_aio.core = (PyTypeObject *)PyType_FromSpec(&evpy_core_spec);
		evpy_aio.stream = (PyTypeObject *)PyType_FromSpec(&evpy_stream_spec);
	}
	Py_XDECREF(handle);
	Py_XDECREF(timer);
	Py_XDECREF(context);
	return PyErr_Occurred() ? -1 : 0;
}

static void evpy_aio_name(void)
{
#define EVPY_NAME(name) evpy_names.name = PyUnicode_InternFromString("_" #name)
	EVPY_NAME(cancelled);
	EVPY_NAME(when);
	EVPY_NAME(scheduled);
	EVPY_NAME(call_soon_slowly);
	EVPY_NAME(call_later_slowly);
	EVPY_NAME(call_at_slowly);
	EVPY_NAME(step_slowly);
	EVPY_NAME(rouse);
	EVPY_NAME(sooner);
	EVPY_NAME(handle_failed);
	EVPY_NAME(report);
	EVPY_NAME(remove_cancelled);
	EVPY_NAME(ended);
	EVPY_NAME(failed);
	EVPY_NAME(unsent);
	evpy_names.run_later = PyUnicode_InternFromString("_run");
	evpy_names.break_ = PyUnicode_InternFromString("_break");
	evpy_names.exit = PyUnicode_InternFromString("_exit");
	evpy_names.time = PyUnicode_InternFromString("time");
	evpy_names.data_received = PyUnicode_InternFromString("data_received");
	evpy_names.context = PyUnicode_InternFromString("context");
}

/* Put the classes into the dict `names`. Return -1 when that fails: for want of memory, or of what they are made of. */
static int evpy_aio_classes(uintptr_t names)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *dict = (PyObject *)names;

	if (evpy_aio.core == NULL) {
		evpy_aio_name();
		if (PyErr_Occurred() || evpy_aio_make() < 0)
			PyErr_Print();
	}
	if (evpy_aio.stream != NULL) {
		PyDict_SetItemString(dict, "Core", (PyObject *)evpy_aio.core);
		PyDict_SetItemString(dict, "Handle", (PyObject *)evpy_aio.handle);
		PyDict_SetItemString(dict, "TimerHandle", (PyObject *)evpy_aio.timer);
		PyDict_SetItemString(dict, "Stream", (PyObject *)evpy_aio.stream);
	}
	PyGILState_Release(gil);
	return evpy_aio.stream == NULL ? -1 : 0;
}
