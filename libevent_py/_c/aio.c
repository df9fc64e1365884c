
/* asyncio's handles, ready queue and turns, for libevent_py/aio/native.py, which explains them.
 *
 * This calls Python by Python's own (limited) API, as cffi's callbacks would cost more than all the rest. What is
 * called by libevent takes the GIL first. */

#include <Python.h>
#include <structmember.h>
#include <math.h>

/* What is made once, and kept until the process ends. */
static struct {
	PyObject *cancelled, *run_later, *when, *scheduled, *call_soon_slowly, *call_later_slowly,
	    *call_at_slowly, *step_slowly, *rouse, *sooner, *break_, *exit, *handle_failed, *report,
	    *remove_cancelled, *context, *time, *ended, *failed, *unsent, *data_received;
} evpy_names;

static struct {
	PyTypeObject *core, *handle, *timer, *stream;
	PyObject *copy_context, *run, *monotonic, *heappush, *heappop;
	Py_ssize_t handle_at, timer_at; /* where our own members of a handle and of a timer begin */
} evpy_aio;

/* What a handle has beyond asyncio's own, whose attributes these are in place of: Python's are slots, which C can't
 * reach. */
struct evpy_handle {
	PyObject *callback, *args, *context, *loop, *cancelled, *repr, *traceback;
};

struct evpy_timer {
	PyObject *when, *scheduled;
};

/* The memory that all streams of a loop read into. */
struct evpy_bowl {
	int users;
	char bytes[EVPY_ARENA];
};

struct evpy_stream_object;

/* The base class of a loop, in C. */
struct evpy_core {
	PyObject ob_base;
	PyObject *ready, *scheduled, *debug, *closed, *stopping;
	PyObject *append, *popleft; /* of `ready` */
	int cancelled_count;
	char idle;
	double resolution;
	double armed; /* what the first timer's time was when the step was made to wait for it */
	struct evpy_step *step;
	struct evpy_bowl *bowl;
	int corking, forks;
	struct evpy_stream_object *corked; /* the streams that hold back what is written */
};

/* What libevent calls when a loop has something to do. */
struct evpy_step {
	struct event ev;
	uintptr_t key;
	struct evpy_core *core; /* NULL when the loop is gone */
	int running, freed;
};

static void evpy_cork(struct evpy_core *core);
static void evpy_uncork_all(struct evpy_core *core);

static struct evpy_handle *evpy_handle_of(PyObject *handle)
{
	if (Py_TYPE(handle) == evpy_aio.handle)
		return (struct evpy_handle *)((char *)handle + evpy_aio.handle_at);
	if (Py_TYPE(handle) == evpy_aio.timer)
		return (struct evpy_handle *)((char *)handle + evpy_aio.timer_at);
	return NULL;
}

static struct evpy_timer *evpy_timer_of(PyObject *timer)
{
	if (Py_TYPE(timer) != evpy_aio.timer)
		return NULL;
	return (
	    struct evpy_timer *)((char *)timer + evpy_aio.timer_at + sizeof(struct evpy_handle));
}

static PyObject *evpy_new_ref(PyObject *object)
{
	Py_INCREF(object);
	return object;
}

static void evpy_assign(PyObject **place, PyObject *object)
{
	PyObject *before = *place;

	*place = evpy_new_ref(object);
	Py_XDECREF(before);
}

/* Return what an attribute of a handle says: 1, 0, or -1 with an exception. */
static int evpy_says(PyObject *object, PyObject *name)
{
	PyObject *value = PyObject_GetAttr(object, name);
	int result = value == NULL ? -1 : PyObject_IsTrue(value);

	Py_XDECREF(value);
	return result;
}

static int evpy_is_cancelled(PyObject *handle)
{
	struct evpy_handle *ours = evpy_handle_of(handle);

	return ours != NULL && ours->cancelled != NULL ? ours->cancelled == Py_True
						       : evpy_says(handle, evpy_names.cancelled);
}

