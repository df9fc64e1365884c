/* Traces the calls of a program to libevent, put before libevent by LD_PRELOAD.
 *
 * Each public function is defined here once more; functions.inc, made at build time from the cdefs, has their
 * bodies. Such a function looks where it was called from. If that is in libevent itself, it only passes the call
 * on. Otherwise it writes down its name and arguments in C's syntax, calls the real function, and then writes one
 * line with the result.
 *
 * The real function is found by dlsym(RTLD_NEXT), or, as a Python process has libevent outside the global scope,
 * in the libraries of that name that are loaded.
 *
 * What isn't told yet lies in memory that is shared with the process that has begun the trace. So a program that
 * crashes leaves a complete trace: that process tells the last calls, and how the program has ended.
 *
 * Callbacks are wrapped as they are handed over. libevent gets one of our functions, and as its argument a record
 * that says what the user's are. Records are never freed, as nobody can tell when libevent uses one last; equal
 * ones are made once. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#if __has_include(<execinfo.h>)
#include <execinfo.h>
#else
#define backtrace(frames, size) 0 /* musl has none */
#endif
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include <event2/event.h>
#include <event2/event_compat.h>
#include <event2/event_struct.h>
#include <event2/buffer.h>
#include <event2/buffer_compat.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_compat.h>
#include <event2/listener.h>
#include <event2/dns.h>
#include <event2/dns_compat.h>
#include <event2/dns_struct.h>
#include <event2/http.h>
#include <event2/http_compat.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/tag.h>
#include <event2/thread.h>
#include <event2/util.h>
#include <event2/rpc.h>
#include <event2/rpc_struct.h>
#if LIBEVENT_PY_HAVE_OPENSSL
#include <event2/bufferevent_ssl.h>
#endif

#define ROOM 4000
#define DEEPEST_STACK 24

/* Shared with the process that has begun the trace, which knows this layout: see libevent_py/_cli/trace.py. */
struct pending {
	int32_t pid, thread;
	uint32_t length;
	char text[ROOM + 80];
};
struct count {
	uint64_t calls, errors, nanoseconds;
};
/* How often what is to fail was called, and how often it has failed. */
struct taken {
	uint64_t seen, failed;
};
#define PENDING 256
#define FAULTS 32
struct shared {
	struct pending pending[PENDING];
	struct taken faults[FAULTS];
	struct count counts[];
};

struct call {
	int id, first, told, result_begun, injected, error;
	intptr_t value;
	uint64_t begin;
	struct call *outer;
};

/* What a thread is doing. */
struct thread {
	struct pending *pending;
	struct call *innermost;
	unsigned int depth; /* of callbacks */
	int busy;     /* it runs our own code */
	uint64_t last;
};
static _Thread_local struct thread thread;

enum { OFF, ON };
static struct {
	int state, out, pid, follow, inside, counting, relative, stamped, stack;
	size_t size;
	char path[512];
	struct shared *shared;
} trace = {.out = -1, .size = 32};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t thread_ends;

/* The functions, by id: made at build time. */
struct function {
	const char *name;
	_Atomic(void *) real;
	int wanted;
};
static struct function functions[];

/* Faults to be injected. */
struct fault {
	int id, errors;
	intptr_t value;
	unsigned long first, last;
	_Atomic(unsigned long) seen;
};
#define MEMORY (-2) /* in place of a function's id: what libevent allocates */
static struct fault faults[FAULTS];
static int nfaults, nmemory_faults;

/* Where libevent is. */
#define LIBRARIES 16
static struct {
	uintptr_t from, to;
	void *handle;
} libraries[LIBRARIES];
static _Atomic(int) nlibraries;

static int note_library(struct dl_phdr_info *info, size_t size, void *unused)
{
	const char *name = strrchr(info->dlpi_name, '/');
	int i, n = nlibraries;

	(void)size;
	(void)unused;
	name = name == NULL ? info->dlpi_name : name + 1;
	if (strncmp(name, "libevent", 8) != 0 || n == LIBRARIES)
		return 0;
	for (i = 0; i < info->dlpi_phnum; ++i) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		int known = 0, k;

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
			continue;
		for (k = 0; k < n; ++k)
			known |= libraries[k].from == info->dlpi_addr + part->p_vaddr;
		if (known)
			continue;
		libraries[n].from = info->dlpi_addr + part->p_vaddr;
		libraries[n].to = libraries[n].from + part->p_memsz;
		libraries[n].handle = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
		nlibraries = ++n;
		if (n == LIBRARIES)
			break;
	}
	return 0;
}

static int is_inside(const void *from)
{
	int i, n = nlibraries;

	for (i = 0; i < n; ++i)
		if ((uintptr_t)from >= libraries[i].from && (uintptr_t)from < libraries[i].to)
			return 1;
	return 0;
}

/* A call that comes while another one is under way, and no callback has begun, is libevent's own, too: it may
 * have been made by a jump, so that it returns to the program. */
static int is_own(const void *from)
{
	return thread.innermost != NULL || is_inside(from);
}

/* Whether a call that hands over callbacks is passed on as it is. */
static int passes_on(const void *from)
{
	return trace.state == OFF || thread.busy || is_own(from);
}

static void refuse_memory(void);

