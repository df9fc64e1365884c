/* The hot path of eager bufferevents; libevent_py/_eager.py tells what it is for. */

#include <unistd.h>

#define EVPY_ARENA (256 * 1024)
#define EVPY_ONE_READ 4096 /* of evbuffer_read(): when it got less, the kernel has no more (D13) */

struct evpy_arena {
	int busy;
	char input[EVPY_ARENA];
	char output[EVPY_ARENA];
};

struct evpy_eager {
	struct evpy_arena *arena;
	uintptr_t key;
	int running; /* calls of its read callback that are on the stack */
	int freed;
	int direct; /* it wants its input in the evbuffer: don't detour by the arena */
	int corked; /* writing is held back until its read callback returns */
};

static struct evpy_arena *evpy_arena_new(void)
{
	return calloc(1, sizeof(struct evpy_arena));
}

static void evpy_arena_free(struct evpy_arena *arena)
{
	free(arena);
}

/* Move the input to the arena, if it has room for it: return how much it was, else -1. */
static int evpy_arena_take(struct bufferevent *bev, struct evpy_arena *arena)
{
	if (arena->busy || evbuffer_get_length(bev->input) > sizeof arena->input)
		return -1;
	return evbuffer_remove(bev->input, arena->input, sizeof arena->input);
}

static struct evpy_eager *evpy_eager_new(struct evpy_arena *arena, uintptr_t key)
{
	struct evpy_eager *eager = calloc(1, sizeof *eager);

	if (eager != NULL) {
		eager->arena = arena;
		eager->key = key;
	}
	return eager;
}

static void evpy_eager_free(struct evpy_eager *eager)
{
	eager->freed = 1;
	if (!eager->running)
		free(eager);
}

static int evpy_eager_error(ssize_t result)
{
	return result < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR ? errno : 0;
}

/* How much more than libevent's own 4096 bytes may be read now. */
static size_t evpy_eager_room(struct bufferevent *bev, size_t length)
{
	size_t most = (size_t)bufferevent_get_max_single_read(bev);

	if (most > EVPY_ARENA)
		most = EVPY_ARENA;
	return length < EVPY_ONE_READ || length >= most ? 0 : most - length;
}

/* Take the input to the arena, with what else the kernel has; set *error where reading fails. An end is
 * left for libevent to find, which will. */
static size_t evpy_eager_fill(struct bufferevent *bev, struct evpy_arena *arena, int *error)
{
	size_t length = evbuffer_get_length(bev->input);
	size_t room = evpy_eager_room(bev, length);
	int removed = evbuffer_remove(bev->input, arena->input, length);

	if (removed <= 0)
		return 0;
	length = (size_t)removed;
	if (room > 0 && bev->enabled & EV_READ) {
		ssize_t more = read(event_get_fd(&bev->ev_read), arena->input + length, room);

		*error = evpy_eager_error(more);
		if (more > 0)
			length += (size_t)more;
	}
	return length;
}

/* The same for a bufferevent that wants its input where libevent has it. */
static void evpy_eager_top_up(struct bufferevent *bev, int *error)
{
	size_t room = evpy_eager_room(bev, evbuffer_get_length(bev->input));
	struct evbuffer_iovec space;

	if (room == 0 || !(bev->enabled & EV_READ))
		return;
	evbuffer_unfreeze(bev->input, 0);
	if (evbuffer_reserve_space(bev->input, (ev_ssize_t)room, &space, 1) == 1) {
		ssize_t more = read(event_get_fd(&bev->ev_read), space.iov_base, room);

		*error = evpy_eager_error(more);
		if (more > 0) {
			space.iov_len = (size_t)more;
			evbuffer_commit_space(bev->input, &space, 1);
		}
	}
	evbuffer_freeze(bev->input, 0);
}

/* Writing is enabled, and nothing is on its way: neither data nor a connection. */
static int evpy_eager_can_cork(struct bufferevent *bev)
{
	return bev->enabled & EV_WRITE && evbuffer_get_length(bev->output) == 0 &&
	    !event_pending(&bev->ev_write, EV_WRITE, NULL) && event_get_fd(&bev->ev_read) >= 0;
}

