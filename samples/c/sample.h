/* What the samples share: arguments, errors, addresses, listeners, Ctrl-C, and the connections that are open. */

#ifndef SAMPLE_H
#define SAMPLE_H

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

/* Prepare a program that takes up to `most` arguments, which `usage` explains. */
static inline void start(int argc, char **argv, int most, const char *usage)
{
	int i;

	for (i = 1; i < argc; ++i)
		if (strcmp(argv[i], "--help") == 0) {
			printf("usage: %s %s\n", argv[0], usage);
			exit(0);
		}
	if (argc > most + 1)
		die("usage: %s %s", argv[0], usage);
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
	struct timeval tv = {(time_t)seconds, (suseconds_t)((seconds - (time_t)seconds) * 1e6)};

	return tv;
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

/* Write the address of a listener to `text`. */
static inline const char *listener_text(struct evconnlistener *listener, char text[static 80])
{
	struct sockaddr_storage own;
	socklen_t length = sizeof own;

	getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&own, &length);
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
	fprintf(stderr, "can't accept, trying again in a second: %s\n", strerror(errno));
	evconnlistener_disable(listener);
	if (event_base_once(evconnlistener_get_base(listener), -1, EV_TIMEOUT, on_rested, listener,
		&second) < 0)
		evconnlistener_enable(listener);
}

/* Return a listener on a numeric host and a port. */
static inline struct evconnlistener *listen_on(struct event_base *base, const char *host,
    const char *port, evconnlistener_cb on_accept, void *arg)
{
	struct evutil_addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_flags = EVUTIL_AI_PASSIVE | EVUTIL_AI_NUMERICHOST};
	struct evutil_addrinfo *found;
	struct evconnlistener *listener;
	int error = evutil_getaddrinfo(host, port, &hints, &found);

	if (error != 0)
		die("%s:%s: %s", host, port, evutil_gai_strerror(error));
	listener = evconnlistener_new_bind(base, on_accept, arg,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1, found->ai_addr, found->ai_addrlen);
	evutil_freeaddrinfo(found);
	if (listener == NULL)
		die("%s:%s: %s", host, port, strerror(errno));
	evconnlistener_set_error_cb(listener, on_accept_error);
	return listener;
}

static inline void print_serving(struct evconnlistener *listener)
{
	char address[80];

	printf("serving %s, Ctrl-C to stop\n", listener_text(listener, address));
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

/* Serve `fd` by a bufferevent, with `size` bytes of what a struct connection begins. Without memory the client is
 * let go, and NULL returned. */
static inline void *connection_new(
    struct connections *all, size_t size, struct event_base *base, evutil_socket_t fd, int options)
{
	struct connection *made = calloc(1, size);

	if (made != NULL)
		made->bev = bufferevent_socket_new(base, fd, options | BEV_OPT_CLOSE_ON_FREE);
	if (made == NULL || made->bev == NULL) {
		fprintf(stderr, "no memory for a client\n");
		free(made);
		evutil_closesocket(fd);
		return NULL;
	}
	LIST_INSERT_HEAD(all, made, others);
	return made;
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