static void *find(int id)
{
	void *real = functions[id].real;
	int i, busy = thread.busy;

	if (real != NULL)
		return real;
	thread.busy = 1;
	pthread_mutex_lock(&lock);
	dl_iterate_phdr(note_library, NULL);
	pthread_mutex_unlock(&lock);
	real = dlsym(RTLD_NEXT, functions[id].name);
	for (i = 0; real == NULL && i < nlibraries; ++i)
		if (libraries[i].handle != NULL)
			real = dlsym(libraries[i].handle, functions[id].name);
	refuse_memory();
	thread.busy = busy;
	if (real == NULL) {
		dprintf(2, "libevent_py: trace: there is no %s in the program's libevent\n",
		    functions[id].name);
		abort();
	}
	functions[id].real = real;
	return real;
}

static void *find_by_name(const char *name)
{
	void *real = dlsym(RTLD_NEXT, name);
	int i;

	for (i = 0; real == NULL && i < nlibraries; ++i)
		if (libraries[i].handle != NULL)
			real = dlsym(libraries[i].handle, name);
	return real;
}

/* What a program passes to have the event itself as its callback's argument. */
static void *self_cbarg(void)
{
	static void *known;

	if (known == NULL)
		known = ((void *(*)(void))find_by_name("event_self_cbarg"))();
	return known;
}

/* Who asks which OpenSSL libevent_openssl is linked with, as the package does, finds this library in its place. */
unsigned long OpenSSL_version_num(void);
unsigned long OpenSSL_version_num(void)
{
	unsigned long (*real)(void) = (unsigned long (*)(void))find_by_name("OpenSSL_version_num");

	return real == NULL ? 0 : real();
}

/* Text. It is put into the memory that is shared, and cut where there is no more room. */

static void put(const char *text, size_t size)
{
	struct pending *pending = thread.pending;
	size_t left = ROOM - pending->length;

	if (size > left)
		size = left;
	memcpy(pending->text + pending->length, text, size);
	pending->length += size;
}

static void put_text(const char *text)
{
	put(text, strlen(text));
}

static void put_number(intmax_t number)
{
	char digits[24], *at = digits + sizeof digits;
	uintmax_t left = number < 0 ? -(uintmax_t)number : (uintmax_t)number;

	do
		*--at = '0' + left % 10;
	while ((left /= 10) != 0);
	if (number < 0)
		*--at = '-';
	put(at, digits + sizeof digits - at);
}

static void put_unsigned(uintmax_t number)
{
	char digits[24];

	put(digits, snprintf(digits, sizeof digits, "%ju", number));
}

static void put_pointer(const volatile void *pointer)
{
	char digits[24];

	if (pointer == NULL)
		put_text("NULL");
	else
		put(digits, snprintf(digits, sizeof digits, "%#" PRIxPTR, (uintptr_t)pointer));
}

static void put_bytes(const void *data, size_t size)
{
	static const char letters[] = "\a\b\t\n\v\f\r", names[] = "abtnvfr",
			  hex[] = "0123456789abcdef";
	const unsigned char *byte = data;
	size_t i, most = size < trace.size ? size : trace.size;

	if (data == NULL) {
		put_text("NULL");
		return;
	}
	put("\"", 1);
	for (i = 0; i < most; ++i) {
		char out[4] = {'\\', 0, 0, 0};
		const char *known = byte[i] ? strchr(letters, byte[i]) : NULL;

		if (known != NULL) {
			out[1] = names[known - letters];
			put(out, 2);
		} else if (byte[i] == '"' || byte[i] == '\\') {
			out[1] = byte[i];
			put(out, 2);
		} else if (byte[i] < 32 || byte[i] > 126) {
			out[1] = 'x';
			out[2] = hex[byte[i] >> 4];
			out[3] = hex[byte[i] & 15];
			put(out, 4);
		} else {
			put((const char *)&byte[i], 1);
		}
	}
	put(size > most ? "\"..." : "\"", size > most ? 4 : 1);
}

static void put_string(const char *text)
{
	put_bytes(text, text == NULL ? 0 : strlen(text));
}

struct name {
	long value;
	const char *name;
};

static void put_name(long value, const struct name *names)
{
	for (; names->name != NULL; ++names)
		if (names->value == value) {
			put_text(names->name);
			return;
		}
	put_number(value);
}

static void put_flags(long value, const struct name *names)
{
	int some = 0;

	for (; names->name != NULL; ++names)
		if (names->value == value ||
		    (names->value != 0 && (value & names->value) == names->value)) {
			if (some)
				put("|", 1);
			put_text(names->name);
			value &= ~names->value;
			some = 1;
			if (value == 0)
				return;
		}
	if (some)
		put("|", 1);
	if (value == 0 || (value > 0 && value < 9))
		put_number(value);
	else {
		char digits[24];
		put(digits, snprintf(digits, sizeof digits, "%#lx", (unsigned long)value));
	}
}

static void put_timeval(const struct timeval *tv)
{
	char text[64];

	if (tv == NULL)
		put_text("NULL");
	else if (((unsigned long)tv->tv_usec & 0xfff00000) ==
	    0x50000000) /* see event_base_init_common_timeout */
		put(text,
		    snprintf(text, sizeof text, "{%ld.%06ld s, common}", (long)tv->tv_sec,
			(long)tv->tv_usec & 0xfffff));
	else
		put(text,
		    snprintf(
			text, sizeof text, "{%ld.%06ld s}", (long)tv->tv_sec, (long)tv->tv_usec));
}

