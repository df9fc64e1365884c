/* Lists of headers. libevent has no lock for them, and headers of one's own belong to no thread. So
 * whatever reads or changes a list does it under one lock, and only copies leave: what find_header
 * returns would be gone if a signal handler, a finalizer or another thread removed that header before
 * Python has read it. */

/* libevent has no function that makes one, and a head that is only zeroed is none (Q1). */
static struct evkeyvalq *evpy_headers_new(void)
{
	struct evkeyvalq *headers = malloc(sizeof *headers);

	if (headers != NULL) {
		headers->tqh_first = NULL;
		headers->tqh_last = &headers->tqh_first;
	}
	return headers;
}

static void evpy_headers_free(struct evkeyvalq *headers)
{
	evhttp_clear_headers(headers);
	free(headers);
}

/* A copy of the first value of that name, for the caller to free. NULL with errno 0: there is none. */
static char *evpy_headers_find(struct evkeyvalq *headers, const char *name)
{
	const char *found;
	char *copy = NULL;

	evpy_memory_hold();
	found = evhttp_find_header(headers, name);
	errno = 0;
	if (found != NULL)
		copy = strdup(found);
	evpy_memory_leave();
	return copy;
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
		if (packed == NULL && (packed = malloc(*size + 1)) == NULL)
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

/* All of that name; returns how many there were. */
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
