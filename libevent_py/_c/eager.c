/* The hot path of EAGER bufferevents; libevent_py/bufferevent/eager.py explains it. */

#include <unistd.h>

#define EVPY_ARENA (256 * 1024)

struct evpy_arena {
	int busy;
	char input[EVPY_ARENA];
	char output[EVPY_ARENA];
};

struct evpy_eager {
	int direct; /* its callback needs the input in the evbuffer: don't use the arena for it */
	int deferred; /* its callbacks are deferred, and wait while others use the arena */
	int corked; /* writing is held back until its read callback returns */
	int running; /* calls of its read callback that are on the stack */
	int freed;
	uintptr_t key;
	struct evpy_arena *arena;
};

/* libevent's own callback for when a socket is readable, once it has been seen. */
static event_callback_fn evpy_readable;

static struct evpy_arena *evpy_arena_new(void)
{
	return evpy_calloc(1, sizeof(struct evpy_arena));
}

static void evpy_arena_free(struct evpy_arena *arena)
{
	evpy_free(arena);
}

/* Move the input to the arena if there is room, and return its size, else -1. */
static int evpy_arena_take(struct bufferevent *bev, struct evpy_arena *arena)
{
	if (arena->busy || evbuffer_get_length(bev->input) > sizeof arena->input)
		return -1;
	return evbuffer_remove(bev->input, arena->input, sizeof arena->input);
}

static struct evpy_eager *evpy_eager_new(struct evpy_arena *arena, uintptr_t key, int deferred)
{
	struct evpy_eager *eager = evpy_calloc(1, sizeof *eager);

	if (eager != NULL) {
		eager->arena = arena;
		eager->key = key;
		eager->deferred = deferred;
	}
	return eager;
}

static void evpy_eager_free(struct evpy_eager *eager)
{
	eager->freed = 1;
	if (!eager->running)
		evpy_free(eager);
}

/* Writing is enabled, and neither data nor a connection is pending. */
static int evpy_eager_can_cork(struct bufferevent *bev)
{
	return bev->enabled & EV_WRITE && evbuffer_get_length(bev->output) == 0 &&
	    !event_pending(&bev->ev_write, EV_WRITE, NULL) && event_get_fd(&bev->ev_read) >= 0;
}

/* Send at once what the callback has written to the arena or the output; libevent writes the rest later. */
static void evpy_eager_flush(struct bufferevent *bev, struct evpy_eager *eager, size_t size)
{
	evutil_socket_t fd = event_get_fd(&bev->ev_write);
	const char *data = eager->arena->output;
	ssize_t written = 0;
	int failed = 0;

	eager->corked = 0;
	if (size > 0 && evbuffer_get_length(bev->output) == 0) {
		written = write(fd, data, size);
		if (written < 0)
			written = 0; /* libevent will get the same error */
		if ((size_t)written < size)
			failed = evbuffer_add(bev->output, data + written, size - (size_t)written);
	} else {
		if (size > 0)
			failed = evbuffer_add(bev->output, data, size);
		if (evbuffer_get_length(bev->output) > 0) {
			evbuffer_unfreeze(bev->output, 1);
			written = evbuffer_write_atmost(
			    bev->output, fd, bufferevent_get_max_single_write(bev));
			evbuffer_freeze(bev->output, 1);
		}
	}
	bev->enabled |= EV_WRITE;
	if (failed) {
		errno = ENOMEM;
		bufferevent_trigger_event(bev, BEV_EVENT_WRITING | BEV_EVENT_ERROR, 0);
	} else if (evbuffer_get_length(bev->output) > 0) {
		bufferevent_enable(bev, EV_WRITE);
	} else if (written > 0 && bev->writecb != NULL) {
		bufferevent_trigger(bev, EV_WRITE, 0);
	}
}

/* Call the read callback, with `unread` bytes for it in the arena. */
static void evpy_eager_run(struct bufferevent *bev, struct evpy_eager *eager, size_t unread)
{
	struct evpy_arena *arena = eager->arena;
	int unsent;

	++eager->running;
	eager->direct = 0;
	if (evpy_eager_can_cork(bev)) {
		/* Without this bit libevent does not wait for the socket to be writable. */
		eager->corked = 1;
		bev->enabled &= ~EV_WRITE;
	}
	arena->busy = 1;
	EVPY_CALL(
	    unsent = evpy_eager_read(eager->key, unread, eager->corked ? sizeof arena->output : 0));
	arena->busy = 0;
	if (!eager->freed && unsent == -1)
		evbuffer_prepend(bev->input, arena->input, unread);
	if (!eager->freed && eager->corked) {
		if (unsent == -2) { /* a forked child: the parent sends it */
			eager->corked = 0;
			bev->enabled |= EV_WRITE;
		} else {
			evpy_eager_flush(bev, eager, unsent > 0 ? (size_t)unsent : 0);
		}
	}
	if (--eager->running == 0 && eager->freed)
		evpy_free(eager);
}

static void evpy_on_eager_readable(evutil_socket_t fd, short what, void *arg);

/* Make it read eagerly, unless a connection is being made: then only libevent's own callback can tell what
 * an error means. bufferevent_setfd() undoes this. */