static void put_sockaddr(const struct sockaddr *address)
{
	char host[64] = "?";

	if (address == NULL) {
		put_text("NULL");
	} else if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)address;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
		put_text(host);
		put(":", 1);
		put_number(ntohs(in->sin_port));
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;

		inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
		put("[", 1);
		put_text(host);
		put("]:", 2);
		put_number(ntohs(in->sin6_port));
	} else if (address->sa_family == AF_UNIX) {
		put_string(((const struct sockaddr_un *)address)->sun_path);
	} else {
		put_text("{family ");
		put_number(address->sa_family);
		put("}", 1);
	}
}

static void put_evbuffer_ptr(const struct evbuffer_ptr *position)
{
	if (position == NULL) {
		put_text("NULL");
		return;
	}
	put_text("{pos ");
	put_number(position->pos);
	put("}", 1);
}

#define PUT_NUMBER_AT(pointer) \
	do { \
		if ((pointer) == NULL) { \
			put_text("NULL"); \
		} else { \
			put("[", 1); \
			put_number(*(pointer)); \
			put("]", 1); \
		} \
	} while (0)

/* Objects have numbers, by kind, from the moment when they are seen first until they are freed. */
struct object {
	const void *pointer;
	int kind, number, of;
	const char *label; /* such as "output of " */
	void *users[4];	   /* callbacks that have no argument of their own */
	int is_over; /* libevent itself will have freed it when its memory is seen again */
	struct object *next;
};
#define BUCKETS 4096
static struct object *objects[BUCKETS], *unused_objects;
static const char *const kinds[];
static int numbers[64];

static unsigned int bucket(const void *pointer)
{
	uintptr_t bits = (uintptr_t)pointer;

	return ((bits >> 4) ^ (bits >> 16)) % BUCKETS;
}

static struct object *known(const void *pointer, int kind)
{
	struct object *object = objects[bucket(pointer)];

	while (object != NULL && (object->pointer != pointer || object->kind != kind))
		object = object->next;
	return object;
}

/* With the lock held. */
static struct object *noted(const void *pointer, int kind)
{
	struct object *object = known(pointer, kind);

	if (object != NULL)
		return object;
	if ((object = unused_objects) != NULL)
		unused_objects = object->next;
	else if ((object = malloc(sizeof *object)) == NULL)
		abort();
	*object = (struct object){.pointer = pointer, .kind = kind, .number = ++numbers[kind]};
	object->next = objects[bucket(pointer)];
	objects[bucket(pointer)] = object;
	return object;
}

static void forget(const void *pointer, int kind)
{
	struct object **at, *object;

	pthread_mutex_lock(&lock);
	for (at = &objects[bucket(pointer)]; (object = *at) != NULL; at = &object->next)
		if (object->pointer == pointer && object->kind == kind) {
			*at = object->next;
			object->next = unused_objects;
			unused_objects = object;
			break;
		}
	pthread_mutex_unlock(&lock);
}

static void note_parts_of(const void *pointer, int kind);

/* Note that a callback gets the object for the first time. */
static void note_new(const void *pointer, int kind)
{
	struct object *object;

	pthread_mutex_lock(&lock);
	object = noted(pointer, kind);
	if (object->is_over)
		object->number = ++numbers[kind];
	object->is_over = 1;
	pthread_mutex_unlock(&lock);
	note_parts_of(pointer, kind);
}

static void put_object(const void *pointer, int kind)
{
	struct object object;
	int is_new;

	if (pointer == NULL) {
		put_text("NULL");
		return;
	}
	pthread_mutex_lock(&lock);
	is_new = known(pointer, kind) == NULL;
	object = *noted(pointer, kind);
	pthread_mutex_unlock(&lock);
	if (is_new)
		note_parts_of(pointer, kind);
	if (object.label != NULL)
		put_text(object.label);
	else
		put_text(kinds[kind]);
	put("#", 1);
	put_number(object.label != NULL ? object.of : object.number);
}

/* Note that *part* belongs to *whole*, and is called by the label from now on. */
static void note_part(const void *part, int kind, const char *label, const void *whole, int of)
{
	struct object *object;

	if (part == NULL)
		return;
	pthread_mutex_lock(&lock);
	object = known(part, kind);
	if (object == NULL) {
		object = noted(part, kind);
		--numbers[kind]; /* its own number is never told */
	}
	object->label = label;
	object->of = noted(whole, of)->number;
	pthread_mutex_unlock(&lock);
}

/* Callbacks. */

struct record {
	void *users[4];
	void *arg;
	struct record *next;
};
#define ARENA ((size_t)1 << 32)
static struct record *arena, *arena_end, *arena_next, *interned[1 << 14];

static int is_record(const void *pointer)
{
	return arena != NULL && (const struct record *)pointer >= arena &&
	    (const struct record *)pointer < arena_end;
}

/* The record for the callbacks *users* with *arg*; one of its own if it is not to be *shared*. */
static struct record *record_for(void *const users[4], void *arg, int is_shared)
{
	struct record wanted = {.arg = arg}, *record;
	unsigned int at;

