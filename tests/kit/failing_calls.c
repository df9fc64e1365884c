/* System calls that fail or do less than they were asked to: preloaded by tests/kit/failing_calls.py.
 *
 * Each function here stands before the C library's. It counts the calls that come from libevent, OpenSSL and the
 * package's own C, and lets some of them fail; all others go through. Nothing happens before
 * failing_calls_begin(), which looks where those libraries are. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define CALLS(CALL) \
	CALL(accept) \
	CALL(accept4) \
	CALL(bind) \
	CALL(connect) \
	CALL(epoll_create) \
	CALL(epoll_create1) \
	CALL(epoll_ctl) \
	CALL(epoll_wait) \
	CALL(eventfd) \
	CALL(getsockname) \
	CALL(getsockopt) \
	CALL(listen) \
	CALL(open) \
	CALL(open64) \
	CALL(pipe) \
	CALL(pipe2) \
	CALL(poll) \
	CALL(read) \
	CALL(readv) \
	CALL(recv) \
	CALL(recvfrom) \
	CALL(recvmsg) \
	CALL(select) \
	CALL(sendfile) \
	CALL(sendmsg) \
	CALL(sendto) \
	CALL(setsockopt) \
	CALL(socket) \
	CALL(socketpair) \
	CALL(timerfd_create) \
	CALL(write) \
	CALL(writev)

#define NUMBER(name) CALL_##name,
enum { CALLS(NUMBER) N_CALLS };
#define NAME(name) #name,
static const char *const names[] = {CALLS(NAME)};

static struct plan {
	long calls, failures;
	long countdown; /* 1: the next one fails */
	int error, onwards;
	int is_short;
	int interrupts; /* every other call fails with EINTR */
} plans[N_CALLS];

static const char *const libraries[] = {
    "libevent",
    "_ffi.",
    "libssl.",
    "libcrypto.", /* by the beginning of the file's name */
    "libasan.", /* the last one: it has functions of the same names, which call ours */
};

#define N_LIBRARIES ((int)(sizeof libraries / sizeof *libraries))

static struct {
	uintptr_t begin, end;
	int library;
} ranges[32];
static int n_ranges, everybody;

static int note_library(struct dl_phdr_info *info, size_t size, void *unused)
{
	const char *slash = strrchr(info->dlpi_name, '/');
	const char *name = slash == NULL ? info->dlpi_name : slash + 1;
	int i, j;

	(void)size;
	(void)unused;
	for (i = 0; i < N_LIBRARIES; ++i)
		if (strncmp(name, libraries[i], strlen(libraries[i])) == 0)
			break;
	if (i == N_LIBRARIES)
		return 0;
	for (j = 0; j < info->dlpi_phnum && n_ranges < 32; ++j)
		if (info->dlpi_phdr[j].p_type == PT_LOAD && info->dlpi_phdr[j].p_flags & PF_X) {
			ranges[n_ranges].begin = info->dlpi_addr + info->dlpi_phdr[j].p_vaddr;
			ranges[n_ranges].end = ranges[n_ranges].begin + info->dlpi_phdr[j].p_memsz;
			ranges[n_ranges].library = i;
			++n_ranges;
		}
	return 0;
}

/* Begin to count; return in how many libraries. With `all`, calls from anywhere count, Python's own, too. */
int failing_calls_begin(int all)
{
	n_ranges = 0;
	everybody = all;
	dl_iterate_phdr(note_library, NULL);
	return n_ranges;
}

static struct plan *plan_of(const char *name)
{
	int i;

	for (i = 0; i < N_CALLS; ++i)
		if (strcmp(names[i], name) == 0)
			return &plans[i];
	return NULL;
}

/* Forget what was planned for all functions, and count from 0. */
void failing_calls_reset(void)
{
	memset(plans, 0, sizeof plans);
}

