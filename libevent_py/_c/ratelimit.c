/* Limits of bufferevents and of groups of them.
 *
 * libevent keeps the pointer to a bufferevent's limit and counts no references (J1). So each
 * bufferevent has one of its own, made here and freed here when it is replaced, or when the bufferevent
 * is freed; one that was set without us is taken over. Groups copy theirs. */

/* A limit that replaces "no limit" while libevent may be refilling a bucket: after its callbacks, it looks at the
 * limit again without checking that there still is one. */
static struct ev_token_bucket_cfg *evpy_no_limit;

static struct ev_token_bucket_cfg *evpy_limit_new(
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick)
{
	struct timeval tv = evpy_timeval(tick);
	struct ev_token_bucket_cfg *limit =
	    ev_token_bucket_cfg_new(read_rate, read_burst, write_rate, write_burst, &tv);

	if (limit == NULL)
		errno = ENOMEM;
	return limit;
}

static int evpy_ratelimit_init(void)
{
	size_t most = INT_MAX; /* TLS counts in an int */

	evpy_no_limit = evpy_limit_new(most, most, most, most, 1.0);
	return evpy_no_limit == NULL ? -1 : 0;
}

static struct ev_token_bucket_cfg *evpy_limit_of(struct bufferevent *bev)
{
	return (struct ev_token_bucket_cfg *)bufferevent_get_token_bucket_cfg(bev);
}

/* A callback inside may have set another limit: that is freed, too. */
static void evpy_bufferevent_unlimit(struct bufferevent *bev, int busy)
{
	struct ev_token_bucket_cfg *limit;
	int limited = 0;

	while ((limit = evpy_limit_of(bev)) != NULL) {
		limited = 1;
		bufferevent_set_rate_limit(bev, NULL);
		if (limit != evpy_no_limit)
			ev_token_bucket_cfg_free(limit);
	}
	if (limited && busy)
		bufferevent_set_rate_limit(bev, evpy_no_limit);
}

/* Take `n` bytes out of a bucket; 1 if there is none. libevent asserts that there is, and only here nothing can come
 * between. */
static int evpy_bufferevent_take(struct bufferevent *bev, int writing, ev_ssize_t n)
{
	int result = 1;

	bufferevent_lock(bev);
	if (evpy_limit_of(bev) != NULL)
		result = writing ? bufferevent_decrement_write_limit(bev, n)
				 : bufferevent_decrement_read_limit(bev, n);
	bufferevent_unlock(bev);
	return result;
}

static ev_ssize_t evpy_at_most(ev_ssize_t level, size_t most)
{
	return level > (ev_ssize_t)most ? (ev_ssize_t)most : level;
}

/* Take as much of a new bucket that `left` is left, in two steps if that is negative: one number may be too small. */
static int evpy_bucket_leave(struct bufferevent *bev, int (*take)(struct bufferevent *, ev_ssize_t),
    size_t rate, ev_ssize_t left)
{
	int failed;

	if (left >= 0)
		return take(bev, (ev_ssize_t)rate - left);
	failed = take(bev, (ev_ssize_t)rate);
	return take(bev, -left) | failed;
}

/* If a limit is replaced by one with another tick, libevent goes on counting in old ticks, and may never refill
 * the bucket again. So the old limit is removed first, and what was left of it is put into the new bucket. */
static int evpy_bufferevent_set_rate_limit(struct bufferevent *bev, size_t read_rate,
    size_t read_burst, size_t write_rate, size_t write_burst, double tick)
{
	struct ev_token_bucket_cfg *limit =
	    evpy_limit_new(read_rate, read_burst, write_rate, write_burst, tick);
	const struct ev_token_bucket_cfg *old = bufferevent_get_token_bucket_cfg(bev);
	ev_ssize_t reading = evpy_at_most(bufferevent_get_read_limit(bev), read_burst);
	ev_ssize_t writing = evpy_at_most(bufferevent_get_write_limit(bev), write_burst);
	int failed = 0, before;

	if (limit == NULL)
		return -1;
	/* Without it the old limit would be gone, or the timer that refills the bucket missing. */
	before = evpy_guard();
	if (before < 0) {
		ev_token_bucket_cfg_free(limit);
		return -1;
	}
	evpy_bufferevent_unlimit(bev, 0);
	failed = bufferevent_set_rate_limit(bev, limit);
	if (failed) {
		ev_token_bucket_cfg_free(limit);
		errno = ENOMEM;
	} else if (old != NULL && old != evpy_no_limit) {
		failed |=
		    evpy_bucket_leave(bev, bufferevent_decrement_read_limit, read_rate, reading);
		failed |=
		    evpy_bucket_leave(bev, bufferevent_decrement_write_limit, write_rate, writing);
	}
	evpy_unguard(before);
	return failed;
}

/* libevent doesn't report that it could not add the timer that refills the group's bucket, or has no lock. */
static struct bufferevent_rate_limit_group *evpy_rate_limit_group_new(struct event_base *base,
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick)
{
	struct ev_token_bucket_cfg *limit =
	    evpy_limit_new(read_rate, read_burst, write_rate, write_burst, tick);
	int before = evpy_guard();
	struct bufferevent_rate_limit_group *group = NULL;

	if (limit != NULL && before >= 0)
		group = bufferevent_rate_limit_group_new(base, limit);
	if (limit != NULL)
		ev_token_bucket_cfg_free(limit);
	if (group != NULL && evpy_missed(before)) {
		bufferevent_rate_limit_group_free(group);
		group = NULL;
	}
	if (before >= 0)
		evpy_unguard(before);
	if (group == NULL)
		errno = ENOMEM;
	return group;
}

static int evpy_rate_limit_group_set_limit(struct bufferevent_rate_limit_group *group,
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick)
{
	struct ev_token_bucket_cfg *limit =
	    evpy_limit_new(read_rate, read_burst, write_rate, write_burst, tick);
	int result;

	if (limit == NULL)
		return -1;
	result = bufferevent_rate_limit_group_set_cfg(group, limit);
	ev_token_bucket_cfg_free(limit);
	return result;
}