	memcpy(wanted.users, users, sizeof wanted.users);
	at = (((uintptr_t)arg >> 4) ^ ((uintptr_t)users[0] >> 3) ^ ((uintptr_t)arg >> 18)) %
	    (1 << 14);
	pthread_mutex_lock(&lock);
	if (arena == NULL) {
		arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (arena == MAP_FAILED)
			abort();
		arena_next = arena;
		arena_end = arena + ARENA / sizeof *arena;
	}
	for (record = is_shared ? interned[at] : NULL; record != NULL; record = record->next)
		if (record->arg == arg && memcmp(record->users, users, sizeof wanted.users) == 0)
			break;
	if (record == NULL) {
		if (arena_next == arena_end)
			abort();
		record = arena_next++;
		*record = wanted;
		if (is_shared) {
			record->next = interned[at];
			interned[at] = record;
		}
	}
	pthread_mutex_unlock(&lock);
	return record;
}

static void put_error(int error)
{
#ifdef __GLIBC__
	const char *name = strerrorname_np(error);

	if (name != NULL) {
		put_text(name);
		return;
	}
#endif
	put_text("errno ");
	put_number(error);
}

static void put_function(const volatile void *function)
{
	Dl_info info;

	if (function != NULL && dladdr((const void *)function, &info) && info.dli_sname != NULL &&
	    info.dli_saddr == (const void *)function)
		put_text(info.dli_sname);
	else
		put_pointer(function);
}

/* Lines. */

static int open_out(void)
{
	if (trace.path[0] != '\0')
		return open(trace.path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	return fcntl(2, F_DUPFD_CLOEXEC, 200);
}

static void write_out(const char *text, size_t size)
{
	while (size > 0) {
		ssize_t done = write(trace.out, text, size);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EBADF && trace.path[0] != '\0') {
			/* The program has closed all descriptors. */
			if ((trace.out = open_out()) < 0)
				return;
			continue;
		}
		if (done <= 0)
			return;
		text += done;
		size -= done;
	}
}

static uint64_t now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* Write what is pending as a line, with *end* behind it. */
static void tell(const char *end)
{
	struct pending *pending = thread.pending;
	size_t size = strlen(end);

	memcpy(pending->text + pending->length, end, size);
	if (!trace.counting)
		write_out(pending->text, pending->length + size);
	pending->length = 0;
}

static void put_where(void)
{
	char text[64];
	unsigned int i;

	if (trace.follow) {
		put("[", 1);
		put_number(thread.pending->pid);
		put("] ", 2);
	}
	if (trace.stamped) {
		struct timeval tv;
		struct tm tm;

		gettimeofday(&tv, NULL);
		localtime_r(&tv.tv_sec, &tm);
		put(text,
		    snprintf(text, sizeof text, "%02d:%02d:%02d.%06ld ", tm.tm_hour, tm.tm_min,
			tm.tm_sec, (long)tv.tv_usec));
	}
	if (trace.relative) {
		uint64_t time = now(CLOCK_MONOTONIC), since = thread.last ? time - thread.last : 0;

		thread.last = time;
		put(text,
		    snprintf(text, sizeof text, "%6ju.%06ju ", (uintmax_t)(since / 1000000000),
			(uintmax_t)(since % 1000000000 / 1000)));
	}
	for (i = 0; i < thread.depth; ++i)
		put("  ", 2);
}

static void put_stack(void);

static void release_slot(void *slot)
{
	((struct pending *)slot)->pid = 0;
	thread.pending = NULL;
}

