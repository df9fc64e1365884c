/* All headers of a message in one call: packed, each name and each value with its NUL. */

#define EVPY_MISNAMED (-5)

/* What a name consists of in RFC 9110. */
static int evpy_http_is_token(const char *name)
{
	const char *at;

	for (at = name; *at != '\0'; ++at) {
		unsigned char c = (unsigned char)*at, letter = c | 0x20;

		if ((letter < 'a' || letter > 'z') && (c < '0' || c > '9') &&
		    strchr("!#$%&'*+-.^_`|~", c) == NULL)
			return 0;
	}
	return at > name;
}

/* Whether these are that many names and values that can be sent as they are. libevent accepts too much (Q4); with a
 * NUL inside a value, there are more texts than there should be. */
static int evpy_http_are_sendable(const char *packed, size_t size, size_t pairs)
{
	const char *at = packed, *end = packed + size;

	for (; pairs > 0 && at < end; --pairs) {
		if (!evpy_http_is_token(at))
			return 0;
		at += strlen(at) + 1;
		if (at >= end || at[strcspn(at, "\r\n")] != '\0')
			return 0;
		at += strlen(at) + 1;
	}
	return pairs == 0 && at == end;
}

/* Remove the headers from `place` on, where the list ended once. */
static void evpy_http_cut(struct evkeyvalq *headers, struct evkeyval **place)
{
	struct evkeyvalq rest = {*place, headers->tqh_last};

	if (rest.tqh_first == NULL)
		return;
	rest.tqh_first->next.tqe_prev = &rest.tqh_first;
	*place = NULL;
	headers->tqh_last = place;
	evhttp_clear_headers(&rest);
}

/* Adds all of them, or none; then returns -1 or EVPY_MISNAMED. */
static int evpy_http_add_packed(
    struct evkeyvalq *headers, const char *packed, size_t size, size_t pairs)
{
	struct evkeyval **place = headers->tqh_last;
	const char *end = packed + size, *value;

	if (!evpy_http_are_sendable(packed, size, pairs))
		return EVPY_MISNAMED;
	for (; packed < end; packed = value + strlen(value) + 1) {
		value = packed + strlen(packed) + 1;
		if (evhttp_add_header(headers, packed, value) < 0) {
			evpy_http_cut(headers, place);
			return -1;
		}
	}
	return 0;
}

/* What comes before the texts of a snapshot: Python reads it as "=QIHbb". */
struct evpy_http_facts {
	ev_uint64_t body;
	ev_uint32_t command;
	ev_uint16_t port;
	signed char major, minor;
};

/* Where a snapshot is put together; `size` is what it takes altogether, even if there is no room for it. */
struct evpy_http_packing {
	char *packed;
	size_t size, room;
};

static void evpy_http_pack(struct evpy_http_packing *packing, const char *text)
{
	size_t size;

	if (text == NULL)
		text = "";
	size = strlen(text) + 1;
	if (packing->size + size <= packing->room)
		memcpy(packing->packed + packing->size, text, size);
	packing->size += size;
}

/* The facts; the URI, the client's host, and the headers; and the body, which stays in the request. Returns how much
 * all but the body takes, -1 if the body can't be read, or how much room is missing for all, as a number below -1. */
static ev_ssize_t evpy_http_snapshot(struct evhttp_request *req, char *packed, size_t room)
{
	struct evpy_http_packing packing = {packed, sizeof(struct evpy_http_facts), room};
	struct evpy_http_facts facts = {evbuffer_get_length(req->input_buffer),
	    (ev_uint32_t)req->type, req->remote_port, req->major, req->minor};
	struct evkeyval *header;

	evpy_http_pack(&packing, req->uri);
	evpy_http_pack(&packing, req->remote_host);
	for (header = req->input_headers->tqh_first; header != NULL;
	    header = header->next.tqe_next) {
		evpy_http_pack(&packing, header->key);
		evpy_http_pack(&packing, header->value);
	}
	if (packing.size + facts.body > room)
		return -(ev_ssize_t)(packing.size + facts.body);
	memcpy(packed, &facts, sizeof facts);
	if (facts.body > 0 &&
	    evbuffer_copyout(req->input_buffer, packed + packing.size, facts.body) !=
		(ev_ssize_t)facts.body)
		return -1;
	return (ev_ssize_t)packing.size;
}
