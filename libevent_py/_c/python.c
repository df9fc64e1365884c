/* Calling Python by its own API, for what is called too often for cffi: docs/decisions/016-asyncio-in-c.md. */

#include <Python.h>
#include <structmember.h>

/* What of Python's C refers to, for good. */
static struct {
	PyObject *live; /* where objects are found by their keys */
	PyObject *kept; /* errors.keep, with an argument before the error */
	/* event/event.py: */
	PyObject *event, *event_closed; /* classes */
	PyObject *event_flags; /* a tuple: an EventFlag for each number */
	PyObject *event_raised, *event_fired_last; /* functions */
	/* bufferevent/eager.py: */
	PyObject *on_data; /* the class of BufferEvent.on_data */
	PyObject *eager_failed, *eager_parked, *eager_unread, *eager_write; /* functions */
} evpy_python;

/* The names of attributes, which Python looks up by their addresses first. */
static struct {
	PyObject *objects, *base, *live, *ledger, *parked, *thread, *pointer, *class_;
	PyObject *bev, *unread, *unsent, *held, *room, *on_read, *callback;
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

/* Have `function` told of the exception that is set. What a signal handler raises meanwhile is told instead: its context
 * has the other. */
static void evpy_tell(PyObject *function, PyObject *about)
{
	int tries;

	for (tries = 0; tries < 3 && PyErr_Occurred(); ++tries) {
		PyObject *error = evpy_take_error();
		PyObject *done = PyObject_CallFunctionObjArgs(function, about, error, NULL);

		Py_XDECREF(error);
		Py_XDECREF(done);
	}
	if (PyErr_Occurred())
		PyErr_WriteUnraisable(function);
}

/* What C may call by that key, a new reference; or NULL, perhaps with an exception. */
static PyObject *evpy_live_object(PyObject *key)
{
	PyObject *objects = PyObject_GetAttr(evpy_python.live, evpy_attribute.objects), *found;

	if (objects == NULL)
		return NULL;
	if (PyDict_CheckExact(objects)) {
		found = PyDict_GetItemWithError(objects, key);
		Py_XINCREF(found);
	} else {
		found = PyObject_GetItem(objects, key);
		if (found == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
			PyErr_Clear();
	}
	Py_DECREF(objects);
	return found;
}

/* Make the names of attributes, once. Return 0, or -1 with an exception. */
static int evpy_name_attributes(void)
{
	struct {
		const char *name;
		PyObject **place;
	} attribute[] = {
	    {"objects", &evpy_attribute.objects},
	    {"base", &evpy_attribute.base},
	    {"_live", &evpy_attribute.live},
	    {"_ledger", &evpy_attribute.ledger},
	    {"_parked", &evpy_attribute.parked},
	    {"_thread", &evpy_attribute.thread},
	    {"pointer", &evpy_attribute.pointer},
	    {"__class__", &evpy_attribute.class_},
	    {"bev", &evpy_attribute.bev},
	    {"unread", &evpy_attribute.unread},
	    {"unsent", &evpy_attribute.unsent},
	    {"held", &evpy_attribute.held},
	    {"room", &evpy_attribute.room},
	    {"_on_read", &evpy_attribute.on_read},
	    {"callback", &evpy_attribute.callback},
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
	    {"eager_failed", &evpy_python.eager_failed},
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
