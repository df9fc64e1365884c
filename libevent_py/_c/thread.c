/* libevent's locks and conditions, made so that they survive a fork().
 *
 * They work as with evthread_use_pthreads(), but all of them are on a list, and each knows which thread holds it.
 * A forked child has only the thread that forked. So before a fork the other threads get time to leave libevent,
 * and then all locks are taken, so that the data they protect is consistent in the child. There the locks are made
 * anew, and so are the conditions: pthread_cond_destroy() would wait for threads that don't exist. A lock that the
 * forking thread itself holds, in a callback, stays held by it: glibc's recursive mutex would not recognize its
 * owner, because it uses the kernel's number for a thread.
 *
 * No thread waits for ever. A thread may need the GIL, or another resource, to leave a callback that holds a lock;
 * and a thread that is kept out of libevent meanwhile may hold what the forking thread needs next. So all waiting
 * here is limited. Data whose lock is still held then is lost in the child: Python asks for it, and refuses the
 * object that it belongs to. */

#include <pthread.h>
#include <time.h>

struct evpy_lock {
	pthread_mutex_t mutex;
	uintptr_t owner; /* the thread that holds it, or 0; others may read it without the mutex */
	unsigned depth;
	int recursive;
	int taken; /* taken for a fork, by the thread that holds evpy_all */
	uintptr_t lost_by; /* the thread that held it when this process was forked, or 0 */
	const void *object; /* what it belongs to, where that is known */
	struct evpy_lock *next, **previous;
};

struct evpy_condition {
	pthread_cond_t condition;
	struct evpy_condition *next, **previous;
};

/* Held for a few instructions while a lock is made or freed; and during a fork. */
static pthread_mutex_t evpy_all = PTHREAD_MUTEX_INITIALIZER;
static struct evpy_lock *evpy_locks;
static struct evpy_condition *evpy_conditions;

/* How many threads are about to fork: as long as there are any, the others stay out of libevent. */
static int evpy_forking;

/* Whether this thread has given the others their time to leave, with the GIL released. */
static _Thread_local int evpy_prepared;

/* The lock that this thread has made last. */
static _Thread_local struct evpy_lock *evpy_newest;

/* In milliseconds: how long a fork waits for other threads, and they for a fork; and how long if the GIL can't be
 * released, so that threads that need it can't leave. */
#define EVPY_PATIENCE 1000
#define EVPY_SHORT 250
#define EVPY_SHORTEST 20

static uintptr_t evpy_self(void)
{
	return (uintptr_t)pthread_self();
}

static unsigned long evpy_thread_id(void)
{
	return (unsigned long)evpy_self();
}

static long evpy_milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void evpy_rest(void)
{
	struct timespec moment = {0, 200000};

	nanosleep(&moment, NULL);
}

static uintptr_t evpy_owner(const struct evpy_lock *lock)
{
	return __atomic_load_n(&lock->owner, __ATOMIC_RELAXED);
}

static void evpy_own(struct evpy_lock *lock, uintptr_t thread)
{
	__atomic_store_n(&lock->owner, thread, __ATOMIC_RELAXED);
}

static void evpy_lock_register(struct evpy_lock *lock)
{
	pthread_mutex_lock(&evpy_all);
	lock->next = evpy_locks;
	lock->previous = &evpy_locks;
	if (lock->next != NULL)
		lock->next->previous = &lock->next;
	evpy_locks = lock;
	pthread_mutex_unlock(&evpy_all);
}

static void *evpy_lock_alloc(unsigned type)
{
	struct evpy_lock *lock = evpy_calloc(1, sizeof *lock);

	if (lock == NULL)
		return NULL;
	if (pthread_mutex_init(&lock->mutex, NULL) != 0) {
		evpy_free(lock);
		return NULL;
	}
	lock->recursive = (type & EVTHREAD_LOCKTYPE_RECURSIVE) != 0;
	evpy_lock_register(lock);
	evpy_newest = lock;
	return lock;
}

static void evpy_lock_free(void *arg, unsigned type)
{
	struct evpy_lock *lock = arg;

	(void)type;
	pthread_mutex_lock(&evpy_all);
	*lock->previous = lock->next;
	if (lock->next != NULL)
		lock->next->previous = lock->previous;
	pthread_mutex_unlock(&evpy_all);
	if (evpy_newest == lock)
		evpy_newest = NULL;
	pthread_mutex_destroy(&lock->mutex);
	evpy_free(lock);
}

/* Note the object that the lock made last by this thread belongs to. */
static void evpy_lock_is_of(const void *object)
{
	if (evpy_newest != NULL)
		evpy_newest->object = object;
}

/* Whether thread `me` is inside libevent, and must be allowed to go on in order to leave it. */
static int evpy_holds_another(const struct evpy_lock *lock, uintptr_t me)
{
	const struct evpy_lock *other;

	pthread_mutex_lock(&evpy_all);
	for (other = evpy_locks; other != NULL; other = other->next) {
		if (other != lock && evpy_owner(other) == me)
			break;
	}
	pthread_mutex_unlock(&evpy_all);
	return other != NULL;
}

