/* Parts of files in buffers.
 *
 * evbuffer_add_file_segment() drops one of the caller's references when it fails, unless it couldn't read the
 * file (E5). So a segment is added to a keeper first, which has its own reference. If the segment is in memory,
 * buffers then refer to the keeper's memory. A segment for sendfile(), which is never read, can lose that
 * reference only once. */

#include <fcntl.h>

struct evpy_segment {
	struct evbuffer_file_segment *segment; /* NULL once a failure has taken it. */
	struct evpy_keeper *keeper;
	const char *base; /* NULL if it is not in memory. */
	int fd;
};

static void evpy_segment_free(struct evpy_segment *part)
{
	if (part->segment != NULL)
		evbuffer_file_segment_free(part->segment);
	evpy_keeper_drop(part->keeper, NULL);
	evpy_free(part);
}

static int evpy_segment_fd(const struct evpy_segment *part)
{
	return part->fd;
}

/* The descriptor is duplicated. */
static struct evpy_segment *evpy_segment_new(
    int file, ev_off_t offset, ev_off_t length, unsigned flags)
{
	struct evpy_segment *part = evpy_calloc(1, sizeof *part);
	struct evpy_keeper *keeper = evpy_keeper_new(1);
	struct evbuffer_iovec vec;
	struct evpy_view view;
	int fd = -1, error = ENOMEM, before = evpy_guard(); /* or it would go on without its lock */

	if (part == NULL || keeper == NULL || before < 0)
		goto failed;
	fd = fcntl(file, F_DUPFD_CLOEXEC, 0);
	if (fd < 0) {
		error = errno;
		goto failed;
	}
	errno = 0;
	part->segment =
	    evbuffer_file_segment_new(fd, offset, length, flags | EVBUF_FS_CLOSE_ON_FREE);
	if (part->segment == NULL) {
		error = errno;
		goto failed;
	}
	part->fd = fd;
	fd = -1;
	if (!(flags & EVBUF_FS_DISABLE_SENDFILE))
		evbuffer_set_flags(keeper->content, EVBUFFER_FLAG_DRAINS_TO_FD);
	if (evbuffer_add_file_segment(keeper->content, part->segment, 0, length) < 0)
		goto failed;
	part->keeper = keeper;
	if (flags & EVBUF_FS_DISABLE_SENDFILE) {
		evbuffer_peek(keeper->content, -1, NULL, &vec, 1);
		part->base = view.base = vec.iov_base;
		view.size = vec.iov_len;
		evpy_register(keeper, &view);
	}
	if (evpy_missed(before)) {
		evpy_segment_free(part);
		part = NULL;
	}
	evpy_unguard(before);
	return part;
failed:
	if (before >= 0)
		evpy_unguard(before);
	evpy_free(part);
	if (keeper != NULL)
		evpy_keeper_drop(keeper, NULL);
	if (fd >= 0)
		close(fd);
	errno = error;
	return NULL;
}

static void evpy_on_segment_cleanup(
    const struct evbuffer_file_segment *segment, int flags, void *release)
{
	(void)segment;
	(void)flags;
	evpy_release(release);
}

/* List the key when the segment is freed. Only once: libevent would forget another key. */
static int evpy_segment_on_cleanup(struct evpy_segment *part, uintptr_t key)
{
	struct evpy_release *release = evpy_release_new(key);

	if (release == NULL)
		return -1;
	evbuffer_file_segment_add_cleanup_cb(part->segment, evpy_on_segment_cleanup, release);
	return 0;
}

static int evpy_segment_refer(
    struct evpy_segment *part, struct evbuffer *buf, size_t offset, size_t length)
{
	evpy_keeper_hold(part->keeper);
	if (evbuffer_add_reference(
		buf, part->base + offset, length, evpy_on_dropped, part->keeper) == 0)
		return 0;
	evpy_keeper_drop(part->keeper, NULL);
	return -1;
}

/* The only possible failure is lack of memory for a chain. */
static int evpy_segment_send(
    struct evpy_segment *part, struct evbuffer *buf, size_t offset, size_t length)
{
	int result = -1;

	evbuffer_set_flags(buf, EVBUFFER_FLAG_DRAINS_TO_FD);
	evpy_memory_hold();
	if (part->segment != NULL) {
		result = evbuffer_add_file_segment(
		    buf, part->segment, (ev_off_t)offset, (ev_off_t)length);
		if (result < 0)
			part->segment = NULL;
	}
	evpy_memory_leave();
	return result;
}

static int evpy_segment_add(
    struct evpy_segment *part, struct evbuffer *buf, size_t offset, size_t length)
{
	struct evbuffer *way;
	int result, before;

	if (part->base != NULL)
		return evpy_segment_refer(part, buf, offset, length);
	way = evbuffer_new();
	before = way == NULL ? -1 : evpy_guard(); /* or the failure would take the reference */
	if (before < 0) {
		if (way != NULL)
			evbuffer_free(way);
		errno = ENOMEM;
		return -1;
	}
	result = evpy_segment_send(part, way, offset, length);
	if (result == 0)
		result = evbuffer_add_buffer(buf, way);
	evpy_unguard(before);
	evbuffer_free(way);
	return result;
}
