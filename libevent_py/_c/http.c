/* Lists of headers. libevent has no lock for them, and a user's own headers belong to no thread. So every
 * function reads or changes a list under one lock, and returns only copies: the result of find_header
 * would be freed memory if a signal handler, a finalizer or another thread removed that header before
 * Python has read it. */

/* libevent has no function that makes a list, and a zeroed head is not a valid one (Q1). */
static struct evkeyvalq *evpy_headers_new(void)
{
	struct evkeyvalq *headers = evpy_malloc(sizeof *headers);

	if (headers != NULL) {
		headers->tqh_first = NULL;
		headers->tqh_last = &headers->tqh_first;
	}
	return headers;
}

static void evpy_headers_free(struct evkeyvalq *headers)
{
	evhttp_clear_headers(headers);
	evpy_free(headers);
}

struct evpy_header {
	ev_ssize_t size; /* -1: there is none */
	char text[248]; /* unless that is too little */
};

/* The first value of that name, as a whole: a copy that Python had to free could be lost by an interrupt. */
static struct evpy_header evpy_headers_find(struct evkeyvalq *headers, const char *name)
{
	struct evpy_header header;
	const char *found;

	evpy_memory_hold();
	found = evhttp_find_header(headers, name);
	header.size = found == NULL ? -1 : (ev_ssize_t)strlen(found);
	if (found != NULL && (size_t)header.size < sizeof header.text)
		memcpy(header.text, found, (size_t)header.size + 1);
	evpy_memory_leave();
	return header;
}

static size_t evpy_append(char *packed, size_t at, const char *string)
{
	size_t size = strlen(string) + 1;

	if (packed != NULL)
		memcpy(packed + at, string, size);
	return at + size;
}

/* Each name and value with its NUL, or with a name only its values, for the caller to free. */
static char *evpy_headers_pack(struct evkeyvalq *headers, const char *name, size_t *size)
{
	char *packed = NULL;
	struct evkeyval *header;
	int pass;

	evpy_memory_hold();
	for (pass = 0; pass < 2; ++pass) {
		*size = 0;
		for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next) {
			if (name == NULL)
				*size = evpy_append(packed, *size, header->key);
			else if (evutil_ascii_strcasecmp(header->key, name) != 0)
				continue;
			*size = evpy_append(packed, *size, header->value);
		}
		if (packed == NULL && (packed = evpy_malloc(*size + 1)) == NULL)
			break;
	}
	evpy_memory_leave();
	return packed;
}

static int evpy_headers_add(struct evkeyvalq *headers, const char *name, const char *value)
{
	int result;

	evpy_memory_hold();
	result = evhttp_add_header(headers, name, value);
	evpy_memory_leave();
	return result;
}

/* The new one is added first: then a failure loses nothing. */
static int evpy_headers_set(struct evkeyvalq *headers, const char *name, const char *value)
{
	struct evkeyval *header;
	int result, before = 0;

	evpy_memory_hold();
	for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next)
		before += evutil_ascii_strcasecmp(header->key, name) == 0;
	result = evhttp_add_header(headers, name, value);
	while (result == 0 && before-- > 0)
		evhttp_remove_header(headers, name);
	evpy_memory_leave();
	return result;
}

/* Remove all headers of that name; return how many there were. */
static int evpy_headers_remove(struct evkeyvalq *headers, const char *name)
{
	int removed = 0;

	evpy_memory_hold();
	while (evhttp_remove_header(headers, name) == 0)
		++removed;
	evpy_memory_leave();
	return removed;
}

static void evpy_headers_clear(struct evkeyvalq *headers)
{
	evpy_memory_hold();
	evhttp_clear_headers(headers);
	evpy_memory_leave();
}

/* URIs: as with headers, another thread may set a part while this one reads it. */

/* A copy for the caller to free. NULL with errno 0: the URI has no such part. */
static char *evpy_uri_get(
    const struct evhttp_uri *uri, const char *(*get)(const struct evhttp_uri *))
{
	const char *found;
	char *copy = NULL;

	evpy_memory_hold();
	found = get(uri);
	errno = 0;
	if (found != NULL)
		copy = evpy_strdup(found);
	evpy_memory_leave();
	return copy;
}

static int evpy_uri_set(
    struct evhttp_uri *uri, int (*set)(struct evhttp_uri *, const char *), const char *value)
{
	int result;

	evpy_memory_hold();
	result = set(uri, value);
	evpy_memory_leave();
	return result;
}

/* The copy is nonconformant at first, so that it accepts all parts of the original. */
static struct evhttp_uri *evpy_uri_copy(const struct evhttp_uri *uri)
{
	struct evhttp_uri *copy = evhttp_uri_new();
	int failed;

	if (copy == NULL)
		return NULL;
	evhttp_uri_set_flags(copy, EVHTTP_URI_NONCONFORMANT);
	evpy_memory_hold();
	failed = evhttp_uri_set_scheme(copy, evhttp_uri_get_scheme(uri)) ||
	    evhttp_uri_set_userinfo(copy, evhttp_uri_get_userinfo(uri)) ||
	    evhttp_uri_set_host(copy, evhttp_uri_get_host(uri)) ||
	    evhttp_uri_set_port(copy, evhttp_uri_get_port(uri)) ||
	    evhttp_uri_set_path(copy, evhttp_uri_get_path(uri)) ||
	    evhttp_uri_set_query(copy, evhttp_uri_get_query(uri)) ||
	    evhttp_uri_set_fragment(copy, evhttp_uri_get_fragment(uri));
	evpy_memory_leave();
	if (failed) {
		evhttp_uri_free(copy);
		return NULL;
	}
	return copy;
}

static size_t evpy_length(const char *string)
{
	return string != NULL ? strlen(string) : 0;
}

/* The whole for the caller to free. NULL with errno 0: libevent refuses it. */
static char *evpy_uri_join(struct evhttp_uri *uri)
{
	char *whole;
	size_t size;
	int before = evpy_guard(); /* evhttp would leave out a part */

	if (before < 0)
		return NULL;
	evpy_memory_hold();
	size = evpy_length(evhttp_uri_get_scheme(uri)) + evpy_length(evhttp_uri_get_userinfo(uri)) +
	    evpy_length(evhttp_uri_get_host(uri)) + evpy_length(evhttp_uri_get_path(uri)) +
	    evpy_length(evhttp_uri_get_query(uri)) + evpy_length(evhttp_uri_get_fragment(uri)) +
	    sizeof "://@:2147483647?#";
	whole = evpy_malloc(size);
	if (whole != NULL) {
		errno = 0;
		if (evhttp_uri_join(uri, whole, size) == NULL || evpy_missed(before)) {
			evpy_free(whole);
			whole = NULL;
		}
	}
	evpy_memory_leave();
	evpy_unguard(before);
	return whole;
}

/* The same for evhttp_uriencode(), which would leave out the rest: the caller frees what it returns. */
static char *evpy_http_uriencode(const char *octets, ev_ssize_t size, int space_to_plus)
{
	char *encoded;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	encoded = evhttp_uriencode(octets, size, space_to_plus);
	if (encoded != NULL && evpy_missed(before)) {
		evpy_free(encoded);
		encoded = NULL;
	}
	evpy_unguard(before);
	return encoded;
}

/* NULL with errno 0: there is no host. */
static const char *evpy_http_host(struct evhttp_request *req)
{
	unsigned before = evpy_warned;
	const char *host = evhttp_request_get_host(req);

	errno = host == NULL && evpy_warned != before ? ENOMEM : 0;
	return host;
}