/* Return when a timer is due, or -1 with an exception. */
static double evpy_due(PyObject *timer)
{
	struct evpy_timer *ours = evpy_timer_of(timer);
	PyObject *when;
	double due;

	if (ours != NULL && ours->when != NULL)
		return PyFloat_AsDouble(ours->when);
	when = PyObject_GetAttr(timer, evpy_names.when);
	due = when == NULL ? -1.0 : PyFloat_AsDouble(when);
	Py_XDECREF(when);
	return due;
}

/* Make a handle, or a timer, as asyncio's own __init__ would. */
static PyObject *evpy_handle_new(PyTypeObject *type, PyObject *loop, PyObject *callback,
    PyObject *const *args, Py_ssize_t n, PyObject *context, PyObject *when)
{
	PyObject *handle, *tuple;
	struct evpy_handle *ours;
	Py_ssize_t i;

	if (context == NULL || context == Py_None)
		context = PyObject_CallObject(evpy_aio.copy_context, NULL);
	else
		Py_INCREF(context);
	tuple = PyTuple_New(n);
	handle = context == NULL || tuple == NULL ? NULL : PyType_GenericAlloc(type, 0);
	if (handle == NULL) {
		Py_XDECREF(context);
		Py_XDECREF(tuple);
		return NULL;
	}
	for (i = 0; i < n; ++i)
		PyTuple_SetItem(tuple, i, evpy_new_ref(args[i]));
	ours = evpy_handle_of(handle);
	ours->callback = evpy_new_ref(callback);
	ours->args = tuple;
	ours->context = context;
	ours->loop = evpy_new_ref(loop);
	ours->cancelled = evpy_new_ref(Py_False);
	ours->repr = evpy_new_ref(Py_None);
	ours->traceback = evpy_new_ref(Py_None);
	if (when != NULL) {
		evpy_timer_of(handle)->when = evpy_new_ref(when);
		evpy_timer_of(handle)->scheduled = evpy_new_ref(Py_True);
	}
	return handle;
}

/* Tell the base of the exception that is set. What a signal handler raises meanwhile is told instead. */
static void evpy_core_report(struct evpy_core *core)
{
	int tries;

	for (tries = 0; tries < 3 && PyErr_Occurred(); ++tries) {
		struct evpy_handled outer;
		PyObject *error = evpy_take_error();

		if (error == NULL)
			return;
		evpy_except_begin(&outer, error);
		Py_XDECREF(
		    PyObject_CallMethodObjArgs((PyObject *)core, evpy_names.report, error, NULL));
		evpy_except_end(&outer);
		Py_DECREF(error);
	}
	if (PyErr_Occurred())
		PyErr_WriteUnraisable((PyObject *)core);
}

/* Tell whether the exception that is set ends the program, rather than a callback. */
static int evpy_ends(void)
{
	return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
	    PyErr_ExceptionMatches(PyExc_SystemExit);
}

static int evpy_call_method(PyObject *object, PyObject *name)
{
	PyObject *done = PyObject_CallMethodObjArgs(object, name, NULL);

	Py_XDECREF(done);
	return done == NULL ? -1 : 0;
}

/* Run a handle that isn't cancelled. Return -1 with an exception that ends the program. */
static int evpy_handle_run(struct evpy_core *core, PyObject *handle)
{
	struct evpy_handle *ours = evpy_handle_of(handle);
	PyObject *args, *done, *error, *told;
	struct evpy_handled outer;
	Py_ssize_t n, i;

	if (ours == NULL || ours->context == NULL || ours->callback == NULL || ours->args == NULL ||
	    !PyTuple_Check(ours->args))
		return evpy_call_method(handle, evpy_names.run_later);
	n = PyTuple_Size(ours->args);
	if (n <= 1) {
		PyObject *context = evpy_new_ref(ours->context),
			 *callback = evpy_new_ref(ours->callback);

		args = n == 1 ? evpy_new_ref(PyTuple_GetItem(ours->args, 0)) : NULL;
		done = PyObject_CallFunctionObjArgs(evpy_aio.run, context, callback, args, NULL);
		Py_DECREF(context);
		Py_DECREF(callback);
		Py_XDECREF(args);
	} else {
		args = PyTuple_New(n + 2);
		if (args == NULL)
			return -1;
		PyTuple_SetItem(args, 0, evpy_new_ref(ours->context));
		PyTuple_SetItem(args, 1, evpy_new_ref(ours->callback));
		for (i = 0; i < n; ++i)
			PyTuple_SetItem(args, i + 2, evpy_new_ref(PyTuple_GetItem(ours->args, i)));
		done = PyObject_CallObject(evpy_aio.run, args);
		Py_DECREF(args);
	}
	if (done != NULL) {
		Py_DECREF(done);
		return 0;
	}
	if (evpy_ends())
		return -1;
	error = evpy_take_error();
	if (error == NULL)
		return -1;
	evpy_except_begin(&outer, error);
	told = PyObject_CallMethodObjArgs(
	    (PyObject *)core, evpy_names.handle_failed, handle, error, NULL);
	evpy_except_end(&outer);
	Py_DECREF(error);
	Py_XDECREF(told);
	return told == NULL ? -1 : 0;
}

