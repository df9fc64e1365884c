/* The trampoline of struct evbuffer, positions, and functions that need several calls under one lock.
 *
 * A struct evbuffer_ptr is valid only until the buffer is changed (D5). So Python uses numbers, and each
 * function here turns them into pointers and uses those while it holds the lock. */

/* The buffer whose callbacks must not see what this thread does to it, or NULL. */
static _Thread_local const struct evbuffer *evpy_hushed;

/* How many of this thread's callbacks of buffers are in Python. */
static _Thread_local int evpy_changes;

static void evpy_on_buffer(struct evbuffer *buf, const struct evbuffer_cb_info *info, void *key)
{
	if (buf == evpy_hushed)
		return;
	++evpy_changes;
	EVPY_TELL(
	    evpy_buffer_changed((uintptr_t)key, info->orig_size, info->n_added, info->n_deleted));
	--evpy_changes;
}

/* libevent walks a buffer's list of callbacks, and doesn't expect that Python, which one of them calls, has another
 * one freed (D3). In Python's callbacks it is therefore only switched off, and is freed with the buffer. */
static void evpy_buffer_remove_cb(struct evbuffer *buf, struct evbuffer_cb_entry *entry)
{
	if (entry != NULL && evpy_changes > 0)
		evbuffer_cb_clear_flags(buf, entry, EVBUFFER_CB_ENABLED);
	else if (entry != NULL)
		evbuffer_remove_cb_entry(buf, entry);
}

/* libevent itself never uses a buffer in two threads; Python does. */
static struct evbuffer *evpy_buffer_new(void)
{
	struct evbuffer *buf = evbuffer_new();

	if (buf == NULL)
		return NULL;
	if (evbuffer_enable_locking(buf, NULL) < 0) {
		evbuffer_free(buf);
		return NULL;
	}
	evpy_lock_is_of(buf);
	return buf;
}

static struct evbuffer_cb_entry *evpy_buffer_add_cb(struct evbuffer *buf, uintptr_t key)
{
	return evbuffer_add_cb(buf, evpy_on_buffer, (void *)key);
}

/* Returned for a position beyond the end, and if the end that would be changed is frozen. */
#define EVPY_BEYOND (-2)
#define EVPY_FROZEN (-3)

/* libevent has no getter, so this tries an operation that changes nothing, and fails if frozen. */
static int evpy_buffer_frozen(struct evbuffer *buf, int at_front)
{
	struct evbuffer *nowhere;
	char byte;
	int frozen;

	if (!at_front)
		return evbuffer_commit_space(buf, NULL, 0) < 0;
	evbuffer_lock(buf);
	if (evbuffer_get_length(buf) > 0) {
		frozen = evbuffer_copyout(buf, &byte, 1) < 0;
	} else {
		nowhere = evbuffer_new();
		frozen = nowhere != NULL && evbuffer_remove_buffer(buf, nowhere, 1) < 0;
		if (nowhere != NULL)
			evbuffer_free(nowhere);
	}
	evbuffer_unlock(buf);
	return frozen;
}

/* The lock must be held. Unlike evbuffer_copyout_from(), this notices a position beyond the end. */
static int evpy_position(struct evbuffer *buf, struct evbuffer_ptr *position, size_t number)
{
	if (number > evbuffer_get_length(buf))
		return EVPY_BEYOND;
	return evbuffer_ptr_set(buf, position, number, EVBUFFER_PTR_SET);
}

static ev_ssize_t evpy_buffer_copyout(struct evbuffer *buf, size_t start, void *out, size_t size)
{
	struct evbuffer_ptr position;
	ev_ssize_t result;

	evbuffer_lock(buf);
	result = evpy_position(buf, &position, start);
	if (result == 0 && start < evbuffer_get_length(buf))
		result = evbuffer_copyout_from(buf, &position, out, size);
	evbuffer_unlock(buf);
	return result;
}

/* Copy the piece of memory from `start` on, if there is room, and return its size. Unlike
 * evbuffer_copyout_from() this also works if the front is frozen. */
