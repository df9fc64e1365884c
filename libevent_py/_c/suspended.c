/* While a filter is disabled, or has enough input, bytes wait in the input of the bufferevent below it; the socket
 * reports nothing about them any more. */
static void evpy_bufferevent_pass(struct bufferevent *bev)
{
	struct bufferevent *underlying = bufferevent_get_underlying(bev);

	if (underlying != NULL && evbuffer_get_length(underlying->input) > 0)
		bufferevent_trigger(
		    underlying, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

/* libevent reports input only when more comes, never for bytes that came before. */
static void evpy_bufferevent_tell(struct bufferevent *bev)
{
	if (evbuffer_get_length(bev->input) > 0)
		bufferevent_trigger(bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static int evpy_bufferevent_enable(struct bufferevent *bev, short what)
{
	int begins = what & EV_READ && !(bev->enabled & EV_READ), result;

	if (!begins)
		return bufferevent_enable(bev, what);
	bufferevent_lock(bev); /* and a reference: without DEFER_CALLBACKS it may be called */
	result = bufferevent_enable(bev, what);
	if (bev->enabled & EV_READ) {
		evpy_bufferevent_pass(bev);
		evpy_bufferevent_tell(bev);
	}
	bufferevent_unlock(bev);
	return result;
}

/* libevent uses the callback for the watermark even if it got no memory for it. */
static int evpy_bufferevent_setwatermark(
    struct bufferevent *bev, short what, size_t low, size_t high)
{
	size_t before = bev->wm_read.low;
	int guard = evpy_guard();

	if (guard < 0)
		return -1;
	bufferevent_lock(bev);
	bufferevent_setwatermark(bev, what, low, high);
	evpy_unguard(guard);
	if (what & EV_READ && bev->enabled & EV_READ) {
		evpy_bufferevent_pass(bev);
		if (low < before)
			evpy_bufferevent_tell(bev);
	}
	bufferevent_unlock(bev);
	return 0;
}

static void evpy_on_end_told(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *underlying)
{
	(void)input;
	(void)info;
	(void)underlying;
}

/* The end of a lower bufferevent waits until the bytes before it, in `input`, have been passed on: it is reported
 * once more when `input` changes. It stays with the lower bufferevent, whatever happens to the one above. In Python's
 * callbacks nothing may be removed (evpy_buffer_remove_cb), so that another callback says what has been told. */
static void evpy_on_before_the_end(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct bufferevent *underlying = arg;
	int told = 0;

	(void)info;
	if (evpy_changes == 0) {
		evbuffer_remove_cb(input, evpy_on_before_the_end, underlying);
		while (evbuffer_remove_cb(input, evpy_on_end_told, underlying) == 0)
			told = 1;
	} else {
		evbuffer_add_cb(input, evpy_on_end_told, underlying);
	}
	if (!told)
		bufferevent_trigger_event(
		    underlying, BEV_EVENT_READING | BEV_EVENT_EOF, BEV_TRIG_DEFER_CALLBACKS);
}

/* Without memory it is reported at once, as in libevent. */
static int evpy_hold_the_end(struct bufferevent *underlying, struct evbuffer *input, short what)
{
	return what == (BEV_EVENT_READING | BEV_EVENT_EOF) &&
	    evbuffer_add_cb(input, evpy_on_before_the_end, underlying) != NULL;
}
