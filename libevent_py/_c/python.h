/* Ours. */

int evpy_python_set(uintptr_t names);
int evpy_python_extend(uintptr_t names);
int evpy_python_functions(uintptr_t names);
