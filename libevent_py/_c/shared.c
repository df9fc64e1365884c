/* Memory that outlives the buffer it came from.
 *
 * libevent's own references to another buffer's memory (evbuffer_add_buffer_reference) can be written through
 * (D10), tie the two buffers' locks together and are counted without a lock. So memory that a view or another
 * buffer will refer to is moved into a keeper: a buffer that is never changed any more, with a count of its users.
 * The original buffer gets references to that memory instead, which libevent never writes to. The last user, in
 * any thread, frees the keeper; no Python runs. */

/* One piece of a keeper's memory. Buffers remove bytes only from the front of a reference: so its end identifies
 * the piece, wherever the reference has moved. */
struct evpy_extent {
	struct evpy_extent *next;
	const char *base, *end;
	struct evpy_keeper *keeper;
};

struct evpy_keeper {
	size_t count;
	struct evbuffer *content;
	size_t n;
	struct evpy_extent extents[];
};

/* Memory whose user also has a reference to its keeper. */
struct evpy_view {
	char *base;
	size_t size;
	struct evpy_keeper *keeper;
};

struct evpy_views {
	size_t n;
	struct evpy_view views[];
};

#define EVPY_BUCKETS 4096
static struct evpy_extent *evpy_extents[EVPY_BUCKETS];

static struct evpy_extent **evpy_bucket(const char *end)
{
	uintptr_t bits = (uintptr_t)end;

	return &evpy_extents[(bits ^ bits >> 12 ^ bits >> 24) % EVPY_BUCKETS];
}

/* Take a reference to the keeper of the memory in `view`, if it has one already. */
static void evpy_find_keeper(struct evpy_view *view)
{
	const char *end = view->base + view->size;
	struct evpy_extent *extent;

	view->keeper = NULL;
	evpy_memory_hold();
	for (extent = *evpy_bucket(end); extent != NULL; extent = extent->next) {
		if (extent->end == end && extent->base <= view->base) {
			view->keeper = extent->keeper;
			++view->keeper->count;
			break;
		}
	}
	evpy_memory_leave();
}

static void evpy_keeper_hold(struct evpy_keeper *keeper)
{
	evpy_memory_hold();
	++keeper->count;
	evpy_memory_leave();
}

static char *evpy_view_hold(const struct evpy_view *view)
{
	evpy_keeper_hold(view->keeper);
	return view->base;
}

static void evpy_forget(struct evpy_keeper *keeper)
{
	size_t i;

	for (i = 0; i < keeper->n; ++i) {
		struct evpy_extent **place = evpy_bucket(keeper->extents[i].end);

		while (*place != &keeper->extents[i])
			place = &(*place)->next;
		*place = keeper->extents[i].next;
	}
}

static void evpy_keeper_drop(struct evpy_keeper *keeper, const void *base)
{
	size_t left;

	(void)base;
	evpy_memory_hold();
	left = --keeper->count;
	if (left == 0)
		evpy_forget(keeper);
	evpy_memory_leave();
	if (left > 0)
		return;
	evbuffer_free(keeper->content);
	evpy_free(keeper);
}

static void evpy_on_dropped(const void *data, size_t size, void *keeper)
{
	(void)size;
	evpy_keeper_drop(keeper, data);
}

static void evpy_views_free(struct evpy_views *views)
{
	size_t i;

	if (views == NULL)
		return;
	for (i = 0; i < views->n; ++i) {
		if (views->views[i].keeper != NULL)
			evpy_keeper_drop(views->views[i].keeper, NULL);
	}
	evpy_free(views);
}

/* Make an empty keeper with room for so many extents, and take a reference to it. */
static struct evpy_keeper *evpy_keeper_new(size_t room)
{
	struct evpy_keeper *keeper = evpy_malloc(sizeof *keeper + room * sizeof keeper->extents[0]);

	if (keeper == NULL)
		return NULL;
	keeper->content = evbuffer_new();
	if (keeper->content == NULL) {
		evpy_free(keeper);
		return NULL;
	}
	keeper->count = 1;
	keeper->n = 0;
	return keeper;
}