/* Write at once what the callback has written, and have libevent write the rest when it can. */
static void evpy_eager_flush(struct bufferevent *bev, struct evpy_eager *eager, size_t unsent)
{
	evutil_socket_t fd = event_get_fd(&bev->ev_write);
	const char *out = eager->arena->output;
	ssize_t written = 0;
	int failed = 0;

	eager->corked = 0;
	if (unsent > 0 && evbuffer_get_length(bev->output) == 0) {
		written = write(fd, out, unsent);
		if (written < 0)
			written = 0; /* libevent will be told the same */
		if ((size_t)written < unsent)
			failed = evbuffer_add(bev->output, out + written, unsent - (size_t)written);
	} else {
		if (unsent > 0)
			failed = evbuffer_add(bev->output, out, unsent);
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

static void evpy_on_eager_read(struct bufferevent *bev, void *arg)
{
	struct evpy_eager *eager = arg;
	struct evpy_arena *arena = eager->arena;
	size_t unread = 0;
	int unsent, error = 0;

	if (arena->busy) { /* another bufferevent's callback, or its own, has triggered this one's */
		EVPY_CALL(evpy_bufferevent_read(eager->key));
		return;
	}
	++eager->running;
	if (eager->direct || evbuffer_get_length(bev->input) > sizeof arena->input)
		evpy_eager_top_up(bev, &error);
	else
		unread = evpy_eager_fill(bev, arena, &error);
	eager->direct = 0;
	if (evpy_eager_can_cork(bev)) {
		/* Without this bit libevent does not wait for the socket to be writable. */
		eager->corked = 1;
		bev->enabled &= ~EV_WRITE;
	}
	arena->busy = 1;
	EVPY_CALL(unsent = evpy_eager_read(eager->key, unread, eager->corked));
	arena->busy = 0;
	if (!eager->freed && eager->corked)
		evpy_eager_flush(bev, eager, unsent > 0 ? (size_t)unsent : 0);
	if (!eager->freed && error) {
		bufferevent_disable(bev, EV_READ);
		errno = error;
		bufferevent_trigger_event(bev, BEV_EVENT_READING | BEV_EVENT_ERROR, 0);
	}
	if (--eager->running == 0 && eager->freed)
		free(eager);
}

static void evpy_on_eager_write(struct bufferevent *bev, void *arg)
{
	(void)bev;
	EVPY_CALL(evpy_bufferevent_write(((struct evpy_eager *)arg)->key));
}

static void evpy_on_eager_event(struct bufferevent *bev, short what, void *arg)
{
	int error = errno;

	(void)bev;
	EVPY_CALL(evpy_bufferevent_event(((struct evpy_eager *)arg)->key, what, error));
}

static void evpy_eager_setcb(
    struct bufferevent *bev, int read, int write, int event, struct evpy_eager *eager)
{
	bufferevent_setcb(bev, read ? evpy_on_eager_read : NULL, write ? evpy_on_eager_write : NULL,
	    event ? evpy_on_eager_event : NULL, eager);
}

/* Return input that the callback has not read, or wants to see as a buffer. */
static int evpy_eager_put_back(struct bufferevent *bev, struct evpy_eager *eager, size_t unread)
{
	eager->direct = 1;
	return evbuffer_prepend(bev->input, eager->arena->input, unread);
}

/* Move what the callback has written to the output, still corked. */
static int evpy_eager_spill(struct bufferevent *bev, struct evpy_eager *eager, size_t unsent)
{
	return evbuffer_add(bev->output, eager->arena->output, unsent);
}

/* Have all go its usual way for the rest of the callback. */
static int evpy_eager_uncork(struct bufferevent *bev, struct evpy_eager *eager, size_t unsent)
{
	int result = 0;

	if (eager->corked) {
		eager->corked = 0;
		if (unsent > 0)
			result = evpy_eager_spill(bev, eager, unsent);
		bev->enabled |= EV_WRITE;
		if (evbuffer_get_length(bev->output) > 0)
			result |= bufferevent_enable(bev, EV_WRITE);
	}
	return result;
}
