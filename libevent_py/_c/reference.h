/* Ours. */

uintptr_t evpy_released(void);
int evpy_add_reference(
    struct evbuffer *buf, const void *data, size_t size, uintptr_t key);