/* The time by the loop's own clock, which a subclass may define. */
static double evpy_core_now(struct evpy_core *core)
{
	PyObject *now = PyObject_CallMethodObjArgs((PyObject *)core, evpy_names.time, NULL);
	double result = now == NULL ? -1.0 : PyFloat_AsDouble(now);

	Py_XDECREF(now);
	return result;
}

static void evpy_core_rouse(struct evpy_core *core, double seconds)
{
	core->armed = NAN;
	if (core->step != NULL)
		evpy_event_rouse(&core->step->ev, seconds);
}

/* As many seconds to wait at most as asyncio does. */
#define EVPY_LONGEST (24 * 3600.0)

/* Have the loop's step run when there is something to do for it. Return -1 with an exception. */
static int evpy_core_arm(struct evpy_core *core)
{
	PyObject *first;
	double due, delay;

	if (PyObject_Size(core->ready) != 0 || core->stopping == Py_True) {
		evpy_core_rouse(core, 0.0);
		return PyErr_Occurred() ? -1 : 0;
	}
	core->idle = 1;
	if (PyList_Size(core->scheduled) <= 0)
		return PyErr_Occurred() ? -1 : 0;
	first = PyList_GetItem(core->scheduled, 0);
	due = evpy_due(first);
	if (PyErr_Occurred())
		return -1;
	if (due == core->armed)
		return 0;
	delay = due - evpy_core_now(core);
	if (PyErr_Occurred())
		return -1;
	evpy_core_rouse(core, delay > EVPY_LONGEST ? EVPY_LONGEST : delay > 0.0 ? delay : 0.0);
	core->armed = delay > EVPY_LONGEST ? NAN : due;
	return 0;
}

/* asyncio's own number: beyond so many cancelled timers, if they are the most, they are all removed. */
#define EVPY_CANCELLED 50

/* Make the timers that are due ready. Return -1 with an exception. */
static int evpy_core_take_due(struct evpy_core *core)
{
	double end;

	if (core->cancelled_count > EVPY_CANCELLED &&
	    evpy_call_method((PyObject *)core, evpy_names.remove_cancelled) < 0)
		return -1;
	end = evpy_core_now(core) + core->resolution;
	if (PyErr_Occurred())
		return -1;
	while (PyList_Size(core->scheduled) > 0) {
		PyObject *timer = evpy_new_ref(PyList_GetItem(core->scheduled, 0)), *done;
		struct evpy_timer *ours = evpy_timer_of(timer);
		int cancelled = evpy_is_cancelled(timer);

		if (cancelled == 0) {
			double due = evpy_due(timer);

			if (PyErr_Occurred() || due >= end) { /* a NaN is due, as in asyncio */
				Py_DECREF(timer);
				break;
			}
			done = PyObject_CallFunctionObjArgs(core->append, timer, NULL);
			Py_XDECREF(done);
		} else if (cancelled > 0) {
			--core->cancelled_count;
		}
		if (!PyErr_Occurred()) {
			done =
			    PyObject_CallFunctionObjArgs(evpy_aio.heappop, core->scheduled, NULL);
			Py_XDECREF(done);
			if (ours != NULL)
				evpy_assign(&ours->scheduled, Py_False);
			else
				PyObject_SetAttr(timer, evpy_names.scheduled, Py_False);
		}
		Py_DECREF(timer);
		if (PyErr_Occurred())
			return -1;
	}
	return PyErr_Occurred() ? -1 : 0;
}

