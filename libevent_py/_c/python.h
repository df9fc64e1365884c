/* Ours. */

int evpy_python_set(uintptr_t names);
