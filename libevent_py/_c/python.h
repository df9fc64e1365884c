/* Ours. */

int evpy_python_set(uintptr_t names);
int evpy_python_extend(uintptr_t names);
int evpy_python_finalize(uintptr_t class_);
int evpy_python_functions(uintptr_t names);