/* Run what is ready now, as one turn of asyncio's own loop does. Return -1 with an exception. */
static int evpy_core_run_ready(struct evpy_core *core)
{
	Py_ssize_t left;

	if (core->debug != Py_False)
		return evpy_call_method((PyObject *)core, evpy_names.step_slowly);
	if (PyList_Size(core->scheduled) > 0 && evpy_core_take_due(core) < 0)
		return -1;
	for (left = PyObject_Size(core->ready); left > 0; --left) {
		PyObject *handle = PyObject_CallObject(core->popleft, NULL);
		int done = handle == NULL ? -1 : evpy_is_cancelled(handle);

		if (done == 0)
			done = evpy_handle_run(core, handle);
		Py_XDECREF(handle);
		if (done < 0)
			return -1;
	}
	return PyErr_Occurred() ? -1 : 0;
}

/* Run what is ready, and have the rest run later; tell of what is raised. */
static void evpy_core_step(struct evpy_core *core)
{
	core->idle = 0;
	if (evpy_core_run_ready(core) < 0)
		evpy_core_report(core);
	if (core->stopping == Py_True) {
		if (evpy_call_method((PyObject *)core, evpy_names.break_) < 0)
			evpy_core_report(core);
	} else if (evpy_core_arm(core) < 0) {
		evpy_core_report(core);
	}
}

static void evpy_step_run(struct evpy_step *step)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	struct evpy_core *core = step->core;

	if (core != NULL) {
		Py_INCREF(core);
		core->armed = NAN;
		evpy_cork(core);
		evpy_core_step(core);
		evpy_uncork_all(core);
		Py_DECREF(core);
	}
	PyGILState_Release(gil);
}

/* By its name a trace tells the loop's own event from a program's. */
void evpy_on_step(evutil_socket_t fd, short what, void *arg)
{
	struct evpy_step *step = arg;
	struct evpy_running running = {step->key, evpy_running};

	(void)fd;
	(void)what;
	++step->running;
	evpy_running = &running;
	EVPY_CALL(evpy_step_run(step));
	evpy_running = running.outer;
	if (--step->running == 0 && step->freed)
		evpy_free(step);
}

/* Make the event of a loop, an evpy_core; it is freed by evpy_step_free(). */
static struct event *evpy_step_new(struct event_base *base, uintptr_t loop, uintptr_t key)
{
	struct evpy_step *step = evpy_calloc(1, sizeof *step);
	PyGILState_STATE gil;

	if (step == NULL)
		return NULL;
	if (event_assign(&step->ev, base, -1, 0, evpy_on_step, step) < 0) {
		evpy_free(step);
		errno = ENOMEM;
		return NULL;
	}
	gil = PyGILState_Ensure();
	step->key = key;
	step->core = (struct evpy_core *)loop;
	step->core->step = step;
	PyGILState_Release(gil);
	return &step->ev;
}

static void evpy_step_free(struct event *ev)
{
	struct evpy_step *step = (struct evpy_step *)ev;
	PyGILState_STATE gil;

	event_del(ev);
	event_debug_unassign(ev);
	gil = PyGILState_Ensure();
	if (step->core != NULL && step->core->step == step) /* else it has begun anew */
		step->core->step = NULL;
	step->core = NULL;
	step->freed = 1;
	if (!step->running)
		evpy_free(step);
	PyGILState_Release(gil);
}

/* What a loop is asked for. */

/* Note that something is ready, or that a timer was added: a loop that waits is roused. */
static int evpy_core_added(struct evpy_core *core, PyObject *timer)
{
	if (!core->idle)
		return 0;
	if (timer == NULL)
		return evpy_call_method((PyObject *)core, evpy_names.rouse);
	if (PyList_Size(core->scheduled) > 0 && PyList_GetItem(core->scheduled, 0) == timer)
		return evpy_call_method((PyObject *)core, evpy_names.sooner);
	return 0;
}

/* What a method that makes a handle was called with: `callback`, or a time and `callback`; then what that gets. */
struct evpy_asked {
	PyObject *fixed[2], *context;
	PyObject *const *rest;
	Py_ssize_t n;
};

