struct sockaddr;
struct evconnlistener;

typedef void (*evconnlistener_cb)(struct evconnlistener *, evutil_socket_t, struct sockaddr *, int socklen, void *);
typedef void (*evconnlistener_errorcb)(struct evconnlistener *, void *);

#define LEV_OPT_LEAVE_SOCKETS_BLOCKING ...
#define LEV_OPT_CLOSE_ON_FREE ...
#define LEV_OPT_CLOSE_ON_EXEC ...
#define LEV_OPT_REUSEABLE ...
#define LEV_OPT_THREADSAFE ...
#define LEV_OPT_DISABLED ...
#define LEV_OPT_DEFERRED_ACCEPT ...
#define LEV_OPT_REUSEABLE_PORT ...
#define LEV_OPT_BIND_IPV6ONLY ...

struct evconnlistener *evconnlistener_new(struct event_base *base,
    evconnlistener_cb cb, void *ptr, unsigned flags, int backlog,
    evutil_socket_t fd);
struct evconnlistener *evconnlistener_new_bind(struct event_base *base,
    evconnlistener_cb cb, void *ptr, unsigned flags, int backlog,
    const struct sockaddr *sa, int socklen);
void evconnlistener_free(struct evconnlistener *lev);
int evconnlistener_enable(struct evconnlistener *lev);
int evconnlistener_disable(struct evconnlistener *lev);
struct event_base *evconnlistener_get_base(struct evconnlistener *lev);
evutil_socket_t evconnlistener_get_fd(struct evconnlistener *lev);
void evconnlistener_set_cb(struct evconnlistener *lev,
    evconnlistener_cb cb, void *arg);
void evconnlistener_set_error_cb(struct evconnlistener *lev,
    evconnlistener_errorcb errorcb);

/* Ours. */

extern "Python" int evpy_accept(uintptr_t key, int fd, struct sockaddr *address, int length);
extern "Python" int evpy_accept_error(uintptr_t key, int error);

struct evconnlistener *evpy_listener_new(struct event_base *base, evutil_socket_t fd,
    unsigned flags, int backlog, int callback, uintptr_t key);
void evpy_listener_disown(struct evconnlistener *listener);
void evpy_listener_free_without_fd(struct evconnlistener *listener);
int evpy_listener_set_cb(struct evconnlistener *listener, int callback, uintptr_t key);
