
/* Ours. */

int evpy_aio_classes(uintptr_t names);
struct event *evpy_step_new(struct event_base *base, uintptr_t loop, uintptr_t key);
void evpy_step_free(struct event *ev);