static void evpy_register(struct evpy_keeper *keeper, const struct evpy_view *view)
{
	struct evpy_extent *extent = &keeper->extents[keeper->n++];
	struct evpy_extent **bucket;

	extent->base = view->base;
	extent->end = view->base + view->size;
	extent->keeper = keeper;
	bucket = evpy_bucket(extent->end);
	evpy_memory_hold();
	extent->next = *bucket;
	*bucket = extent;
	evpy_memory_leave();
}

/* A buffer of references to the same memory, or NULL. */
static struct evbuffer *evpy_refer(const struct evpy_views *views)
{
	struct evbuffer *references = evbuffer_new();
	size_t i;

	for (i = 0; references != NULL && i < views->n; ++i) {
		const struct evpy_view *view = &views->views[i];

		evpy_keeper_hold(view->keeper);
		if (evbuffer_add_reference(
			references, view->base, view->size, evpy_on_dropped, view->keeper) < 0) {
			evpy_keeper_drop(view->keeper, NULL);
			evbuffer_free(references);
			return NULL;
		}
	}
	return references;
}

/* Replace the memory in `views`, which is all of a locked buffer's up to some point, by `references`, and move the
 * part of it that is to be kept into `keeper`. This needs no memory, so it can't fail. It calls no callbacks and
 * ignores freezing, because the content stays the same. */
static void evpy_replace(struct evbuffer *buf, const struct evpy_views *views,
    const struct evpy_keeper *keeper, struct evbuffer *references)
{
	const struct evbuffer *outer = evpy_hushed;
	int front = evpy_buffer_frozen(buf, 1), end = evpy_buffer_frozen(buf, 0);
	size_t i = 0;

	evpy_hushed = buf;
	if (front)
		evbuffer_unfreeze(buf, 1);
	if (end)
		evbuffer_unfreeze(buf, 0);
	while (i < views->n) {
		int moves = views->views[i].keeper == keeper;
		size_t size = 0;

		for (; i < views->n && (views->views[i].keeper == keeper) == moves; ++i)
			size += views->views[i].size;
		if (moves)
			evbuffer_remove_buffer(buf, keeper->content, size);
		else
			evbuffer_drain(buf, size);
	}
	evbuffer_prepend_buffer(buf, references);
	if (front)
		evbuffer_freeze(buf, 1);
	if (end)
		evbuffer_freeze(buf, 0);
	evpy_hushed = outer;
}

/* Give all memory in `views` that has no keeper a new one; 0, or -1 with nothing changed. */
static int evpy_keep(struct evbuffer *buf, struct evpy_views *views, size_t unkept)
{
	struct evpy_keeper *keeper = evpy_keeper_new(unkept);
	struct evbuffer *references;
	size_t i;

	if (keeper == NULL)
		return -1;
	for (i = 0; i < views->n; ++i) {
		if (views->views[i].keeper == NULL) {
			views->views[i].keeper = keeper;
			evpy_keeper_hold(keeper);
		}
	}
	references = evpy_refer(views);
	if (references != NULL) {
		evpy_replace(buf, views, keeper, references);
		evbuffer_free(references);
		for (i = 0; i < views->n; ++i) {
			if (views->views[i].keeper == keeper)
				evpy_register(keeper, &views->views[i]);
		}
	}
	evpy_keeper_drop(keeper, NULL);
	return references == NULL ? -1 : 0;
}

/* The bytes of a locked buffer from `start` to `end`, which must not be beyond its end; or NULL. */
static struct evpy_views *evpy_share(struct evbuffer *buf, size_t start, size_t end)
{
	int i, chains = start < end ? evbuffer_peek(buf, (ev_ssize_t)end, NULL, NULL, 0) : 0;
	struct evpy_views *views = evpy_calloc(1, sizeof *views + chains * sizeof views->views[0]);
	struct evbuffer_iovec *vec = evpy_malloc((chains + 1) * sizeof *vec);
	size_t unkept = 0, position = 0, n = 0, j;

