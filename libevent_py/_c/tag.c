/* Tagged items, each removed and added as a whole.
 *
 * libevent reads a tag beyond the bytes that it has made contiguous (CVE-2026-63383, CVE-2026-63384). It leaves an
 * item that it can't read half consumed (R7). It removes and adds an item piece by piece: a callback in between
 * finds half an item, and libevent doesn't check what the callback changes. And it doesn't report that it couldn't
 * add. So libevent itself reads and writes small private buffers, with all bytes in one piece, and bytes are moved
 * from or to the real buffer at once. */

struct evpy_item {
	ev_uint32_t tag, length;
	ev_uint64_t number;
	struct timeval time;
	char *payload;
};

/* The kinds of items; the last two can only be unmarshalled. */
#define EVPY_TAG_BYTES 0
#define EVPY_TAG_INT 1
#define EVPY_TAG_INT64 2
#define EVPY_TAG_TIMEVAL 3
#define EVPY_TAG_BARE_INT 4
#define EVPY_TAG_BARE_INT64 5
#define EVPY_TAG_HEADER 6
#define EVPY_TAG_WHOLE 7

/* The reasons for failure, beside EVPY_FROZEN, and -1 for no memory. */
#define EVPY_TAG_MALFORMED (-4)
#define EVPY_TAG_INCOMPLETE (-5)
#define EVPY_TAG_OTHER (-6)
#define EVPY_TAG_PAYLOAD (-7)

/* The most bytes of a tag, of a length, and of a payload of one or two numbers. */
#define EVPY_TAG_ROOM 5
#define EVPY_LENGTH_ROOM 5
#define EVPY_NUMBER_ROOM 10

/* An item up to this size is copied: a separate chain would waste memory. */
#define EVPY_SMALL 2048

static int evpy_tag_marshal(
    struct evbuffer *buf, int kind, const struct evpy_item *item, const void *payload)
{
	struct evbuffer *whole = evbuffer_new();
	struct timeval time = item->time;
	size_t size;
	int result = 0, before = evpy_guard();

	if (whole == NULL || before < 0) {
		if (whole != NULL)
			evbuffer_free(whole);
		if (before >= 0)
			evpy_unguard(before);
		return -1;
	}
	if (kind == EVPY_TAG_BYTES)
		evtag_marshal(whole, item->tag, payload, item->length);
	else if (kind == EVPY_TAG_INT)
		evtag_marshal_int(whole, item->tag, (ev_uint32_t)item->number);
	else if (kind == EVPY_TAG_INT64)
		evtag_marshal_int64(whole, item->tag, item->number);
	else if (kind == EVPY_TAG_TIMEVAL)
		evtag_marshal_timeval(whole, item->tag, &time);
	else if (kind == EVPY_TAG_BARE_INT)
		evtag_encode_int(whole, (ev_uint32_t)item->number);
	else
		evtag_encode_int64(whole, item->number);
	size = evbuffer_get_length(whole);
	if (size <= EVPY_SMALL && evbuffer_pullup(whole, -1) == NULL)
		result = -1;
	if (evpy_missed(before))
		result = -1;
	evpy_unguard(before);
	if (result == 0 && size <= EVPY_SMALL)
		result = evbuffer_add(buf, evbuffer_pullup(whole, -1), size);
	else if (result == 0)
		result = evbuffer_add_buffer(buf, whole);
	evbuffer_free(whole);
	return result;
}

/* Returns EVPY_TAG_PAYLOAD if there are more bytes than a length can express. */
static int evpy_tag_marshal_buffer(struct evbuffer *buf, struct evbuffer *data, ev_uint32_t tag)
{
	struct evbuffer *whole;
	size_t size;
	int result = 0, before;

	if (evpy_buffer_frozen(buf, 0) || evpy_buffer_frozen(data, 1))
		return -1;
	before = evpy_guard();
	if (before < 0)
		return -1;
	whole = evbuffer_new();
	if (whole == NULL || evpy_missed(before)) {
		if (whole != NULL)
			evbuffer_free(whole);
		evpy_unguard(before);
		return -1;
	}
	evbuffer_lock(data);
	size = evbuffer_get_length(data);
	if (size >= INT_MAX) /* as evtag_marshal() is given: it could not be removed again */
		result = EVPY_TAG_PAYLOAD;
	else
		evtag_marshal_buffer(whole, tag, data);
	evbuffer_unlock(data);
	/* A callback of data's may have frozen buf, and data too. */
	if (result == 0 && (evpy_missed(before) || evbuffer_add_buffer(buf, whole) < 0)) {
		result = -1;
		evbuffer_drain(whole, evbuffer_get_length(whole) - size);
		if (evbuffer_prepend_buffer(data, whole) < 0) {
			evbuffer_unfreeze(data, 1);
			evbuffer_prepend_buffer(data, whole);
			evbuffer_freeze(data, 1);
		}
	}
	evpy_unguard(before);
	evbuffer_free(whole);
	return result;
}