static void evpy_eager_hook(struct bufferevent *bev, int connected)
{
	event_callback_fn *readable = &bev->ev_read.ev_evcallback.evcb_cb_union.evcb_callback;

	if (*readable != evpy_on_eager_readable && event_get_fd(&bev->ev_read) >= 0 &&
	    (connected || !event_pending(&bev->ev_write, EV_WRITE, NULL))) {
		evpy_readable = *readable;
		*readable = evpy_on_eager_readable;
	}
}

static void evpy_eager_unhook(struct bufferevent *bev)
{
	event_callback_fn *readable = &bev->ev_read.ev_evcallback.evcb_cb_union.evcb_callback;

	if (*readable == evpy_on_eager_readable)
		*readable = evpy_readable;
}

/* libevent calls this when there is input in the evbuffer: deferred, triggered, or read by itself. */
static void evpy_on_eager_read(struct bufferevent *bev, void *arg)
{
	struct evpy_eager *eager = arg;
	int unread = -1;

	if (eager->arena->busy) { /* inside another bufferevent's callback, or its own */
		EVPY_CALL(evpy_bufferevent_read(eager->key));
		return;
	}
	evpy_eager_hook(bev, 0);
	if (!eager->direct)
		unread = evpy_arena_take(bev, eager->arena);
	evpy_eager_run(bev, eager, unread > 0 ? (size_t)unread : 0);
}

/* Read into the arena or the evbuffer, as the callback needs it; return what read() does. */
static ssize_t evpy_eager_fill(struct bufferevent *bev, struct evpy_eager *eager, int direct)
{
	evutil_socket_t fd = event_get_fd(&bev->ev_read);
	size_t most = (size_t)bufferevent_get_max_single_read(bev);
	struct evbuffer_iovec space;
	ssize_t got = -1;

	if (most > EVPY_ARENA)
		most = EVPY_ARENA;
	if (!direct)
		return read(fd, eager->arena->input, most);
	errno = ENOMEM;
	evbuffer_unfreeze(bev->input, 0);
	if (evbuffer_reserve_space(bev->input, (ev_ssize_t)most, &space, 1) == 1) {
		got = read(fd, space.iov_base, most);
		if (got > 0) {
			space.iov_len = (size_t)got;
			evbuffer_commit_space(bev->input, &space, 1);
		}
	}
	evbuffer_freeze(bev->input, 0);
	return got;
}

/* Replaces libevent's own callback, which asks the kernel how much input there is, and reads at most 4096
 * bytes of it (D13). Everything but input is left to that callback. */
static void evpy_on_eager_readable(evutil_socket_t fd, short what, void *arg)
{
	struct bufferevent *bev = arg;
	struct evpy_eager *eager = bev->cbarg;
	int direct;
	ssize_t got;

	if (!(what & EV_READ) || bev->readcb != evpy_on_eager_read || eager->arena->busy) {
		evpy_readable(fd, what, arg);
		return;
	}
	direct = eager->direct || eager->deferred || evbuffer_get_length(bev->input) > 0;
	got = evpy_eager_fill(bev, eager, direct);
	if (got == 0) { /* the end of the stream: libevent's own callback will find it, too */
		evpy_readable(fd, what, arg);
	} else if (got > 0) {
		bufferevent_incref(bev);
		if (direct)
			bufferevent_trigger(bev, EV_READ, 0);
		else
			evpy_eager_run(bev, eager, (size_t)got);
		bufferevent_decref(bev);
	} else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
		int error = errno;

		bufferevent_incref(bev);
		bufferevent_disable(bev, EV_READ);
		errno = error;
		bufferevent_trigger_event(bev, BEV_EVENT_READING | BEV_EVENT_ERROR, 0);
		bufferevent_decref(bev);
	}
}

static void evpy_on_eager_write(struct bufferevent *bev, void *arg)
{
	(void)bev;
	EVPY_CALL(evpy_bufferevent_write(((struct evpy_eager *)arg)->key));
}

static void evpy_on_eager_event(struct bufferevent *bev, short what, void *arg)
{
	struct evpy_eager *eager = arg;
	int error = errno;

	if (what & BEV_EVENT_CONNECTED)
		evpy_eager_hook(bev, 1);
	EVPY_CALL(evpy_bufferevent_event(eager->key, what, error));
}

static void evpy_eager_setcb(struct bufferevent *bev, int read, int write, struct evpy_eager *eager)
{
	bufferevent_setcb(bev, read ? evpy_on_eager_read : NULL, write ? evpy_on_eager_write : NULL,
	    evpy_on_eager_event, eager);
	evpy_eager_hook(bev, 0);
}

/* Put back input that the callback has not read, or wants to see as a buffer. */
static int evpy_eager_put_back(struct bufferevent *bev, struct evpy_eager *eager, size_t unread)
{
	return evbuffer_prepend(bev->input, eager->arena->input, unread);
}

/* Move what the callback has written to the output, still corked. */
static int evpy_eager_spill(struct bufferevent *bev, struct evpy_eager *eager, size_t unsent)
{
	return evbuffer_add(bev->output, eager->arena->output, unsent);
}

/* Return to libevent's usual way for the rest of the callback. */
static int evpy_eager_uncork(struct bufferevent *bev, struct evpy_eager *eager)
{
	if (!eager->corked)
		return 0;
	eager->corked = 0;
	bev->enabled |= EV_WRITE;
	return evbuffer_get_length(bev->output) > 0 ? bufferevent_enable(bev, EV_WRITE) : 0;
}
