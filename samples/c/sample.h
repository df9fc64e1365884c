/* What the samples share: arguments, errors, addresses, listeners, Ctrl-C, and the connections that are open. */

#ifndef SAMPLE_H
#define SAMPLE_H

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>

/* Say what is wrong, and end the program. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fputc('\n', stderr);
	exit(1);
}

/* Return `made`, or end the program if there is none. */
static inline void *need(void *made, const char *what)
{
	if (made == NULL)
		die("%s: %s", what, errno != 0 ? strerror(errno) : "failed");
	return made;
}

/* Print how a program is used: each line of `usage` is one way. */
static inline void print_usage(FILE *out, const char *program, const char *usage)
{
	const char *before = "usage: ";

	while (usage != NULL) {
		fprintf(out, "%s%s %.*s\n", before, program, (int)strcspn(usage, "\n"), usage);
		before = "   or: ";
		usage = strchr(usage, '\n');
		usage += usage != NULL;
	}
}

/* Prepare a program that takes `least` arguments or more, and up to `most`, as `usage` says. */
static inline void start(int argc, char **argv, int least, int most, const char *usage)
{
	int i;

	for (i = 1; i < argc; ++i)
		if (strcmp(argv[i], "--help") == 0) {
			print_usage(stdout, argv[0], usage);
			exit(0);
		}
	if (argc <= least || argc > most + 1) {
		print_usage(stderr, argv[0], usage);
		exit(1);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN); /* else who writes to a closed connection is killed */
	errno = 0;
}

/* Return an argument, or what stands for it if there are fewer: argv ends with NULL. */
static inline const char *argument(char **argv, int n, const char *otherwise)
{
	int i = 1;

	while (i < n && argv[i] != NULL)
		++i;
	return argv[i] != NULL ? argv[i] : otherwise;
}

static inline struct timeval timeval_of(double seconds)
{
	long long microseconds = (long long)(seconds * 1e6 + 0.5);
	struct timeval tv = {microseconds / 1000000, microseconds % 1000000};

	return tv;
}

/* Make `data` capitals. */
static inline void capitalize(char *data, size_t size)
{
	size_t i;

	for (i = 0; i < size; ++i)
		data[i] = toupper((unsigned char)data[i]);
}

