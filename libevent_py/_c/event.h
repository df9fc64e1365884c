struct event_base;
struct event;
struct event_config;

void event_enable_debug_mode(void);
void event_debug_unassign(struct event *);
struct event_base *event_base_new(void);
int event_reinit(struct event_base *base);
int event_base_dispatch(struct event_base *);
const char *event_base_get_method(const struct event_base *);
const char **event_get_supported_methods(void);
int event_gettime_monotonic(struct event_base *base, struct timeval *tp);

#define EVENT_BASE_COUNT_ACTIVE ...
#define EVENT_BASE_COUNT_VIRTUAL ...
#define EVENT_BASE_COUNT_ADDED ...

int event_base_get_num_events(struct event_base *, unsigned int);
int event_base_get_max_events(struct event_base *, unsigned int, int);
struct event_config *event_config_new(void);
void event_config_free(struct event_config *cfg);
int event_config_avoid_method(struct event_config *cfg, const char *method);

enum event_method_feature {
	EV_FEATURE_ET,
	EV_FEATURE_O1,
	EV_FEATURE_FDS,
	EV_FEATURE_EARLY_CLOSE,
	...
};

enum event_base_config_flag {
	EVENT_BASE_FLAG_NOLOCK,
	EVENT_BASE_FLAG_IGNORE_ENV,
	EVENT_BASE_FLAG_STARTUP_IOCP,
	EVENT_BASE_FLAG_NO_CACHE_TIME,
	EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST,
	EVENT_BASE_FLAG_PRECISE_TIMER,
	...
};

int event_base_get_features(const struct event_base *base);
int event_config_require_features(struct event_config *cfg, int feature);
int event_config_set_flag(struct event_config *cfg, int flag);
int event_config_set_num_cpus_hint(struct event_config *cfg, int cpus);
int event_config_set_max_dispatch_interval(struct event_config *cfg,
    const struct timeval *max_interval, int max_callbacks,
    int min_priority);
struct event_base *event_base_new_with_config(const struct event_config *);
void event_base_free(struct event_base *);
void event_base_free_nofinalize(struct event_base *);

#define EVENT_LOG_DEBUG ...
#define EVENT_LOG_MSG ...
#define EVENT_LOG_WARN ...
#define EVENT_LOG_ERR ...
#define _EVENT_LOG_DEBUG ...
#define _EVENT_LOG_MSG ...
#define _EVENT_LOG_WARN ...
#define _EVENT_LOG_ERR ...

typedef void (*event_log_cb)(int severity, const char *msg);

void event_set_log_callback(event_log_cb cb);

typedef void (*event_fatal_cb)(int err);

void event_set_fatal_callback(event_fatal_cb cb);

#define EVENT_DBG_ALL ...
#define EVENT_DBG_NONE ...

void event_enable_debug_logging(ev_uint32_t which);
int event_base_set(struct event_base *, struct event *);

#define EVLOOP_ONCE ...
#define EVLOOP_NONBLOCK ...
#define EVLOOP_NO_EXIT_ON_EMPTY ...

int event_base_loop(struct event_base *, int);
int event_base_loopexit(struct event_base *, const struct timeval *);
int event_base_loopbreak(struct event_base *);
int event_base_loopcontinue(struct event_base *);
int event_base_got_exit(struct event_base *);
int event_base_got_break(struct event_base *);

#define EV_TIMEOUT ...
#define EV_READ ...
#define EV_WRITE ...
#define EV_SIGNAL ...
#define EV_PERSIST ...
#define EV_ET ...
#define EV_FINALIZE ...
#define EV_CLOSED ...

typedef void (*event_callback_fn)(evutil_socket_t, short, void *);

void *event_self_cbarg(void);
struct event *event_new(struct event_base *, evutil_socket_t, short, event_callback_fn, void *);
int event_assign(struct event *, struct event_base *, evutil_socket_t, short, event_callback_fn, void *);
void event_free(struct event *);

typedef void (*event_finalize_callback_fn)(struct event *, void *);

