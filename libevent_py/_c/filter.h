/* Ours. */

extern "Python" int evpy_filter(uintptr_t key, int outward, ev_ssize_t limit, int mode);

struct bufferevent *evpy_filter_new(
    struct bufferevent *underlying, int input, int output, int options, uintptr_t key);