/* Write an address to `text`, as host:port. */
static inline const char *address_text(
    const struct sockaddr *address, socklen_t length, char text[static 80])
{
	char host[64], port[8];

	if (getnameinfo(address, length, host, sizeof host, port, sizeof port,
		NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return strcpy(text, "?");
	snprintf(text, 80, "%s:%s", host, port);
	return text;
}

/* Write the address of a socket of ours to `text`. */
static inline const char *own_text(evutil_socket_t fd, char text[static 80])
{
	struct sockaddr_storage own;
	socklen_t length = sizeof own;

	if (getsockname(fd, (struct sockaddr *)&own, &length) < 0)
		return strcpy(text, "?");
	return address_text((struct sockaddr *)&own, length, text);
}

static inline void on_rested(evutil_socket_t fd, short what, void *listener)
{
	(void)fd, (void)what;
	evconnlistener_enable(listener);
}

/* Such as: too many open files. libevent would try again at once, and keep the processor busy. */
static inline void on_accept_error(struct evconnlistener *listener, void *arg)
{
	struct timeval second = {1, 0};

	(void)arg;
	printf("can't accept, trying again in a second: %s\n", strerror(errno));
	evconnlistener_disable(listener);
	if (event_base_once(evconnlistener_get_base(listener), -1, EV_TIMEOUT, on_rested, listener,
		&second) < 0)
		evconnlistener_enable(listener);
}

/* Return the addresses of a host and a port; evutil_freeaddrinfo() frees them. */
static inline struct evutil_addrinfo *find_address(const char *host, const char *port)
{
	struct evutil_addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct evutil_addrinfo *found;
	int error = evutil_getaddrinfo(host, port, &hints, &found);

	if (error != 0)
		die("%s:%s: %s", host, port, evutil_gai_strerror(error));
	return found;
}

/* Return a socket that listens on a host and a port, and doesn't block. */
static inline evutil_socket_t listening_socket(const char *host, const char *port)
{
	struct evutil_addrinfo *found = find_address(host, port);
	evutil_socket_t fd = socket(found->ai_family, SOCK_STREAM, 0);

	if (fd < 0 || evutil_make_socket_closeonexec(fd) < 0 ||
	    evutil_make_socket_nonblocking(fd) < 0 || evutil_make_listen_socket_reuseable(fd) < 0 ||
	    bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 128) < 0)
		die("%s:%s: %s", host, port, strerror(errno));
	evutil_freeaddrinfo(found);
	return fd;
}

/* Return the next client's socket, which doesn't block, or -1. */
static inline evutil_socket_t accepted(evutil_socket_t listening)
{
	evutil_socket_t fd = accept(listening, NULL, NULL);

	if (fd >= 0 &&
	    (evutil_make_socket_closeonexec(fd) < 0 || evutil_make_socket_nonblocking(fd) < 0)) {
		evutil_closesocket(fd);
		return -1;
	}
	return fd;
}

/* Return a socket that is connected to a host and a port: to the first of its addresses that will do. */
static inline evutil_socket_t connected_socket(const char *host, const char *port)
{
	struct evutil_addrinfo *found = find_address(host, port), *each;
	evutil_socket_t fd = -1;

	for (each = found; each != NULL && fd < 0; each = each->ai_next) {
		fd = socket(each->ai_family, SOCK_STREAM, 0);
		if (fd >= 0 &&
		    (evutil_make_socket_closeonexec(fd) < 0 ||
			connect(fd, each->ai_addr, each->ai_addrlen) < 0)) {
			int error = errno;

			evutil_closesocket(fd);
			errno = error;
			fd = -1;
		}
	}
	evutil_freeaddrinfo(found);
	if (fd < 0)
		die("%s:%s: %s", host, port, strerror(errno));
	return fd;
}

/* Return a listener on a host and a port. */
static inline struct evconnlistener *listen_on(struct event_base *base, const char *host,
    const char *port, evconnlistener_cb on_accept, void *arg)
{
	struct evutil_addrinfo *found = find_address(host, port);
	struct evconnlistener *listener = evconnlistener_new_bind(base, on_accept, arg,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, -1, found->ai_addr,
	    found->ai_addrlen);

	evutil_freeaddrinfo(found);
	if (listener == NULL)
		die("%s:%s: %s", host, port, strerror(errno));
	evconnlistener_set_error_cb(listener, on_accept_error);
	return listener;
}

static inline void print_serving(evutil_socket_t fd)
{
	char address[80];

	printf("serving %s, Ctrl-C to stop\n", own_text(fd, address));
}

/* Return an event, which is pending, for a signal. */
static inline struct event *on_signal(
    struct event_base *base, int signum, event_callback_fn callback, void *arg)
{
	struct event *made = evsignal_new(base, signum, callback, arg);

	if (made == NULL || event_add(made, NULL) < 0)
		die("signal %d can't be waited for", signum);
	return made;
}

static inline void on_interrupt_stop(evutil_socket_t signum, short what, void *base)
{
	(void)signum, (void)what;
	event_base_loopexit(base, NULL);
}

/* Return an event that isn't pending yet. */
static inline struct event *new_event(
    struct event_base *base, evutil_socket_t fd, short what, event_callback_fn callback, void *arg)
{
	return need(event_new(base, fd, what, callback, arg), "event_new");
}

/* Return an event that ends the loop on Ctrl-C. */
static inline struct event *stop_on_interrupt(struct event_base *base)
{
	return on_signal(base, SIGINT, on_interrupt_stop, base);
}

/* A connection. What is open at the end has to be freed, so all of a server's are in a list. */
struct connection {
	LIST_ENTRY(connection) others;
	struct bufferevent *bev;
};
LIST_HEAD(connections, connection);

/* Keep `bev`, which serves the client at `fd`, in the first of `size` bytes. Without memory, or if there is no bev,
 * the client is let go, and NULL returned. */
static inline void *connection_of(
    struct connections *all, size_t size, struct bufferevent *bev, evutil_socket_t fd)
{
	struct connection *made = calloc(1, size);

	if (made == NULL || bev == NULL) {
		printf("no memory for a client\n");
		free(made);
		if (bev != NULL)
			bufferevent_free(bev);
		else
			evutil_closesocket(fd);
		return NULL;
	}
	made->bev = bev;
	LIST_INSERT_HEAD(all, made, others);
	return made;
}

/* Serve the client at `fd` by a bufferevent. */
static inline void *connection_new(
    struct connections *all, size_t size, struct event_base *base, evutil_socket_t fd, int options)
{
	return connection_of(
	    all, size, bufferevent_socket_new(base, fd, options | BEV_OPT_CLOSE_ON_FREE), fd);
}

static inline void connection_free(struct connection *connection)
{
	LIST_REMOVE(connection, others);
	bufferevent_free(connection->bev);
	free(connection);
}

static inline void connections_free(struct connections *all)
{
	while (!LIST_EMPTY(all))
		connection_free(LIST_FIRST(all));
}

#endif
