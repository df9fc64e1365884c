/* Filters that are Python functions; `arg` is a key, as in event.c. */

/* libevent calls a filter again as long as it returns BEV_OK and leaves input: so a filter that does
 * nothing would be called for ever (H3). */
static enum bufferevent_filter_result evpy_run_filter(void *key, int outward,
    struct evbuffer *source, struct evbuffer *destination, ev_ssize_t limit,
    enum bufferevent_flush_mode mode)
{
	size_t before = evbuffer_get_length(source), room = evbuffer_get_length(destination);
	int result;

	EVPY_ASK(result, evpy_filter((uintptr_t)key, outward, limit, mode));
	if (result == EVPY_NOT_CALLED)
		return BEV_ERROR;
	if (result == BEV_OK && evbuffer_get_length(source) == before &&
	    evbuffer_get_length(destination) == room)
		return BEV_NEED_MORE;
	return (enum bufferevent_filter_result)result;
}

static enum bufferevent_filter_result evpy_on_input(struct evbuffer *source,
    struct evbuffer *destination, ev_ssize_t limit, enum bufferevent_flush_mode mode, void *key)
{
	return evpy_run_filter(key, 0, source, destination, limit, mode);
}

static enum bufferevent_filter_result evpy_on_output(struct evbuffer *source,
    struct evbuffer *destination, ev_ssize_t limit, enum bufferevent_flush_mode mode, void *key)
{
	return evpy_run_filter(key, 1, source, destination, limit, mode);
}

/* libevent's own function runs the destination's callbacks while the source is half moved: a filter below may
 * then use the bufferevents on top of it. */
static enum bufferevent_filter_result evpy_pass(struct evbuffer *source,
    struct evbuffer *destination, ev_ssize_t limit, enum bufferevent_flush_mode mode, void *key)
{
	size_t size = evbuffer_get_length(source);

	(void)mode;
	(void)key;
	if (limit >= 0 && (size_t)limit < size)
		size = (size_t)limit;
	return evpy_buffer_remove_buffer(source, destination, size) < 0 ? BEV_ERROR : BEV_OK;
}

/* libevent's own callback for events below a filter; it is the same function for all filters. */
static bufferevent_event_cb evpy_filter_event;

static void evpy_on_event_below(struct bufferevent *underlying, short what, void *arg)
{
	struct bufferevent *filter = arg;
	size_t high = filter->wm_read.high;
	int takes =
	    filter->enabled & EV_READ && (high == 0 || evbuffer_get_length(filter->input) < high);

	if (takes || filter->readcb == NULL || evbuffer_get_length(underlying->input) == 0 ||
	    !evpy_hold_the_end(underlying, underlying->input, what))
		evpy_filter_event(underlying, what, filter);
}

/* libevent passes on the input that waits below a filter only if it was the filter that stopped reading. */
static void evpy_on_filter_input(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct bufferevent *filter = arg;
	size_t high = filter->wm_read.high;

	if (high > 0 && info->orig_size >= high && evbuffer_get_length(input) < high)
		evpy_bufferevent_pass(filter);
}

/* A freed filter is unlinked only when nothing uses it any more. If it then finds libevent's own callbacks on
 * the bufferevent below, it removes them, though they may be those of the next filter. So we set ours. */
static struct bufferevent *evpy_filter_new(
    struct bufferevent *underlying, int input, int output, int options, uintptr_t key)
{
	struct bufferevent *filter;
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	short enabled = bufferevent_get_enabled(underlying);
	void *arg;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	bufferevent_getcb(underlying, &read, &write, &event, &arg);
	filter = bufferevent_filter_new(underlying, input ? evpy_on_input : evpy_pass,
	    output ? evpy_on_output : evpy_pass, options, NULL, (void *)key);
	if (filter != NULL &&
	    (evbuffer_add_cb(filter->input, evpy_on_filter_input, filter) == NULL ||
		evpy_missed(before))) {
		bufferevent_setcb(underlying, read, write, event, arg);
		bufferevent_disable(underlying, (EV_READ | EV_WRITE) & ~enabled);
		bufferevent_free(filter);
		filter = NULL;
	}
	evpy_unguard(before);
	if (filter != NULL) {
		bufferevent_getcb(underlying, &read, &write, &evpy_filter_event, &arg);
		bufferevent_setcb(underlying, read, write, evpy_on_event_below, arg);
	}
	return filter;
}