	if (views == NULL || vec == NULL)
		goto failed;
	if (chains > 0)
		evbuffer_peek(buf, (ev_ssize_t)end, NULL, vec, chains);
	for (i = 0; i < chains; ++i) {
		struct evpy_view *view = &views->views[views->n];

		if (vec[i].iov_len == 0)
			continue;
		view->base = vec[i].iov_base;
		view->size = vec[i].iov_len;
		evpy_find_keeper(view);
		unkept += view->keeper == NULL;
		++views->n;
	}
	if (unkept > 0 && evpy_keep(buf, views, unkept) < 0)
		goto failed;
	for (j = 0; j < views->n; ++j) {
		struct evpy_view view = views->views[j];
		size_t skip = start > position ? start - position : 0;
		size_t past = position + view.size > end ? position + view.size - end : 0;

		position += view.size;
		if (skip >= view.size) {
			evpy_keeper_drop(view.keeper, NULL);
			continue;
		}
		view.base += skip;
		view.size -= skip + past;
		views->views[n++] = view;
	}
	views->n = n;
	evpy_free(vec);
	return views;
failed:
	evpy_free(vec);
	evpy_views_free(views);
	errno = ENOMEM;
	return NULL;
}

static struct evpy_views *evpy_peek(struct evbuffer *buf, size_t start, size_t size)
{
	struct evpy_views *views;
	size_t length;

	evbuffer_lock(buf);
	length = evbuffer_get_length(buf);
	if (start > length)
		start = length;
	views = evpy_share(buf, start, size < length - start ? start + size : length);
	evbuffer_unlock(buf);
	return views;
}

/* The first `size` bytes, or all there are, in one view. libevent pulls bytes up into new memory, or appends them
 * to memory that isn't shared: keepers' memory has no room for more. */
static struct evpy_views *evpy_pullup(struct evbuffer *buf, size_t size)
{
	struct evpy_views *views = NULL;
	size_t length;

	evbuffer_lock(buf);
	length = evbuffer_get_length(buf);
	if (size > length)
		size = length;
	if (size == 0 || evbuffer_pullup(buf, (ev_ssize_t)size) != NULL)
		views = evpy_share(buf, 0, size);
	else
		errno = ENOMEM;
	evbuffer_unlock(buf);
	return views;
}

/* Only one of the buffers is locked at a time. */
static int evpy_add_buffer_reference(struct evbuffer *out, struct evbuffer *in)
{
	struct evpy_views *views = evpy_peek(in, 0, SIZE_MAX);
	struct evbuffer *references;
	int result = -1;

	if (views == NULL)
		return -1;
	references = evpy_refer(views);
	evpy_views_free(views);
	if (references != NULL) {
		errno = 0;
		result = evbuffer_add_buffer(out, references);
		evbuffer_free(references);
	}
	return result;
}

/* Memory to write to, in its own keeper: whatever happens to the buffer that it is for, code that still writes to
 * it never writes to other memory. */
static struct evpy_views *evpy_reserve(size_t size)
{
	struct evpy_views *views = evpy_calloc(1, sizeof *views + sizeof views->views[0]);
	struct evpy_keeper *keeper = evpy_keeper_new(0);
	struct evbuffer_iovec vec;

	if (views == NULL || keeper == NULL ||
	    evbuffer_reserve_space(keeper->content, (ev_ssize_t)size, &vec, 1) < 0) {
		evpy_free(views);
		if (keeper != NULL)
			evpy_keeper_drop(keeper, NULL);
		errno = ENOMEM;
		return NULL;
	}
	views->n = 1;
	views->views[0].base = vec.iov_base;
	views->views[0].size = size;
	views->views[0].keeper = keeper;
	return views;
}

/* Move the first `size` bytes of what was reserved to the end of a buffer, with the memory. */
static int evpy_commit(struct evbuffer *buf, const struct evpy_view *view, size_t size)
{
	struct evbuffer_iovec vec = {view->base, size};

	if (evbuffer_commit_space(view->keeper->content, &vec, 1) < 0)
		return -1;
	return evbuffer_add_buffer(buf, view->keeper->content);
}
