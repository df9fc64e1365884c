struct event_base *event_init(void);
int event_dispatch(void);
int event_loop(int);
int event_loopexit(const struct timeval *);
int event_loopbreak(void);
int event_once(evutil_socket_t , short,
    void (*)(evutil_socket_t, short, void *), void *, const struct timeval *);
const char *event_get_method(void);
int	event_priority_init(int);
void event_set(struct event *, evutil_socket_t, short, void (*)(evutil_socket_t, short, void *), void *);

/* Ours. */