/* Return -1 with an exception if that isn't what the method takes. `names` are those of its `count` fixed arguments. */
static int evpy_ask(struct evpy_asked *asked, const char *method, const char *const *names,
    int count, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
	Py_ssize_t n = keywords == NULL ? 0 : PyTuple_Size(keywords), i;
	int k;

	asked->context = NULL;
	for (k = 0; k < count; ++k)
		asked->fixed[k] = k < nargs ? args[k] : NULL;
	asked->rest = args + count;
	asked->n = nargs > count ? nargs - count : 0;
	for (i = 0; i < n; ++i) {
		PyObject *name = PyTuple_GetItem(keywords, i);

		if (PyUnicode_Compare(name, evpy_names.context) == 0) {
			asked->context = args[nargs + i];
			continue;
		}
		for (k = 0; k < count; ++k)
			if (asked->fixed[k] == NULL &&
			    PyUnicode_CompareWithASCIIString(name, names[k]) == 0)
				break;
		if (k == count) {
			PyErr_Format(PyExc_TypeError,
			    "%s() got an unexpected or a second argument '%U'", method, name);
			return -1;
		}
		asked->fixed[k] = args[nargs + i];
	}
	for (k = 0; k < count; ++k)
		if (asked->fixed[k] == NULL) {
			PyErr_Format(
			    PyExc_TypeError, "%s() missing the argument '%s'", method, names[k]);
			return -1;
		}
	return 0;
}

/* Call asyncio's own method, in debug mode or when the loop is closed: `method(callback, args, context)`, or with a
 * time before them. */
static PyObject *evpy_core_slowly(
    struct evpy_core *core, PyObject *method, int count, const struct evpy_asked *asked)
{
	PyObject *context = asked->context != NULL ? asked->context : Py_None;
	PyObject *rest = PyTuple_New(asked->n), *result;
	Py_ssize_t i;

	if (rest == NULL)
		return NULL;
	for (i = 0; i < asked->n; ++i)
		PyTuple_SetItem(rest, i, evpy_new_ref(asked->rest[i]));
	if (count == 1)
		result = PyObject_CallMethodObjArgs(
		    (PyObject *)core, method, asked->fixed[0], rest, context, NULL);
	else
		result = PyObject_CallMethodObjArgs((PyObject *)core, method, asked->fixed[0],
		    asked->fixed[1], rest, context, NULL);
	Py_DECREF(rest);
	return result;
}

/* Return the handle, after it was put into the queue, or NULL. */
static PyObject *evpy_core_queue(
    struct evpy_core *core, PyObject *put, PyObject *handle, PyObject *timer)
{
	PyObject *done;

	if (handle == NULL)
		return NULL;
	done = timer == NULL ? PyObject_CallFunctionObjArgs(put, handle, NULL)
			     : PyObject_CallFunctionObjArgs(put, core->scheduled, handle, NULL);
	Py_XDECREF(done);
	if (done == NULL || evpy_core_added(core, timer) < 0) {
		Py_DECREF(handle);
		return NULL;
	}
	return handle;
}

static int evpy_core_is_special(struct evpy_core *core)
{
	return core->closed != Py_False || core->debug != Py_False || core->append == NULL;
}

static PyObject *evpy_core_call_soon(
    PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
	static const char *const names[] = {"callback"};
	struct evpy_core *core = (struct evpy_core *)self;
	struct evpy_asked asked;

	if (evpy_ask(&asked, "call_soon", names, 1, args, nargs, keywords) < 0)
		return NULL;
	if (evpy_core_is_special(core))
		return evpy_core_slowly(core, evpy_names.call_soon_slowly, 1, &asked);
	return evpy_core_queue(core, core->append,
	    evpy_handle_new(
		evpy_aio.handle, self, asked.fixed[0], asked.rest, asked.n, asked.context, NULL),
	    NULL);
}

