/* Calling Python by its own API, for what is called too often for cffi: docs/decisions/016-asyncio-in-c.md and
 * 017-events-called-by-c.md. */

#include <Python.h>
#include <structmember.h>
#include <string.h>

/* What of Python's C refers to, for good. */
static struct {
	PyObject *live; /* where objects are found by their keys */
	PyObject *kept; /* errors.keep, with an argument before the error */
	/* event/event.py: */
	PyObject *event, *event_closed; /* classes */
	PyObject *event_flags; /* a tuple: an EventFlag for each number */
	PyObject *event_raised, *event_fired_last; /* functions */
	/* bufferevent/: */
	PyObject *on_data; /* the class of BufferEvent.on_data */
	PyObject *read_raised, *write_raised; /* functions */
	PyObject *eager_parked, *eager_unread, *eager_write; /* functions */
} evpy_python;

/* The names of attributes, which Python looks up by their addresses first. */
static struct {
	PyObject *base, *pointer, *class_, *callback, *finalize;
} evpy_attribute;

#define EVPY_MOST_MEMBERS 10

/* Make a class derived from `base`, with members of ours after that one's own, from `*at` on: Python's slots would be out
 * of C's reach. It inherits everything else, how it is traversed, cleared and freed, too. `slots` begins with
 * an empty one. */
static PyTypeObject *evpy_extended(const char *name, PyObject *base, const char *const *names,
    int n, PyType_Slot *slots, unsigned flags, Py_ssize_t *at)
{
	PyMemberDef members[EVPY_MOST_MEMBERS + 1];
	PyType_Spec spec = {name, 0, 0, flags, slots};
	PyObject *size = PyObject_GetAttrString(base, "__basicsize__"), *bases, *made;
	int i;

	*at = size == NULL ? -1 : PyLong_AsSsize_t(size);
	Py_XDECREF(size);
	bases = PyTuple_New(1);
	if (*at < 0 || bases == NULL) {
		Py_XDECREF(bases);
		return NULL;
	}
	memset(members, 0, sizeof members);
	for (i = 0; i < n; ++i) {
		members[i].name = names[i];
		members[i].type = T_OBJECT_EX;
		members[i].offset = *at + i * (Py_ssize_t)sizeof(PyObject *);
	}
	spec.basicsize = (int)(*at + n * (Py_ssize_t)sizeof(PyObject *));
	slots[0].slot = Py_tp_members;
	slots[0].pfunc = members;
	Py_INCREF(base);
	PyTuple_SetItem(bases, 0, base);
	made = PyType_FromSpecWithBases(&spec, bases);
	Py_DECREF(bases);
	return (PyTypeObject *)made;
}