/* Take a place in the shared memory; without one, the thread isn't traced. */
static int take_slot(void)
{
	int i;

	for (i = 0; i < PENDING; ++i) {
		int32_t free_one = 0;
		struct pending *slot = &trace.shared->pending[i];

		if (__atomic_compare_exchange_n(
			&slot->pid, &free_one, getpid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			slot->thread = syscall(SYS_gettid);
			slot->length = 0;
			thread.pending = slot;
			pthread_setspecific(thread_ends, slot);
			return 1;
		}
	}
	return 0;
}

/* What a call has told so far gets a line of its own, because something comes in between. */
static void interrupt_call(void)
{
	struct call *call = thread.innermost;

	if (call == NULL || call->told)
		return;
	call->told = 1;
	tell(" <unfinished ...>\n");
}

/* Each of a function's faults counts its calls; of those that are for this one, the first is taken. */
static struct fault *fault_for(int id)
{
	struct fault *found = NULL;
	int i;

	for (i = 0; i < nfaults; ++i)
		if (faults[i].id == id) {
			unsigned long number = ++faults[i].seen;

			__atomic_add_fetch(&trace.shared->faults[i].seen, 1, __ATOMIC_RELAXED);
			if (found == NULL && number >= faults[i].first && number <= faults[i].last)
				found = &faults[i];
		}
	return found;
}

static void note_failed(const struct fault *fault)
{
	__atomic_add_fetch(&trace.shared->faults[fault - faults].failed, 1, __ATOMIC_RELAXED);
}

static int begin_call(struct call *call, int id, const void *from)
{
	struct fault *fault;
	int known_error = errno;

	if (trace.state == OFF || thread.busy || !(functions[id].wanted || nfaults) ||
	    (!trace.inside && is_own(from)))
		return 0;
	fault = nfaults ? fault_for(id) : NULL;
	if (!functions[id].wanted && fault == NULL)
		return 0;
	if (thread.pending == NULL && !take_slot())
		return 0;
	thread.busy = 1;
	interrupt_call();
	*call = (struct call){.id = id, .first = 1, .outer = thread.innermost};
	if (fault != NULL) {
		note_failed(fault);
		call->injected = 1;
		call->value = fault->value;
		call->error = fault->errors;
	}
	thread.innermost = call;
	put_where();
	put_text(functions[id].name);
	put("(", 1);
	errno = known_error;
	return 1;
}

/* Before each argument. */
static void next(struct call *call)
{
	if (call->first)
		call->first = 0;
	else
		put(", ", 2);
}

static void enter(struct call *call)
{
	thread.busy = 0;
	if (trace.counting)
		call->begin = now(CLOCK_MONOTONIC);
	if (call->injected)
		errno = call->error;
}

/* After the real function; then come the arguments that it has filled in. */
static void leave(struct call *call)
{
	if (trace.counting)
		call->begin = now(CLOCK_MONOTONIC) - call->begin;
	thread.busy = 1;
	if (call->told) {
		put_where();
		put_text("<... ");
		put_text(functions[call->id].name);
		put_text(" resumed>");
	}
}

static void result(struct call *call)
{
	call->result_begun = 1;
	put_text(") = ");
}

static void end_call(struct call *call, int known_error, int failed)
{
	if (!call->result_begun)
		put(")", 1);
	if (failed && known_error) {
		put(" ", 1);
		put_error(known_error);
	}
	if (call->injected)
		put_text(" (INJECTED)");
	if (trace.counting) {
		struct count *count = &trace.shared->counts[call->id];

		__atomic_add_fetch(&count->calls, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&count->errors, failed != 0, __ATOMIC_RELAXED);
		__atomic_add_fetch(&count->nanoseconds, call->begin, __ATOMIC_RELAXED);
	}
	thread.innermost = call->outer;
	tell("\n");
	if (trace.stack)
		put_stack();
	thread.busy = 0;
	errno = known_error;
}

/* Memory that is refused. libevent gets functions that refuse what is to fail, and else call the program's. Those
 * of a Python program refuse it themselves: what the package puts aside for want of memory is beneath them. */

static struct {
	void *(*new)(size_t);
	void *(*resize)(void *, size_t);
	void (*release)(void *);
	void *(*asking)(size_t); /* the program's, if these ask by themselves */
	_Atomic(int) installed;
} memory = {.new = malloc, .resize = realloc, .release = free};

static int refuses(const void *old, size_t size)
{
	struct fault *fault;

	if (trace.state == OFF || thread.busy || size == 0 || (fault = fault_for(MEMORY)) == NULL)
		return 0;
	note_failed(fault);
	if (thread.pending != NULL || take_slot()) {
		thread.busy = 1;
		interrupt_call();
		put_where();
		put_text(old == NULL ? "malloc(" : "realloc(");
		if (old != NULL) {
			put_pointer(old);
			put(", ", 2);
		}
		put_unsigned(size);
		put_text(") = NULL ");
		put_error(fault->errors);
		tell(" (INJECTED)\n");
		thread.busy = 0;
	}
	errno = fault->errors;
	return 1;
}

static void *memory_new(size_t size)
{
	return refuses(NULL, size) ? NULL : memory.new(size);
}

static void *memory_resize(void *old, size_t size)
{
	return refuses(old, size) ? NULL : memory.resize(old, size);
}

/* Give libevent these functions, as soon as there is one. */
static void refuse_memory(void)
{
	__typeof__(&event_set_mem_functions) set;

	if (nmemory_faults == 0 || memory.installed)
		return;
	set = (__typeof__(&event_set_mem_functions))find_by_name("event_set_mem_functions");
	if (set == NULL)
		return;
	memory.installed = 1;
	set(memory_new, memory_resize, memory.release);
}

/* For the package's own functions: what they are to ask before they allocate, or NULL. */
__attribute__((visibility("default"))) int (*libevent_py_refuses(void *(*new)(size_t)))(
    const void *, size_t)
{
	memory.asking = new;
	return nmemory_faults != 0 ? refuses : NULL;
}

/* For those who read what is shared: how many functions there are, and their names. */
__attribute__((visibility("default"))) const char *libevent_py_traced(int id)
{
	return functions[id].name;
}

struct callback {
	struct call *outer;
	int traced;
};

static void begin_callback(struct callback *callback, const char *name)
{
	callback->traced =
	    trace.state == ON && !thread.busy && (thread.pending != NULL || take_slot());
	if (!callback->traced)
		return;
	thread.busy = 1;
	interrupt_call();
	callback->outer = thread.innermost;
	thread.innermost = NULL;
	put_where();
	put_text("<- ");
	put_text(name);
	put("(", 1);
}

static void enter_callback(struct callback *callback)
{
	if (!callback->traced)
		return;
	tell(")\n");
	++thread.depth;
	thread.busy = 0;
}

static void end_callback(struct callback *callback, const char *name)
{
	int known_error = errno;

	if (!callback->traced)
		return;
	thread.busy = 1;
	--thread.depth;
	put_where();
	put_text("-> ");
	put_text(name);
	tell("\n");
	thread.innermost = callback->outer;
	thread.busy = 0;
	errno = known_error;
}

/* Where a call comes from: Python's own frames, by what faulthandler uses, or C's. */
static void put_stack(void)
{
	void *(*state_of)(void) =
	    (void *(*)(void))dlsym(RTLD_DEFAULT, "PyGILState_GetThisThreadState");
	void (*dump)(int, void *) = (void (*)(int, void *))dlsym(RTLD_DEFAULT, "_Py_DumpTraceback");
	void *frames[DEEPEST_STACK], *state = state_of != NULL && dump != NULL ? state_of() : NULL;
	int i, n;

	if (state != NULL) {
		dump(trace.out, state);
		return;
	}
	n = backtrace(frames, DEEPEST_STACK);
	for (i = 3; i < n; ++i) { /* without our own */
		Dl_info info = {0};

		put_text(" > ");
		if (dladdr(frames[i], &info) && info.dli_fname != NULL) {
			put_text(info.dli_fname);
			put("(", 1);
			if (info.dli_sname != NULL)
				put_text(info.dli_sname);
			put("+", 1);
			put_pointer((void *)((uintptr_t)frames[i] -
			    (uintptr_t)(info.dli_saddr != NULL ? info.dli_saddr : info.dli_fbase)));
			put(")", 1);
		} else {
			put_pointer(frames[i]);
		}
		tell("\n");
	}
}

static void after_fork(void)
{
	thread = (struct thread){.depth = thread.depth};
	pthread_mutex_init(&lock, NULL);
	if (!trace.follow)
		trace.state = OFF;
}

static int number_of(const char *name)
{
	int i;

	for (i = 0; functions[i].name != NULL; ++i)
		if (strcmp(functions[i].name, name) == 0)
			return i;
	return -1;
}

__attribute__((constructor)) static void begin_trace(void)
{
	const char *options = getenv("LIBEVENT_PY_TRACE"), *only = getenv("LIBEVENT_PY_TRACE_ONLY"),
		   *injected = getenv("LIBEVENT_PY_TRACE_INJECT");
	char memory[512] = "", name[128];
	int fd, used = 0, i;
	struct stat facts;

	if (options == NULL)
		return;
	if (sscanf(options, "%d %d %d %d %d %d %d %zu %511[^\n] %511[^\n]", &trace.pid,
		&trace.follow, &trace.inside, &trace.counting, &trace.relative, &trace.stamped,
		&trace.stack, &trace.size, memory, trace.path) < 9)
		return;
	if (!trace.follow && getpid() != trace.pid)
		return;
	fd = open(memory, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &facts) < 0)
		return;
	trace.shared = mmap(NULL, facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (trace.shared == MAP_FAILED || (trace.out = open_out()) < 0)
		return;
	for (i = 0; functions[i].name != NULL; ++i)
		functions[i].wanted = only == NULL;
	for (; only != NULL && sscanf(only, "%127[^,]%n", name, &used) == 1;
	    only += used + (only[used] == ','))
		if ((i = number_of(name)) >= 0)
			functions[i].wanted = 1;
	for (; injected != NULL && nfaults < FAULTS;
	    injected = strchr(injected, ';'), injected += injected != NULL) {
		struct fault *fault = &faults[nfaults];
		long value;

		if (sscanf(injected, "%127s %ld %d %lu %lu", name, &value, &fault->errors,
			&fault->first, &fault->last) != 5)
			break;
		fault->value = value;
		fault->id = strcmp(name, "malloc") == 0 ? MEMORY : number_of(name);
		nmemory_faults += fault->id == MEMORY;
		nfaults += fault->id != -1;
	}
	pthread_key_create(&thread_ends, release_slot);
	pthread_atfork(NULL, NULL, after_fork);
	dl_iterate_phdr(note_library, NULL);
	trace.state = ON;
	refuse_memory();
}

#include "functions.inc"

/* The parts of a bufferevent or a request are called so also where nobody has asked for them: by what has the
 * struct's fields. */
static void note_parts_of(const void *pointer, int kind)
{
	static const struct {
		int id, of, kind;
		const char *label;
	} parts[] = {
	    {ID_bufferevent_get_input, KIND_bufferevent, KIND_evbuffer, "input of bev"},
	    {ID_bufferevent_get_output, KIND_bufferevent, KIND_evbuffer, "output of bev"},
	    {ID_evhttp_request_get_input_buffer, KIND_evhttp_request, KIND_evbuffer,
		"input of req"},
	    {ID_evhttp_request_get_output_buffer, KIND_evhttp_request, KIND_evbuffer,
		"output of req"},
	    {ID_evhttp_request_get_input_headers, KIND_evhttp_request, KIND_evkeyvalq,
		"input headers of req"},
	    {ID_evhttp_request_get_output_headers, KIND_evhttp_request, KIND_evkeyvalq,
		"output headers of req"},
	};
	size_t i;

	for (i = 0; i < sizeof parts / sizeof *parts; ++i) {
		void *(*get)(const void *);

		if (parts[i].of != kind)
			continue;
		get = (void *(*)(const void *))find(parts[i].id);
		note_part(get(pointer), parts[i].kind, parts[i].label, pointer, kind);
	}
}

/* What is told in another way than the types say. */

#define BY_HAND(function) \
	__typeof__(&function) real = (__typeof__(&function))find(ID_##function); \
	struct call call; \
	int traced = begin_call(&call, ID_##function, __builtin_return_address(0)), known_error

/* The user's callback where libevent has one of ours, whose record is *arg. */
static void *unwrapped(void *callback, void **arg, int which)
{
	if (!is_record(*arg))
		return callback;
	return ((struct record *)*arg)->users[which];
}

static void *argument(void *arg)
{
	return is_record(arg) ? ((struct record *)arg)->arg : arg;
}

void event_set_mem_functions(
    void *(*new)(size_t), void *(*resize)(void *, size_t), void (*release)(void *))
{
	BY_HAND(event_set_mem_functions);

	if (traced) {
		next(&call);
		put_function((void *)new);
		next(&call);
		put_function((void *)resize);
		next(&call);
		put_function((void *)release);
		enter(&call);
	}
	if (nmemory_faults == 0 || (new != NULL && new == memory.asking)) {
		real(new, resize, release);
	} else {
		memory.new = new != NULL ? new : malloc;
		memory.resize = resize != NULL ? resize : realloc;
		memory.release = release != NULL ? release : free;
		real(memory_new, memory_resize, memory.release);
	}
	memory.installed = 1;
	known_error = errno;
	if (traced) {
		leave(&call);
		end_call(&call, known_error, 0);
	}
}

event_callback_fn event_get_callback(const struct event *ev)
{
	BY_HAND(event_get_callback);
	event_callback_fn r;
	void *arg = ((void *(*)(const struct event *))find(ID_event_get_callback_arg))(ev);

	if (traced) {
		next(&call);
		put_object(ev, KIND_event);
		enter(&call);
	}
	r = (event_callback_fn)unwrapped((void *)real(ev), &arg, 0);
	known_error = errno;
	if (traced) {
		leave(&call);
		result(&call);
		put_function((void *)r);
		end_call(&call, known_error, 0);
	}
	return r;
}

void *event_get_callback_arg(const struct event *ev)
{
	BY_HAND(event_get_callback_arg);
	void *r;

	if (traced) {
		next(&call);
		put_object(ev, KIND_event);
		enter(&call);
	}
	r = argument(real(ev));
	known_error = errno;
	if (traced) {
		leave(&call);
		result(&call);
		put_pointer(r);
		end_call(&call, known_error, 0);
	}
	return r;
}

void event_get_assignment(const struct event *ev, struct event_base **base, evutil_socket_t *fd,
    short *events, event_callback_fn *callback, void **arg)
{
	BY_HAND(event_get_assignment);
	void *own = NULL;

	if (traced) {
		next(&call);
		put_object(ev, KIND_event);
		enter(&call);
	}
	real(ev, base, fd, events, callback, &own);
	known_error = errno;
	if (callback != NULL)
		*callback = (event_callback_fn)unwrapped((void *)*callback, &own, 0);
	if (arg != NULL)
		*arg = argument(own);
	if (traced) {
		leave(&call);
		end_call(&call, known_error, 0);
	}
}

void bufferevent_getcb(struct bufferevent *bev, bufferevent_data_cb *readcb,
    bufferevent_data_cb *writecb, bufferevent_event_cb *eventcb, void **cbarg)
{
	BY_HAND(bufferevent_getcb);
	void *own = NULL;

	if (traced) {
		next(&call);
		put_object(bev, KIND_bufferevent);
		enter(&call);
	}
	real(bev, readcb, writecb, eventcb, &own);
	known_error = errno;
	if (readcb != NULL)
		*readcb = (bufferevent_data_cb)unwrapped((void *)*readcb, &own, 0);
	if (writecb != NULL)
		*writecb = (bufferevent_data_cb)unwrapped((void *)*writecb, &own, 1);
	if (eventcb != NULL)
		*eventcb = (bufferevent_event_cb)unwrapped((void *)*eventcb, &own, 2);
	if (cbarg != NULL)
		*cbarg = argument(own);
	if (traced) {
		leave(&call);
		end_call(&call, known_error, 0);
	}
}

static int added_printf(const void *from, struct evbuffer *buf, const char *format, va_list ap)
{
	int (*real)(struct evbuffer *, const char *, va_list) =
	    (int (*)(struct evbuffer *, const char *, va_list))find_by_name("evbuffer_add_vprintf");
	struct call call;
	int r, known_error;

	if (!begin_call(&call, ID_evbuffer_add_printf, from))
		return real(buf, format, ap);
	next(&call);
	put_object(buf, KIND_evbuffer);
	next(&call);
	put_string(format);
	put_text(", ...");
	enter(&call);
	if (call.injected)
		r = call.value;
	else
		r = real(buf, format, ap);
	known_error = errno;
	leave(&call);
	result(&call);
	put_number(r);
	end_call(&call, known_error, r == -1);
	return r;
}

int evbuffer_add_printf(struct evbuffer *buf, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = added_printf(__builtin_return_address(0), buf, format, ap);
	va_end(ap);
	return r;
}

int evbuffer_add_vprintf(struct evbuffer *buf, const char *format, va_list ap)
{
	return added_printf(__builtin_return_address(0), buf, format, ap);
}

/* These callbacks get the argument of another one, in a record if that one is wrapped. They are known by the
 * object that they were set for. */

static void *user_of(const void *pointer, int kind, int which)
{
	struct object *object;
	void *user;

	pthread_mutex_lock(&lock);
	object = known(pointer, kind);
	user = object == NULL ? NULL : object->users[which];
	pthread_mutex_unlock(&lock);
	return user;
}

static void note_user(const void *pointer, int kind, int which, void *user)
{
	pthread_mutex_lock(&lock);
	noted(pointer, kind)->users[which] = user;
	pthread_mutex_unlock(&lock);
}

static void called_chunked(struct evhttp_request *req, void *arg)
{
	void (*user)(struct evhttp_request *, void *) =
	    (void (*)(struct evhttp_request *, void *))user_of(req, KIND_evhttp_request, 0);
	struct callback callback;

	begin_callback(&callback, "on_chunk");
	if (callback.traced)
		put_object(req, KIND_evhttp_request);
	enter_callback(&callback);
	if (user != NULL)
		user(req, argument(arg));
	end_callback(&callback, "on_chunk");
}

static int called_header(struct evhttp_request *req, void *arg)
{
	int (*user)(struct evhttp_request *, void *) =
	    (int (*)(struct evhttp_request *, void *))user_of(req, KIND_evhttp_request, 1);
	struct callback callback;
	int r;

	begin_callback(&callback, "on_headers");
	if (callback.traced)
		put_object(req, KIND_evhttp_request);
	enter_callback(&callback);
	r = user == NULL ? 0 : user(req, argument(arg));
	end_callback(&callback, "on_headers");
	return r;
}

static void called_listener_error(struct evconnlistener *listener, void *arg)
{
	evconnlistener_errorcb user =
	    (evconnlistener_errorcb)user_of(listener, KIND_evconnlistener, 0);
	struct callback callback;

	begin_callback(&callback, "on_error");
	if (callback.traced)
		put_object(listener, KIND_evconnlistener);
	enter_callback(&callback);
	if (user != NULL)
		user(listener, argument(arg));
	end_callback(&callback, "on_error");
}

#define SETS_BY_OBJECT(function, object_type, kind, which, callback_type, called) \
	void function(struct object_type *object, callback_type user) \
	{ \
		BY_HAND(function); \
\
		if (!traced && \
		    (trace.state == OFF || thread.busy || is_own(__builtin_return_address(0)))) { \
			real(object, user); \
			return; \
		} \
		if (traced) { \
			next(&call); \
			put_object(object, kind); \
			next(&call); \
			put_function((void *)user); \
			enter(&call); \
		} \
		note_user(object, kind, which, (void *)user); \
		real(object, user == NULL ? NULL : called); \
		known_error = errno; \
		if (traced) { \
			leave(&call); \
			end_call(&call, known_error, 0); \
		} \
	}

typedef void (*chunk_callback)(struct evhttp_request *, void *);
typedef int (*header_callback)(struct evhttp_request *, void *);
SETS_BY_OBJECT(evhttp_request_set_chunked_cb, evhttp_request, KIND_evhttp_request, 0,
    chunk_callback, called_chunked)
SETS_BY_OBJECT(evhttp_request_set_header_cb, evhttp_request, KIND_evhttp_request, 1,
    header_callback, called_header)
SETS_BY_OBJECT(evconnlistener_set_error_cb, evconnlistener, KIND_evconnlistener, 0,
    evconnlistener_errorcb, called_listener_error)

/* The callback doesn't get the request, only the argument of the request's own callback. */
static void called_request_error(enum evhttp_request_error error, void *arg)
{
	void (*user)(enum evhttp_request_error, void *) = NULL;
	struct callback callback;

	if (is_record(arg))
		user =
		    (void (*)(enum evhttp_request_error, void *))((struct record *)arg)->users[3];
	begin_callback(&callback, "on_error");
	if (callback.traced)
		put_number(error);
	enter_callback(&callback);
	if (user != NULL)
		user(error, argument(arg));
	end_callback(&callback, "on_error");
}

void evhttp_request_set_error_cb(
    struct evhttp_request *req, void (*user)(enum evhttp_request_error, void *))
{
	BY_HAND(evhttp_request_set_error_cb);
	int ours = is_record(req->cb_arg);

	if (traced) {
		next(&call);
		put_object(req, KIND_evhttp_request);
		next(&call);
		put_function((void *)user);
		enter(&call);
	}
	if (ours)
		((struct record *)req->cb_arg)->users[3] = (void *)user;
	real(req, user != NULL && ours ? called_request_error : user);
	known_error = errno;
	if (traced) {
		leave(&call);
		end_call(&call, known_error, 0);
	}
}

/* The argument stays as it is: the package takes it from the struct. */
static void called_complete(struct evhttp_request *req, void *arg)
{
	void (*user)(struct evhttp_request *, void *) =
	    (void (*)(struct evhttp_request *, void *))user_of(req, KIND_evhttp_request, 2);
	struct callback callback;

	begin_callback(&callback, "on_complete");
	if (callback.traced)
		put_object(req, KIND_evhttp_request);
	enter_callback(&callback);
	if (user != NULL)
		user(req, arg);
	end_callback(&callback, "on_complete");
	forget(req, KIND_evhttp_request); /* for libevent frees it next */
}

void evhttp_request_set_on_complete_cb(
    struct evhttp_request *req, void (*user)(struct evhttp_request *, void *), void *arg)
{
	BY_HAND(evhttp_request_set_on_complete_cb);

	if (!traced && (trace.state == OFF || thread.busy || is_own(__builtin_return_address(0)))) {
		real(req, user, arg);
		return;
	}
	if (traced) {
		next(&call);
		put_object(req, KIND_evhttp_request);
		next(&call);
		put_function((void *)user);
		next(&call);
		put_pointer(arg);
		enter(&call);
	}
	note_user(req, KIND_evhttp_request, 2, (void *)user);
	real(req, user == NULL ? NULL : called_complete, arg);
	known_error = errno;
	if (traced) {
		leave(&call);
		end_call(&call, known_error, 0);
	}
}
