/* What sends files shares. */
#include <event2/buffer.h>

/* Without the flag the file would be mapped, and all of it come into memory. */
static inline void send_by_sendfile(struct evbuffer *body, int fd, long long size)
{
    evbuffer_set_flags(body, EVBUFFER_FLAG_DRAINS_TO_FD);
    if (evbuffer_add_file(body, fd, 0, size))
        abort();
}