/* The exception that is set, as an object, with its traceback. */
static PyObject *evpy_take_error(void)
{
	PyObject *type, *error, *traceback;

	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	if (traceback != NULL && error != NULL)
		PyException_SetTraceback(error, traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
	return error;
}

/* What is being handled around. */
struct evpy_handled {
	PyObject *type, *error, *traceback;
};

/* From here on `error` is being handled, as in an `except` clause: `sys.exc_info()` has it, and what is raised meanwhile has
 * it as its context. */
static void evpy_except_begin(struct evpy_handled *outer, PyObject *error)
{
	PyErr_GetExcInfo(&outer->type, &outer->error, &outer->traceback);
	Py_INCREF(Py_TYPE(error));
	Py_INCREF(error);
	PyErr_SetExcInfo((PyObject *)Py_TYPE(error), error, PyException_GetTraceback(error));
}

static void evpy_except_end(struct evpy_handled *outer)
{
	PyErr_SetExcInfo(outer->type, outer->error, outer->traceback);
}

static PyObject *evpy_except(PyObject *function, PyObject *about, PyObject *error)
{
	struct evpy_handled outer;
	PyObject *done;

	evpy_except_begin(&outer, error);
	done = PyObject_CallFunctionObjArgs(function, about, error, NULL);
	evpy_except_end(&outer);
	return done;
}

/* Have `function` told of the exception that is set. What a signal handler raises meanwhile is told next. */
static void evpy_tell(PyObject *function, PyObject *about)
{
	int tries;

	for (tries = 0; tries < 3 && PyErr_Occurred(); ++tries) {
		PyObject *error = evpy_take_error();

		if (error == NULL)
			return;
		Py_XDECREF(evpy_except(function, about, error));
		Py_DECREF(error);
	}
	if (PyErr_Occurred())
		PyErr_WriteUnraisable(function);
}

/* What C reads and sets of Python's objects by itself. An attribute asked for by its name costs a hundred instructions. */
struct evpy_live_state {
	PyObject *objects;
};

struct evpy_root_state {
	PyObject *ledger, *live, *parked, *thread;
};

struct evpy_event_state {
	PyObject *armed, *callback, *fd, *then, *what;
};

struct evpy_bufferevent_state {
	PyObject *lent; /* the arena, while its read callback runs */
	PyObject *on_read, *on_write;
};

struct evpy_arena_state {
	PyObject *address, *bev, *held, *room, *unread, *unsent;
};

/* Python's classes with these members, in the same order. */
static struct evpy_class {
	const char *name;
	const char *members[EVPY_MOST_MEMBERS + 1];
	PyTypeObject *type;
	Py_ssize_t at; /* where the members begin in an object */
} evpy_live_class = {"libevent_py._core.dispatch.LiveState", {"objects"}, NULL, 0},
  evpy_root_class = {"libevent_py._core.owner.RootState",
      {"_ledger", "_live", "_parked", "_thread"}, NULL, 0},
  evpy_event_class = {"libevent_py.event.event.EventState",
      {"_armed", "_callback", "_fd", "_then", "_what"}, NULL, 0},
  evpy_bufferevent_class = {"libevent_py.bufferevent.callbacks.BufferEventState",
      {"_lent_arena", "_on_read", "_on_write"}, NULL, 0},
  evpy_arena_class = {"libevent_py.bufferevent.eager.ArenaState",
      {"address", "bev", "held", "room", "unread", "unsent"}, NULL, 0};

#define EVPY_STATE(kind, object) \
	((struct evpy_##kind##_state *)((char *)(object) + evpy_##kind##_class.at))

static PyObject *evpy_class_make(struct evpy_class *class, PyObject *base)
{
	PyType_Slot slots[] = {{0, NULL}, {0, NULL}};
	int n = 0;

	while (class->members[n] != NULL)
		++n;
	class->type = evpy_extended(class->name, base, class->members, n, slots,
	    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, &class->at);
	return (PyObject *)class->type;
}

/* In the dictionary at that address, put in the place of each class the one that C derives from it: by the name of the
 * latter. Return 0, or -1 if it holds any other name, or when it has printed why not. */
static int evpy_python_extend(uintptr_t names)
{
	struct evpy_class *const classes[] = {&evpy_live_class, &evpy_root_class, &evpy_event_class,
	    &evpy_bufferevent_class, &evpy_arena_class};
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *dict = (PyObject *)names;
	Py_ssize_t left = PyDict_Size(dict);
	size_t i;

	for (i = 0; i < sizeof classes / sizeof *classes; ++i) {
		const char *name = strrchr(classes[i]->name, '.') + 1;
		PyObject *base = PyDict_GetItemString(dict, name);
		PyObject *made = base == NULL ? NULL : evpy_class_make(classes[i], base);

		if (made != NULL && PyDict_SetItemString(dict, name, made) == 0)
			--left;
	}
	if (PyErr_Occurred())
		PyErr_Print();
	PyGILState_Release(gil);
	return left == 0 ? 0 : -1;
}

static void evpy_set_member(PyObject **member, PyObject *value)
{
	PyObject *before = *member;

	Py_INCREF(value);
	*member = value;
	Py_XDECREF(before);
}

/* What C may call by that key, a new reference; or NULL, perhaps with an exception. */
static PyObject *evpy_live_anything(PyObject *key)
{
	PyObject *objects = EVPY_STATE(live, evpy_python.live)->objects, *found;

	if (PyDict_CheckExact(objects)) {
		found = PyDict_GetItemWithError(objects, key);
		Py_XINCREF(found);
		return found;
	}
	Py_INCREF(objects); /* looking there runs code of Python's */
	found = PyObject_GetItem(objects, key);
	Py_DECREF(objects);
	if (found == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
		PyErr_Clear();
	return found;
}

/* Do the same for an object of that class. */
static PyObject *evpy_live_object(PyObject *key, const struct evpy_class *class)
{
	PyObject *found = evpy_live_anything(key);

	if (found == NULL || PyObject_TypeCheck(found, class->type))
		return found;
	PyErr_Format(PyExc_TypeError, "C calls %R as a %s", found, class->name);
	Py_DECREF(found);
	return NULL;
}

/* Keep an exception that is set until the Python call that has entered C raises it. */
static void evpy_keep_error(void)
{
	if (PyErr_Occurred())
		evpy_tell(evpy_python.kept, Py_None);
}

/* Put functions of C's, up to one without a name, into the dictionary at that address. Return 0, or -1 when it has printed
 * why not. */
static int evpy_python_add(uintptr_t names, PyMethodDef *functions)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	int done = 0;

	for (; functions->ml_name != NULL && done == 0; ++functions) {
		PyObject *function = PyCFunction_NewEx(functions, NULL, NULL);

		done = function == NULL
		    ? -1
		    : PyDict_SetItemString((PyObject *)names, functions->ml_name, function);
		Py_XDECREF(function);
	}
	if (done != 0)
		PyErr_Print();
	PyGILState_Release(gil);
	return done;
}

/* What a class has as __del__: it calls `_finalize`, once more if that raises. An interrupt that came where a finalizer of
 * Python's begins would leave C's object to nobody. */
static PyObject *evpy_del(PyObject *self, PyObject *nothing)
{
	PyObject *done = PyObject_CallMethodObjArgs(self, evpy_attribute.finalize, NULL);
	PyObject *type, *error, *traceback;

	(void)nothing;
	if (done != NULL)
		return done;
	PyErr_Fetch(&type, &error, &traceback);
	done = PyObject_CallMethodObjArgs(self, evpy_attribute.finalize, NULL);
	if (done == NULL)
		PyErr_WriteUnraisable(self);
	Py_XDECREF(done);
	PyErr_Restore(type, error, traceback);
	return NULL;
}

/* Give the class at that address such a finalizer. Return 0, or -1 when it has printed why not. */
static int evpy_python_finalize(uintptr_t class)
{
	static PyMethodDef definition = {"__del__", evpy_del, METH_NOARGS, NULL};
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *method = PyDescr_NewMethod((PyTypeObject *)class, &definition);
	int done = method == NULL
	    ? -1
	    : PyObject_SetAttrString((PyObject *)class, definition.ml_name, method);

	Py_XDECREF(method);
	if (done != 0)
		PyErr_Print();
	PyGILState_Release(gil);
	return done;
}

static PyObject *evpy_weak(PyObject *self, PyObject *object)
{
	(void)self;
	return PyWeakref_NewRef(object, NULL);
}

/* The number of the interpreter that calls, 0 being the main one. cffi gives the GIL up where it calls C, and
 * PyGILState_Ensure() takes it as the main interpreter: only a function that Python itself calls can tell. */
static PyObject *evpy_interpreter(PyObject *self, PyObject *unused)
{
	(void)self;
	(void)unused;
	return PyLong_FromLongLong(PyInterpreterState_GetID(PyInterpreterState_Get()));
}

/* Put there that, and a function that makes weak references: called as a class, Python's own takes twice as long. */
static int evpy_python_functions(uintptr_t names)
{
	static PyMethodDef functions[] = {
	    {"interpreter", evpy_interpreter, METH_NOARGS, NULL},
	    {"weak", evpy_weak, METH_O, NULL},
	    {NULL, NULL, 0, NULL},
	};

	return evpy_python_add(names, functions);
}

/* Make the names of attributes, once. Return 0, or -1 with an exception. */
static int evpy_name_attributes(void)
{
	struct {
		const char *name;
		PyObject **place;
	} attribute[] = {
	    {"base", &evpy_attribute.base},
	    {"pointer", &evpy_attribute.pointer},
	    {"__class__", &evpy_attribute.class_},
	    {"callback", &evpy_attribute.callback},
	    {"_finalize", &evpy_attribute.finalize},
	};
	size_t i;

	for (i = 0; i < sizeof attribute / sizeof *attribute; ++i)
		if (*attribute[i].place == NULL) {
			*attribute[i].place = PyUnicode_InternFromString(attribute[i].name);
			if (*attribute[i].place == NULL)
				return -1;
		}
	return 0;
}

/* Take what is in the dictionary at that address. Return 0, or -1 if it holds anything that C doesn't know, or when it
 * has printed why not. */
static int evpy_python_set(uintptr_t names)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	struct {
		const char *name;
		PyObject **place;
	} object[] = {
	    {"live", &evpy_python.live},
	    {"kept", &evpy_python.kept},
	    {"Event", &evpy_python.event},
	    {"closed_event", &evpy_python.event_closed},
	    {"event_flags", &evpy_python.event_flags},
	    {"event_raised", &evpy_python.event_raised},
	    {"event_fired_last", &evpy_python.event_fired_last},
	    {"OnData", &evpy_python.on_data},
	    {"read_raised", &evpy_python.read_raised},
	    {"write_raised", &evpy_python.write_raised},
	    {"eager_parked", &evpy_python.eager_parked},
	    {"eager_unread", &evpy_python.eager_unread},
	    {"eager_write", &evpy_python.eager_write},
	};
	Py_ssize_t unknown = PyDict_Size((PyObject *)names);
	size_t i;

	for (i = 0; i < sizeof object / sizeof *object; ++i) {
		PyObject *found = PyDict_GetItemString((PyObject *)names, object[i].name);

		if (found != NULL) {
			Py_INCREF(found);
			*object[i].place = found;
			--unknown;
		}
	}
	if (evpy_name_attributes() < 0) {
		PyErr_Print();
		unknown = -1;
	}
	PyGILState_Release(gil);
	return unknown == 0 ? 0 : -1;
}
