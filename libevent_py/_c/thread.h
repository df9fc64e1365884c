#define EVTHREAD_WRITE ...
#define EVTHREAD_READ ...
#define EVTHREAD_TRY ...
#define EVTHREAD_LOCK_API_VERSION ...
#define EVTHREAD_LOCKTYPE_RECURSIVE ...
#define EVTHREAD_LOCKTYPE_READWRITE ...

struct evthread_lock_callbacks {
	int lock_api_version;
	unsigned supported_locktypes;
	void *(*alloc)(unsigned locktype);
	void (*free)(void *lock, unsigned locktype);
	int (*lock)(unsigned mode, void *lock);
	int (*unlock)(unsigned mode, void *lock);
};

int evthread_set_lock_callbacks(const struct evthread_lock_callbacks *);

#define EVTHREAD_CONDITION_API_VERSION ...

struct timeval;

struct evthread_condition_callbacks {
	int condition_api_version;
	void *(*alloc_condition)(unsigned condtype);
	void (*free_condition)(void *cond);
	int (*signal_condition)(void *cond, int broadcast);
	int (*wait_condition)(void *cond, void *lock,
	    const struct timeval *timeout);
};

int evthread_set_condition_callbacks(
	const struct evthread_condition_callbacks *);
void evthread_set_id_callback(
    unsigned long (*id_fn)(void));
int evthread_use_pthreads(void);

#define EVTHREAD_USE_PTHREADS_IMPLEMENTED ...

void evthread_enable_lock_debugging(void);
void evthread_enable_lock_debuging(void);

struct event_base;

int evthread_make_base_notifiable(struct event_base *base);

/* Ours. */

int evpy_use_threads(void);
void evpy_fork_soon(void);
void evpy_fork_done(void);
uintptr_t evpy_lost(uintptr_t *object);