/* The nth call from now of `name` fails with `error`, and with `onwards` all after it. */
int failing_calls_fail(const char *name, long nth, int error, int onwards)
{
	struct plan *plan = plan_of(name);

	if (plan == NULL)
		return -1;
	plan->countdown = nth;
	plan->error = error;
	plan->onwards = onwards;
	return 0;
}

/* Each call of `name` transfers one byte at most. */
int failing_calls_short(const char *name)
{
	struct plan *plan = plan_of(name);

	if (plan == NULL)
		return -1;
	plan->is_short = 1;
	return 0;
}

/* Every other call of `name` fails with EINTR. */
int failing_calls_interrupt(const char *name)
{
	struct plan *plan = plan_of(name);

	if (plan == NULL)
		return -1;
	plan->interrupts = 1;
	return 0;
}

long failing_calls_count(const char *name)
{
	struct plan *plan = plan_of(name);

	return plan == NULL ? -1 : plan->calls;
}

long failing_calls_failures(const char *name)
{
	struct plan *plan = plan_of(name);

	return plan == NULL ? -1 : plan->failures;
}

/* Return which of the libraries has called, or -1. */
static int library_of(const void *caller)
{
	int i;

	for (i = 0; i < n_ranges; ++i)
		if ((uintptr_t)caller >= ranges[i].begin && (uintptr_t)caller < ranges[i].end)
			return ranges[i].library;
	return -1;
}

static int is_ours(const void *caller)
{
	int library = library_of(caller), i, n;
	void *frames[16];

	if (library == N_LIBRARIES - 1) { /* who has called the sanitizer? */
		n = backtrace(frames, sizeof frames / sizeof *frames);
		for (i = 1; i < n && library_of(frames[i]) != library; ++i)
			; /* from 1 on, as backtrace() is called by the sanitizer, too */
		while (i < n && library_of(frames[i]) == library)
			++i;
		library = i < n ? library_of(frames[i]) : -1;
	}
	return library >= 0 || (n_ranges > 0 && everybody);
}

/* Count a call; return whether it fails, with errno set. */
static int fails(int which, const void *caller)
{
	struct plan *plan = &plans[which];
	int error = 0;

	if (!is_ours(caller))
		return 0;
	++plan->calls;
	if (plan->countdown > 0) {
		if (plan->countdown == 1)
			error = plan->error;
		if (error == 0 || !plan->onwards)
			--plan->countdown;
	}
	if (error == 0 && plan->interrupts && plan->calls % 2 == 1)
		error = EINTR;
	if (error == 0)
		return 0;
	++plan->failures;
	errno = error;
	return 1;
}

/* What is sent and received in parts: not datagrams, nor the numbers that an eventfd or a timer tells. */
static int is_stream(int fd)
{
	int kind = 0, error = errno;
	socklen_t size = sizeof kind;
	static int (*real)(int, int, int, void *, socklen_t *);
	struct stat status;

	if (real == NULL)
		real = (int (*)(int, int, int, void *, socklen_t *))dlsym(RTLD_NEXT, "getsockopt");
	if (real(fd, SOL_SOCKET, SO_TYPE, &kind, &size) == 0)
		return kind == SOCK_STREAM;
	errno = error;
	return fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISFIFO(status.st_mode));
}

static size_t allowed(int which, const void *caller, int fd, size_t size)
{
	return size > 1 && plans[which].is_short && is_ours(caller) && is_stream(fd) ? 1 : size;
}