/* Release a lock that has just been taken, wait until no thread is about to fork, and take it again. The lock has to
 * be taken first: once the forking thread has held it, all other threads see that it is forking. */
static int evpy_give_way(struct evpy_lock *lock, uintptr_t me)
{
	long end;

	if (evpy_prepared || evpy_holds_another(lock, me))
		return 0;
	evpy_own(lock, 0);
	pthread_mutex_unlock(&lock->mutex);
	end = evpy_milliseconds() + EVPY_PATIENCE;
	while (__atomic_load_n(&evpy_forking, __ATOMIC_ACQUIRE) > 0 && evpy_milliseconds() < end)
		evpy_rest();
	return pthread_mutex_lock(&lock->mutex);
}

static int evpy_lock_lock(unsigned mode, void *arg)
{
	struct evpy_lock *lock = arg;
	uintptr_t me = evpy_self();
	int result;

	if (lock->recursive && evpy_owner(lock) == me) {
		++lock->depth;
		return 0;
	}
	if (mode & EVTHREAD_TRY) {
		result = pthread_mutex_trylock(&lock->mutex);
	} else {
		result = pthread_mutex_lock(&lock->mutex);
		if (result == 0 && __atomic_load_n(&evpy_forking, __ATOMIC_RELAXED) > 0)
			result = evpy_give_way(lock, me);
	}
	if (result == 0) {
		evpy_own(lock, me);
		lock->depth = 1;
	}
	return result;
}

static int evpy_lock_unlock(unsigned mode, void *arg)
{
	struct evpy_lock *lock = arg;

	(void)mode;
	if (lock->recursive) {
		if (evpy_owner(lock) != evpy_self())
			return EPERM;
		if (--lock->depth > 0)
			return 0;
	}
	evpy_own(lock, 0);
	return pthread_mutex_unlock(&lock->mutex);
}

static void *evpy_condition_alloc(unsigned type)
{
	struct evpy_condition *condition = evpy_calloc(1, sizeof *condition);

	(void)type;
	if (condition == NULL)
		return NULL;
	if (pthread_cond_init(&condition->condition, NULL) != 0) {
		evpy_free(condition);
		return NULL;
	}
	pthread_mutex_lock(&evpy_all);
	condition->next = evpy_conditions;
	condition->previous = &evpy_conditions;
	if (condition->next != NULL)
		condition->next->previous = &condition->next;
	evpy_conditions = condition;
	pthread_mutex_unlock(&evpy_all);
	return condition;
}

static void evpy_condition_free(void *arg)
{
	struct evpy_condition *condition = arg;

	pthread_mutex_lock(&evpy_all);
	*condition->previous = condition->next;
	if (condition->next != NULL)
		condition->next->previous = condition->previous;
	pthread_mutex_unlock(&evpy_all);
	pthread_cond_destroy(&condition->condition);
	evpy_free(condition);
}

static int evpy_condition_signal(void *arg, int broadcast)
{
	struct evpy_condition *condition = arg;
	int result = broadcast ? pthread_cond_broadcast(&condition->condition)
			       : pthread_cond_signal(&condition->condition);

	return result == 0 ? 0 : -1;
}

static int evpy_condition_wait(void *arg, void *held, const struct timeval *timeout)
{
	struct evpy_condition *condition = arg;
	struct evpy_lock *lock = held;
	unsigned depth = lock->depth;
	struct timespec end;
	int result;

	evpy_own(lock, 0);
	if (timeout == NULL) {
		result = pthread_cond_wait(&condition->condition, &lock->mutex);
	} else {
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += timeout->tv_sec;
		end.tv_nsec += timeout->tv_usec * 1000;
		if (end.tv_nsec >= 1000000000) {
			end.tv_nsec -= 1000000000;
			++end.tv_sec;
		}
		result = pthread_cond_timedwait(&condition->condition, &lock->mutex, &end);
	}
	evpy_own(lock, evpy_self());
	lock->depth = depth;
	return result == ETIMEDOUT ? 1 : result == 0 ? 0 : -1;
}

/* Around a fork. */

static void evpy_leave_all(void)
{
	struct evpy_lock *lock;

	for (lock = evpy_locks; lock != NULL; lock = lock->next) {
		if (lock->taken) {
			lock->taken = 0;
			pthread_mutex_unlock(&lock->mutex);
		}
	}
	pthread_mutex_unlock(&evpy_all);
}

/* Take all locks but those that this thread has, and return whether no other thread has one. */
static int evpy_take_all(void)
{
	uintptr_t me = evpy_self();
	struct evpy_lock *lock;
	int all = 1;

	pthread_mutex_lock(&evpy_all);
	for (lock = evpy_locks; lock != NULL; lock = lock->next) {
		if (evpy_owner(lock) == me)
			continue;
		lock->taken = pthread_mutex_trylock(&lock->mutex) == 0;
		all &= lock->taken;
	}
	return all;
}

