/* Calling Python by its own API, for what is called too often for cffi: docs/decisions/016-asyncio-in-c.md. */

#include <Python.h>

/* What of Python's C refers to, for good; bufferevent/eager.py gives it. */
static struct {
	PyObject *live; /* where objects are found by their keys */
	PyObject *on_data; /* the class of BufferEvent.on_data */
	PyObject *kept, *eager_failed, *eager_parked, *eager_unread, *eager_write; /* functions */
} evpy_python;

/* The names of attributes, which Python looks up by their addresses first. */
static struct {
	PyObject *objects, *bev, *unread, *unsent, *held, *room, *on_read, *callback;
} evpy_attribute;

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
static PyObject *evpy_live_object(uintptr_t key)
{
	PyObject *number = PyLong_FromUnsignedLongLong(key);
	PyObject *objects =
	    number == NULL ? NULL : PyObject_GetAttr(evpy_python.live, evpy_attribute.objects);
	PyObject *found = NULL;

	if (objects == NULL) {
		Py_XDECREF(number);
		return NULL;
	}
	if (PyDict_CheckExact(objects)) {
		found = PyDict_GetItemWithError(objects, number);
		Py_XINCREF(found);
	} else {
		found = PyObject_GetItem(objects, number);
		if (found == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
			PyErr_Clear();
	}
	Py_DECREF(objects);
	Py_DECREF(number);
	return found;
}

/* Take what is in the dictionary at that address. Return 0, or -1 when it has printed why not. */
static int evpy_python_set(uintptr_t names)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	struct {
		const char *name;
		PyObject **place;
	} object[] =
	    {
		{"live", &evpy_python.live},
		{"OnData", &evpy_python.on_data},
		{"kept", &evpy_python.kept},
		{"eager_failed", &evpy_python.eager_failed},
		{"eager_parked", &evpy_python.eager_parked},
		{"eager_unread", &evpy_python.eager_unread},
		{"eager_write", &evpy_python.eager_write},
	    },
	  attribute[] = {
	      {"objects", &evpy_attribute.objects},
	      {"bev", &evpy_attribute.bev},
	      {"unread", &evpy_attribute.unread},
	      {"unsent", &evpy_attribute.unsent},
	      {"held", &evpy_attribute.held},
	      {"room", &evpy_attribute.room},
	      {"_on_read", &evpy_attribute.on_read},
	      {"callback", &evpy_attribute.callback},
	  };
	int i, result = 0;

	for (i = 0; i < (int)(sizeof object / sizeof *object); ++i) {
		PyObject *found = PyDict_GetItemString((PyObject *)names, object[i].name);

		Py_XINCREF(found);
		*object[i].place = found;
		result |= found == NULL;
	}
	for (i = 0; i < (int)(sizeof attribute / sizeof *attribute); ++i) {
		*attribute[i].place = PyUnicode_InternFromString(attribute[i].name);
		result |= *attribute[i].place == NULL;
	}
	if (PyErr_Occurred())
		PyErr_Print();
	PyGILState_Release(gil);
	return -result;
}