/* call_later, or, without `later`, call_at. */
static PyObject *evpy_core_call_timer(
    PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords, int later)
{
	static const char *const delayed[] = {"delay", "callback"},
				 *const dated[] = {"when", "callback"};
	struct evpy_core *core = (struct evpy_core *)self;
	PyObject *when, *now, *timer;
	struct evpy_asked asked;

	if (evpy_ask(&asked, later ? "call_later" : "call_at", later ? delayed : dated, 2, args,
		nargs, keywords) < 0)
		return NULL;
	if (evpy_core_is_special(core) || asked.fixed[0] == Py_None)
		return evpy_core_slowly(core,
		    later ? evpy_names.call_later_slowly : evpy_names.call_at_slowly, 2, &asked);
	if (later) {
		now = PyObject_CallMethodObjArgs(self, evpy_names.time, NULL);
		when = now == NULL ? NULL : PyNumber_Add(now, asked.fixed[0]);
		Py_XDECREF(now);
	} else {
		when = evpy_new_ref(asked.fixed[0]);
	}
	if (when == NULL)
		return NULL;
	PyFloat_AsDouble(when);
	if (PyErr_Occurred()) { /* now, as in the heap it would make each turn of the loop fail */
		Py_DECREF(when);
		return NULL;
	}
	timer = evpy_handle_new(
	    evpy_aio.timer, self, asked.fixed[1], asked.rest, asked.n, asked.context, when);
	Py_DECREF(when);
	return evpy_core_queue(core, evpy_aio.heappush, timer, timer);
}

static PyObject *evpy_core_call_later(
    PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return evpy_core_call_timer(self, args, nargs, names, 1);
}

static PyObject *evpy_core_call_at(
    PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return evpy_core_call_timer(self, args, nargs, names, 0);
}

static PyObject *evpy_core_get_time(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	return PyObject_CallObject(evpy_aio.monotonic, NULL);
}

static PyObject *evpy_core_arm_(PyObject *self, PyObject *none)
{
	(void)none;
	((struct evpy_core *)self)->armed = NAN;
	if (evpy_core_arm((struct evpy_core *)self) < 0)
		return NULL;
	return evpy_new_ref(Py_None);
}

/* Begin, once asyncio has made `_ready`. */
static PyObject *evpy_core_begin(PyObject *self, PyObject *none)
{
	struct evpy_core *core = (struct evpy_core *)self;

	(void)none;
	if (core->ready == NULL || core->scheduled == NULL) {
		PyErr_SetString(PyExc_AttributeError, "_ready");
		return NULL;
	}
	if (core->bowl == NULL) {
		core->bowl = evpy_calloc(1, sizeof *core->bowl);
		if (core->bowl == NULL)
			return PyErr_NoMemory();
		core->bowl->users = 1;
	}
	Py_XDECREF(core->popleft);
	Py_XDECREF(core->append);
	core->popleft = PyObject_GetAttrString(core->ready, "popleft");
	core->append = PyObject_GetAttrString(core->ready, "append");
	if (core->popleft == NULL || core->append == NULL)
		return NULL;
	core->armed = NAN;
	return evpy_new_ref(Py_None);
}

static int evpy_core_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct evpy_core *core = (struct evpy_core *)self;

	Py_VISIT(Py_TYPE(self));
	Py_VISIT(core->ready);
	Py_VISIT(core->scheduled);
	Py_VISIT(core->debug);
	Py_VISIT(core->closed);
	Py_VISIT(core->stopping);
	Py_VISIT(core->append);
	Py_VISIT(core->popleft);
	return 0;
}

static int evpy_core_clear(PyObject *self)
{
	struct evpy_core *core = (struct evpy_core *)self;

	Py_CLEAR(core->append);
	Py_CLEAR(core->popleft);
	Py_CLEAR(core->ready);
	Py_CLEAR(core->scheduled);
	Py_CLEAR(core->debug);
	Py_CLEAR(core->closed);
	Py_CLEAR(core->stopping);
	return 0;
}

static void evpy_bowl_leave(struct evpy_bowl *bowl)
{
	if (bowl != NULL && --bowl->users == 0)
		evpy_free(bowl);
}

static void evpy_core_dealloc(PyObject *self)
{
	struct evpy_core *core = (struct evpy_core *)self;
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (core->step != NULL)
		core->step->core = NULL;
	evpy_core_clear(self);
	evpy_bowl_leave(core->bowl);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}