/* Find an item's tag and, if asked for, its payload's length; return the size of its header. */
static ev_ssize_t evpy_tag_peek(struct evbuffer *buf, int lengths, struct evpy_item *item)
{
	char octets[EVPY_TAG_ROOM + EVPY_LENGTH_ROOM];
	ev_ssize_t size = evbuffer_copyout(buf, octets, sizeof octets);
	struct evbuffer *header;
	ev_uint32_t all;
	int before;

	if (size < 0)
		return EVPY_FROZEN;
	before = evpy_guard();
	if (before < 0)
		return -1;
	header = evbuffer_new();
	if (header == NULL || evbuffer_add(header, octets, size) < 0)
		size = -1;
	else if (evtag_peek(header, &item->tag) < 0 ||
	    (lengths &&
		(evtag_payload_length(header, &item->length) < 0 ||
		    evtag_peek_length(header, &all) < 0)))
		size = EVPY_TAG_MALFORMED;
	else if (lengths)
		size = (ev_uint32_t)(all - item->length); /* also if their sum was too large */
	if (evpy_missed(before))
		size = -1;
	evpy_unguard(before);
	if (header != NULL)
		evbuffer_free(header);
	return size;
}

static ev_ssize_t evpy_tag_copy(struct evbuffer *buf, size_t start, void *out, size_t size)
{
	return size == 0 ? 0 : evpy_buffer_copyout(buf, start, out, size);
}

/* Read the number of `kind` in the item's payload. libevent gets an item made of the payload's first few bytes
 * only, so that it can't read beyond the payload. */
static int evpy_tag_number(
    struct evbuffer *buf, int kind, ev_ssize_t header, struct evpy_item *item)
{
	char octets[EVPY_NUMBER_ROOM];
	ev_uint32_t length = item->length < sizeof octets ? item->length : sizeof octets;
	struct evbuffer *whole;
	ev_uint32_t number = 0;
	int result, before;

	if (evpy_tag_copy(buf, header, octets, length) < 0)
		return EVPY_FROZEN;
	before = evpy_guard();
	if (before < 0)
		return -1;
	whole = evbuffer_new();
	if (whole == NULL) {
		evpy_unguard(before);
		return -1;
	}
	evtag_marshal(whole, item->tag, octets, length);
	if (kind == EVPY_TAG_TIMEVAL) {
		result = evtag_unmarshal_timeval(whole, item->tag, &item->time);
	} else if (kind == EVPY_TAG_INT64) {
		result = evtag_unmarshal_int64(whole, item->tag, &item->number);
	} else {
		result = evtag_unmarshal_int(whole, item->tag, &number);
		item->number = number;
	}
	evbuffer_free(whole);
	result = evpy_missed(before) ? -1 : result < 0 ? EVPY_TAG_PAYLOAD : 0;
	evpy_unguard(before);
	return result;
}

/* Remove the first item if it is of `kind` and has the needed tag (-1: any tag). The caller must free the payload
 * if it is bytes. Otherwise change nothing, and return why. Bytes must also have the given length, unless that is
 * UINT32_MAX. */
static int evpy_tag_unmarshal(
    struct evbuffer *buf, int kind, ev_int64_t need, struct evpy_item *item)
{
	ev_uint32_t fixed = item->length;
	ev_ssize_t header;
	int result = 0;

	evbuffer_lock(buf);
	header = evpy_tag_peek(buf, 1, item);
	if (header < 0)
		result = (int)header;
	else if (item->length >= INT_MAX || evbuffer_get_length(buf) - header < item->length)
		result = EVPY_TAG_INCOMPLETE;
	else if (need >= 0 && item->tag != need)
		result = EVPY_TAG_OTHER;
	else if (kind == EVPY_TAG_BYTES && fixed != UINT32_MAX && item->length != fixed)
		result = EVPY_TAG_PAYLOAD;
	else if (kind == EVPY_TAG_BYTES) {
		item->payload = evpy_malloc((size_t)item->length + 1);
		if (item->payload == NULL)
			result = -1;
		else if (evpy_tag_copy(buf, header, item->payload, item->length) < 0)
			result = EVPY_FROZEN;
	} else if (kind != EVPY_TAG_HEADER && kind != EVPY_TAG_WHOLE)
		result = evpy_tag_number(buf, kind, header, item);
	if (result == 0 &&
	    evbuffer_drain(buf, header + (kind == EVPY_TAG_HEADER ? 0 : item->length)) < 0)
		result = EVPY_FROZEN;
	evbuffer_unlock(buf);
	return result;
}
