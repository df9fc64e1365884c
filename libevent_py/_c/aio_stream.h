
/* Ours. */

struct event *evpy_stream_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t stream, uintptr_t key);
void evpy_stream_free(struct event *ev);
