/* Ours. */

uintptr_t evpy_released(void);
void evpy_released_done(uintptr_t key);
int evpy_add_reference(
    struct evbuffer *buf, const void *data, size_t size, uintptr_t key);