/* Take all locks at once, for up to so many milliseconds; after that, those that can be had. */
static int evpy_take_all_within(long milliseconds)
{
	long end = evpy_milliseconds() + milliseconds;
	int all;

	while (!(all = evpy_take_all()) && evpy_milliseconds() < end) {
		evpy_leave_all();
		evpy_rest();
	}
	return all;
}

/* Make the other threads leave libevent, and stay out of it until evpy_fork_done(). Call it without the GIL, which
 * they may need in order to leave. */
static void evpy_fork_soon(void)
{
	__atomic_add_fetch(&evpy_forking, 1, __ATOMIC_SEQ_CST);
	evpy_prepared = 1;
	evpy_take_all_within(EVPY_PATIENCE);
	evpy_leave_all();
}

static void evpy_fork_done(void)
{
	evpy_prepared = 0;
	__atomic_sub_fetch(&evpy_forking, 1, __ATOMIC_SEQ_CST);
}

/* The last moment before the fork. Python may have the GIL. */
static void evpy_at_fork(void)
{
	__atomic_add_fetch(&evpy_forking, 1, __ATOMIC_SEQ_CST);
	evpy_take_all_within(evpy_prepared ? EVPY_SHORTEST : EVPY_SHORT);
}

static void evpy_after_fork_in_parent(void)
{
	evpy_leave_all();
	__atomic_sub_fetch(&evpy_forking, 1, __ATOMIC_SEQ_CST);
}

static void evpy_after_fork_in_child(void)
{
	uintptr_t me = evpy_self();
	struct evpy_condition *condition;
	struct evpy_lock *lock;

	pthread_mutex_init(&evpy_all, NULL);
	for (lock = evpy_locks; lock != NULL; lock = lock->next) {
		uintptr_t owner = evpy_owner(lock);

		pthread_mutex_init(&lock->mutex, NULL);
		if (owner == me) {
			pthread_mutex_lock(&lock->mutex);
		} else if (owner != 0) {
			lock->lost_by = owner;
			evpy_own(lock, 0);
			lock->depth = 0;
		}
		lock->taken = 0;
	}
	for (condition = evpy_conditions; condition != NULL; condition = condition->next)
		pthread_cond_init(&condition->condition, NULL);
	evpy_prepared = 0;
	__atomic_store_n(&evpy_forking, 0, __ATOMIC_SEQ_CST);
}

/* Report each lock that was lost when this process was forked, once: return the thread that held it, or 0 if there
 * is none left; `object` gets the object that it belongs to, or 0 if that is unknown. */
static uintptr_t evpy_lost(uintptr_t *object)
{
	struct evpy_lock *lock;
	uintptr_t thread = 0;

	pthread_mutex_lock(&evpy_all);
	for (lock = evpy_locks; lock != NULL && thread == 0; lock = lock->next) {
		thread = lock->lost_by;
		lock->lost_by = 0;
		*object = (uintptr_t)lock->object;
	}
	pthread_mutex_unlock(&evpy_all);
	return thread;
}

/* Held for a few instructions, or while libevent reads or changes headers and URIs, which have no locks. While it
 * is held, no other lock is taken except that of a file segment. */
static struct evpy_lock evpy_memory_lock = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void evpy_memory_hold(void)
{
	evpy_lock_lock(0, &evpy_memory_lock);
}

static void evpy_memory_leave(void)
{
	evpy_lock_unlock(0, &evpy_memory_lock);
}

/* Switch libevent's locks on; return 0, or -1. If other code in this process has done so before, libevent keeps
 * those locks, which don't survive a fork. */
static int evpy_use_threads(void)
{
	static const struct evthread_lock_callbacks locks = {EVTHREAD_LOCK_API_VERSION,
	    EVTHREAD_LOCKTYPE_RECURSIVE, evpy_lock_alloc, evpy_lock_free, evpy_lock_lock,
	    evpy_lock_unlock};
	static const struct evthread_condition_callbacks conditions = {
	    EVTHREAD_CONDITION_API_VERSION, evpy_condition_alloc, evpy_condition_free,
	    evpy_condition_signal, evpy_condition_wait};
	int result;

	evpy_lock_register(&evpy_memory_lock);
	errno = pthread_atfork(evpy_at_fork, evpy_after_fork_in_parent, evpy_after_fork_in_child);
	if (errno != 0)
		return -1;
	evpy_log_install();
	evpy_log_expected = 1;
	result = evthread_set_lock_callbacks(&locks);
	evpy_log_expected = 0;
	if (result < 0)
		return evthread_use_pthreads();
	if (evthread_set_condition_callbacks(&conditions) < 0)
		return -1;
	evthread_set_id_callback(evpy_thread_id);
	return 0;
}