static ev_ssize_t evpy_buffer_chunk(struct evbuffer *buf, size_t start, void *out, size_t room)
{
	struct evbuffer_ptr position;
	struct evbuffer_iovec chunk = {NULL, 0};

	evbuffer_lock(buf);
	if (evpy_position(buf, &position, start) == 0)
		evbuffer_peek(buf, -1, &position, &chunk, 1);
	if (chunk.iov_len <= room && chunk.iov_len > 0)
		memcpy(out, chunk.iov_base, chunk.iov_len);
	evbuffer_unlock(buf);
	return (ev_ssize_t)chunk.iov_len;
}

/* SIZE_MAX means the end: a pointer to that would need a walk through the whole buffer. */
static ev_ssize_t evpy_buffer_search(
    struct evbuffer *buf, const char *what, size_t size, size_t start, size_t end)
{
	struct evbuffer_ptr from, to, *last = end == SIZE_MAX ? NULL : &to;
	ev_ssize_t result = EVPY_BEYOND;

	evbuffer_lock(buf);
	if (start <= end && evpy_position(buf, &from, start) == 0 &&
	    (last == NULL || evpy_position(buf, last, end) == 0)) {
		result = (ev_ssize_t)start;
		if (size > 0)
			result = evbuffer_search_range(buf, what, size, &from, last).pos;
	}
	evbuffer_unlock(buf);
	return result;
}

static ev_ssize_t evpy_buffer_search_eol(
    struct evbuffer *buf, size_t start, size_t *length, int style)
{
	struct evbuffer_ptr position;
	ev_ssize_t result = EVPY_BEYOND;

	evbuffer_lock(buf);
	if (evpy_position(buf, &position, start) == 0)
		result = evbuffer_search_eol(buf, &position, length, style).pos;
	evbuffer_unlock(buf);
	return result;
}

/* Remove a line and its ending, if there is room, and return its length without the ending.
 *
 * evbuffer_readln() allocates, and removes the line and its ending one after the other: if a callback in
 * between removes bytes, the next line loses as many. */
static ev_ssize_t evpy_buffer_readln(struct evbuffer *buf, int style, void *out, size_t room)
{
	struct evbuffer_ptr found;
	size_t length;
	ev_ssize_t result = -1;

	evbuffer_lock(buf);
	found = evbuffer_search_eol(buf, NULL, &length, style);
	if (found.pos >= 0) {
		result = found.pos;
		if ((size_t)result <= room &&
		    (evbuffer_copyout(buf, out, result) < 0 ||
			evbuffer_drain(buf, result + length) < 0))
			result = EVPY_FROZEN;
	}
	evbuffer_unlock(buf);
	return result;
}

/* evbuffer_remove_buffer() runs dst's callbacks while src is half changed, and ignores a failed allocation
 * for the last bytes. So the bytes are moved through a private buffer. */
static int evpy_buffer_remove_buffer(struct evbuffer *src, struct evbuffer *dst, size_t size)
{
	struct evbuffer *way;
	int moved;

	if (src == dst || size == 0)
		return 0;
	if (evpy_buffer_frozen(dst, 0))
		return -1;
	way = evbuffer_new();
	if (way == NULL)
		return -1;
	moved = evbuffer_remove_buffer(src, way, size);
	if (moved > 0 && evbuffer_get_length(way) < (size_t)moved) {
		errno = ENOMEM;
		moved = -1;
	}
	/* A callback of src's may have frozen dst, and src too. */
	if (evbuffer_add_buffer(dst, way) < 0) {
		moved = -1;
		if (evbuffer_prepend_buffer(src, way) < 0) {
			evbuffer_unfreeze(src, 1);
			evbuffer_prepend_buffer(src, way);
			evbuffer_freeze(src, 1);
		}
	}
	evbuffer_free(way);
	return moved;
}

/* If there is nothing to write, libevent fails without setting errno. */
static int evpy_buffer_write(struct evbuffer *buf, evutil_socket_t fd, ev_ssize_t size)
{
	int result = 0;

	evbuffer_lock(buf);
	if (size != 0 && evbuffer_get_length(buf) > 0)
		result = evbuffer_write_atmost(buf, fd, size);
	evbuffer_unlock(buf);
	return result;
}
