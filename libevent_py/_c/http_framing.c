/* Framing: how a message's headers say how long its body is. If they get it wrong, the peer takes the rest of
 * the body for the next message. */

#define EVPY_MISFRAMED (-4)

/* libevent gives no response to CONNECT a body, and doesn't end the connection. With this number, which isn't
 * CONNECT's alone, it treats a refusal like any other response. */
#define EVPY_REFUSED_CONNECT ((enum evhttp_cmd_type)(EVHTTP_REQ_CONNECT | EVHTTP_REQ_GET))

/* What is wrong with headers, for Python's error: several lengths, one that is no number, a coding other
 * than "chunked", or length and coding at once. */
#define EVPY_FRAMING_LENGTHS 1
#define EVPY_FRAMING_NUMBER 2
#define EVPY_FRAMING_CODING 3
#define EVPY_FRAMING_BOTH 4

struct evpy_framing {
	/* What Content-Length says, or -1. */
	ev_int64_t length;
	int chunked;
	int problem;
};

static int evpy_http_is(const char *text, const char *word)
{
	size_t size = strlen(word);

	text += strspn(text, " \t");
	return evutil_ascii_strncasecmp(text, word, size) == 0 &&
	    text[size + strspn(text + size, " \t")] == '\0';
}

static ev_int64_t evpy_http_number(const char *text)
{
	ev_int64_t number = 0;

	text += strspn(text, " \t");
	if (*text < '0' || *text > '9')
		return -1;
	for (; *text >= '0' && *text <= '9'; ++text) {
		if (number > (EV_INT64_MAX - 9) / 10)
			return -1;
		number = 10 * number + (*text - '0');
	}
	return text[strspn(text, " \t")] == '\0' ? number : -1;
}

static struct evpy_framing evpy_http_framing(const struct evkeyvalq *headers)
{
	struct evpy_framing framing = {-1, 0, 0};
	const struct evkeyval *header;

	for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next) {
		char first = header->key[0] | 0x20;

		if (first == 'c' && evutil_ascii_strcasecmp(header->key, "Content-Length") == 0) {
			if (framing.length >= 0)
				framing.problem = EVPY_FRAMING_LENGTHS;
			framing.length = evpy_http_number(header->value);
			if (framing.length < 0)
				framing.problem = EVPY_FRAMING_NUMBER;
		} else if (first == 't' &&
		    evutil_ascii_strcasecmp(header->key, "Transfer-Encoding") == 0) {
			if (framing.chunked || !evpy_http_is(header->value, "chunked"))
				framing.problem = EVPY_FRAMING_CODING;
			framing.chunked = 1;
		}
	}
	if (!framing.problem && framing.chunked && framing.length >= 0)
		framing.problem = EVPY_FRAMING_BOTH;
	return framing;
}

static int evpy_http_frame_problem(struct evkeyvalq *headers)
{
	return evpy_http_framing(headers).problem;
}

static void evpy_http_remove(struct evkeyvalq *headers, const char *name)
{
	while (evhttp_remove_header(headers, name) == 0)
		;
}

static int evpy_http_add_length(struct evkeyvalq *headers, size_t size)
{
	char text[24];

	snprintf(text, sizeof text, "%zu", size);
	return evhttp_add_header(headers, "Content-Length", text);
}

/* Makes one chunk of the body, and the end; of an empty one only the end. */
static int evpy_http_chunk_whole(struct evbuffer *body)
{
	size_t size = evbuffer_get_length(body);
	char text[24];
	int length = snprintf(text, sizeof text, "%zx\r\n", size);

	if (size == 0)
		return evbuffer_add(body, "0\r\n\r\n", 5);
	if (evbuffer_prepend(body, text, (size_t)length) < 0)
		return -1;
	if (evbuffer_add(body, "\r\n0\r\n\r\n", 7) < 0) {
		evbuffer_drain(body, (size_t)length);
		return -1;
	}
	return 0;
}

/* Whether one of the headers of that name lists the token. */
static int evpy_http_lists(const struct evkeyvalq *headers, const char *name, const char *token)
{
	const struct evkeyval *header;
	size_t size = strlen(token);
	char first = name[0] | 0x20;

	for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next) {
		const char *value = header->value;

		if ((header->key[0] | 0x20) != first ||
		    evutil_ascii_strcasecmp(header->key, name) != 0)
			continue;
		for (; *value != '\0'; value += strcspn(value, ",")) {
			const char *after;

			value += strspn(value, ", \t");
			after = value + size;
			if (evutil_ascii_strncasecmp(value, token, size) == 0 &&
			    (*(after += strspn(after, " \t")) == ',' || *after == '\0'))
				return 1;
		}
	}
	return 0;
}