int event_finalize(unsigned, struct event *, event_finalize_callback_fn);
int event_free_finalize(unsigned, struct event *, event_finalize_callback_fn);
int event_base_once(struct event_base *, evutil_socket_t, short, event_callback_fn, void *, const struct timeval *);
int event_add(struct event *ev, const struct timeval *timeout);
int event_remove_timer(struct event *ev);
int event_del(struct event *);
int event_del_noblock(struct event *ev);
int event_del_block(struct event *ev);
void event_active(struct event *ev, int res, short ncalls);
int event_pending(const struct event *ev, short events, struct timeval *tv);
struct event *event_base_get_running_event(struct event_base *base);
int event_initialized(const struct event *ev);
evutil_socket_t event_get_fd(const struct event *ev);
struct event_base *event_get_base(const struct event *ev);
short event_get_events(const struct event *ev);
event_callback_fn event_get_callback(const struct event *ev);
void *event_get_callback_arg(const struct event *ev);
int event_get_priority(const struct event *ev);
void event_get_assignment(const struct event *event,
    struct event_base **base_out, evutil_socket_t *fd_out, short *events_out,
    event_callback_fn *callback_out, void **arg_out);
size_t event_get_struct_event_size(void);
const char *event_get_version(void);
ev_uint32_t event_get_version_number(void);

static char *const LIBEVENT_VERSION;
#define LIBEVENT_VERSION_NUMBER ...
#define EVENT_MAX_PRIORITIES ...

int	event_base_priority_init(struct event_base *, int);
int	event_base_get_npriorities(struct event_base *eb);
int	event_priority_set(struct event *, int);
const struct timeval *event_base_init_common_timeout(struct event_base *base,
    const struct timeval *duration);
void event_set_mem_functions(
	void *(*malloc_fn)(size_t sz),
	void *(*realloc_fn)(void *ptr, size_t sz),
	void (*free_fn)(void *ptr));
void event_base_dump_events(struct event_base *, FILE *);
void event_base_active_by_fd(struct event_base *base, evutil_socket_t fd, short events);
void event_base_active_by_signal(struct event_base *base, int sig);

typedef int (*event_base_foreach_event_cb)(const struct event_base *, const struct event *, void *);

int event_base_foreach_event(struct event_base *base, event_base_foreach_event_cb fn, void *arg);
int event_base_gettimeofday_cached(struct event_base *base,
    struct timeval *tv);
int event_base_update_cache_time(struct event_base *base);
void libevent_global_shutdown(void);

/* Ours. */

extern "Python" int evpy_finalize(uintptr_t key);
extern "Python" int evpy_wake(uintptr_t key);
extern "Python" int evpy_once_fired(uintptr_t key, int what);
extern "Python" int evpy_forked(void);

#define EVPY_NOT_CALLED ...

void evpy_note_fork(void);
struct event_base *evpy_event_base_new_with_config(const struct event_config *config);
struct event *evpy_event_new(
    struct event_base *base, evutil_socket_t fd, short what, uintptr_t key);
void evpy_event_unmake(uintptr_t key);
struct event *evpy_wake_new(
    struct event_base *base, evutil_socket_t fd, short what, uintptr_t key, int internal);
#define FD_SETSIZE ...
int evpy_highest_reserved(void);
int evpy_config_uses_select(const struct event_config *config);
int evpy_beyond_select(const struct event_base *base, evutil_socket_t fd);
int evpy_next_beyond_select(const struct event_base *base);
int evpy_event_add(struct event *ev, double seconds);
void evpy_event_rouse(struct event *timer, double seconds);
int evpy_check_waitable(struct event_base *base, evutil_socket_t fd);
int evpy_event_add_timeval(struct event *ev, const struct timeval *tv);
void evpy_event_active(struct event *ev);
void evpy_event_active_as(struct event *ev, int what, short ncalls);
int evpy_event_del(struct event *ev, int block);
int evpy_event_remove_timer(struct event *ev);
uintptr_t evpy_event_running(int depth);
int evpy_event_stays(const struct event *ev);
int evpy_finalize_event(struct event *ev);

struct evpy_onces;
struct evpy_onces *evpy_onces_new(struct event_base *base);
void evpy_onces_free(struct evpy_onces *onces);
int evpy_once_add(
    struct evpy_onces *onces, uintptr_t key, double seconds, evutil_socket_t fd, short what);
int evpy_once_timer(struct evpy_onces *onces, uintptr_t key, double seconds);

size_t evpy_event_keys(struct event_base *base, uintptr_t *keys, size_t room);
char *evpy_dump_events(struct event_base *base);
int evpy_loop_unwatched(void);
#define EVPY_RAN_SHORT ...
#define EVPY_NOT_BEGUN ...
int evpy_event_reinit(struct event_base *base, int silent);
int evpy_loop(struct event_base *base, int flags, struct event *waker);
int evpy_turn(struct event_base *base, double seconds, struct event *waker);