#define CALLER __builtin_return_address(0)
#define REAL(name) \
	static __typeof__(name) *real; \
	if (real == NULL) \
	real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(name) \
	REAL(name); \
	if (fails(CALL_##name, CALLER)) \
	return -1

int accept(int fd, struct sockaddr *address, socklen_t *length)
{
	FAIL(accept);
	return real(fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	FAIL(accept4);
	return real(fd, address, length, flags);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	FAIL(bind);
	return real(fd, address, length);
}

/* One that is interrupted goes on connecting. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	REAL(connect);
	if (fails(CALL_connect, CALLER)) {
		if (errno == EINTR) {
			real(fd, address, length);
			errno = EINTR;
		}
		return -1;
	}
	return real(fd, address, length);
}

int epoll_create(int size)
{
	FAIL(epoll_create);
	return real(size);
}

int epoll_create1(int flags)
{
	FAIL(epoll_create1);
	return real(flags);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	FAIL(epoll_ctl);
	return real(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	FAIL(epoll_wait);
	return real(epoll, events, most, timeout);
}

int eventfd(unsigned value, int flags)
{
	FAIL(eventfd);
	return real(value, flags);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	FAIL(getsockname);
	return real(fd, address, length);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	FAIL(getsockopt);
	return real(fd, level, name, value, length);
}

int listen(int fd, int backlog)
{
	FAIL(listen);
	return real(fd, backlog);
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode = 0;

	FAIL(open);
	va_start(arguments, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(arguments, mode_t);
	va_end(arguments);
	return real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode = 0;

	FAIL(open64);
	va_start(arguments, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(arguments, mode_t);
	va_end(arguments);
	return real(path, flags, mode);
}

int pipe(int fds[2])
{
	FAIL(pipe);
	return real(fds);
}

int pipe2(int fds[2], int flags)
{
	FAIL(pipe2);
	return real(fds, flags);
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	FAIL(poll);
	return real(fds, n, timeout);
}

ssize_t read(int fd, void *data, size_t size)
{
	FAIL(read);
	return real(fd, data, allowed(CALL_read, CALLER, fd, size));
}

/* The first byte of `vec` alone, where that is all that is allowed. */
static int cut(
    int which, const void *caller, int fd, const struct iovec *vec, int n, struct iovec *first)
{
	size_t size = 0;
	int i;

	for (i = 0; i < n; ++i)
		size += vec[i].iov_len;
	if (allowed(which, caller, fd, size) == size)
		return 0;
	for (i = 0; vec[i].iov_len == 0; ++i)
		;
	first->iov_base = vec[i].iov_base;
	first->iov_len = 1;
	return 1;
}

ssize_t readv(int fd, const struct iovec *vec, int n)
{
	struct iovec first;

	FAIL(readv);
	return cut(CALL_readv, CALLER, fd, vec, n, &first) ? real(fd, &first, 1) : real(fd, vec, n);
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
	FAIL(recv);
	return real(fd, data, allowed(CALL_recv, CALLER, fd, size), flags);
}

ssize_t recvfrom(
    int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
	FAIL(recvfrom);
	return real(fd, data, size, flags, address, length);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	FAIL(recvmsg);
	return real(fd, message, flags);
}

int select(int n, fd_set *reads, fd_set *writes, fd_set *others, struct timeval *timeout)
{
	FAIL(select);
	return real(n, reads, writes, others, timeout);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t size)
{
	FAIL(sendfile);
	return real(to, from, offset, allowed(CALL_sendfile, CALLER, to, size));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	FAIL(sendmsg);
	return real(fd, message, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
    socklen_t length)
{
	FAIL(sendto);
	return real(fd, data, size, flags, address, length);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	FAIL(setsockopt);
	return real(fd, level, name, value, length);
}

int socket(int domain, int type, int protocol)
{
	FAIL(socket);
	return real(domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
	FAIL(socketpair);
	return real(domain, type, protocol, fds);
}

int timerfd_create(int clock, int flags)
{
	FAIL(timerfd_create);
	return real(clock, flags);
}

ssize_t write(int fd, const void *data, size_t size)
{
	FAIL(write);
	return real(fd, data, allowed(CALL_write, CALLER, fd, size));
}

ssize_t writev(int fd, const struct iovec *vec, int n)
{
	struct iovec first;

	FAIL(writev);
	return cut(CALL_writev, CALLER, fd, vec, n, &first) ? real(fd, &first, 1)
							    : real(fd, vec, n);
}
