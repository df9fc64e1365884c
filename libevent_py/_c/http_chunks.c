/* Extensions of chunks, as in "5;name=value". RFC 9112 says that receivers ignore them; libevent refuses them.
 *
 * The input is checked before libevent's parser gets it: each byte once, and none of a chunk's data. Bytes are
 * copied or changed only if there is an extension. Anything else that violates RFC 9112, and all that comes
 * after it, is left for libevent to refuse. */

/* The most bytes of extensions that are removed from one body: no honest sender needs many. */
#define EVPY_MOST_EXTENSIONS (64 * 1024)

enum evpy_chunk_state {
	EVPY_CHUNKS_OFF,
	EVPY_CHUNK_SIZE,
	EVPY_CHUNK_EXTENSION,
	EVPY_CHUNK_SIZE_LF,
	EVPY_CHUNK_DATA,
	EVPY_CHUNK_DATA_CR,
	EVPY_CHUNK_DATA_LF,
};

struct evpy_chunks {
	enum evpy_chunk_state state;
	/* The number of digits of the size, its value so far, and then how many bytes of data are still to come. */
	int digits;
	ev_uint64_t size;
	size_t dropped;
	/* Whether the input is being changed right now. */
	int busy;
};

static void evpy_chunks_begin(struct evpy_chunks *chunks)
{
	memset(chunks, 0, sizeof *chunks);
	chunks->state = EVPY_CHUNK_SIZE;
}

static int evpy_hex(unsigned char byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	byte |= 0x20;
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Whether a byte is part of an extension, or begins one. A space before it isn't part of the size, either. */
static int evpy_chunks_is_extension(const struct evpy_chunks *chunks, unsigned char byte)
{
	if (chunks->state == EVPY_CHUNK_EXTENSION)
		return byte != '\r';
	return chunks->state == EVPY_CHUNK_SIZE && chunks->digits > 0 &&
	    (byte == ';' || byte == ' ' || byte == '\t');
}

static enum evpy_chunk_state evpy_chunks_after_size(struct evpy_chunks *chunks, unsigned char byte)
{
	int digit = evpy_hex(byte);

	if (byte == '\r' && chunks->digits > 0)
		return EVPY_CHUNK_SIZE_LF;
	if (digit < 0 || ++chunks->digits > 15)
		return EVPY_CHUNKS_OFF;
	chunks->size = chunks->size << 4 | (ev_uint64_t)digit;
	return EVPY_CHUNK_SIZE;
}

/* What comes after a byte. */
static void evpy_chunks_step(struct evpy_chunks *chunks, unsigned char byte)
{
	switch (chunks->state) {
	case EVPY_CHUNK_SIZE:
		chunks->state = evpy_chunks_after_size(chunks, byte);
		break;
	case EVPY_CHUNK_EXTENSION: /* of which this is the end */
		chunks->state = EVPY_CHUNK_SIZE_LF;
		break;
	case EVPY_CHUNK_SIZE_LF:
		chunks->state =
		    byte == '\n' && chunks->size > 0 ? EVPY_CHUNK_DATA : EVPY_CHUNKS_OFF;
		break;
	case EVPY_CHUNK_DATA_CR:
		chunks->state = byte == '\r' ? EVPY_CHUNK_DATA_LF : EVPY_CHUNKS_OFF;
		break;
	case EVPY_CHUNK_DATA_LF:
		chunks->state = byte == '\n' ? EVPY_CHUNK_SIZE : EVPY_CHUNKS_OFF;
		chunks->digits = 0;
		chunks->size = 0;
		break;
	default:
		chunks->state = EVPY_CHUNKS_OFF;
	}
}

/* The number of bytes before the first extension, or before the point where checking ends. */
static size_t evpy_chunks_pass(
    struct evpy_chunks *chunks, const unsigned char *bytes, size_t length)
{
	size_t at = 0;

	while (at < length && chunks->state != EVPY_CHUNKS_OFF) {
		if (chunks->state == EVPY_CHUNK_DATA) {
			size_t part =
			    length - at < chunks->size ? length - at : (size_t)chunks->size;

			chunks->size -= part;
			at += part;
			if (chunks->size == 0)
				chunks->state = EVPY_CHUNK_DATA_CR;
		} else if (evpy_chunks_is_extension(chunks, bytes[at])) {
			break;
		} else {
			evpy_chunks_step(chunks, bytes[at++]);
		}
	}
	return at;
}

/* Removes the extensions from the bytes, and returns how many are left. If an extension turns out to be
 * invalid, its beginning is restored, so that libevent refuses it. */
static size_t evpy_chunks_compact(struct evpy_chunks *chunks, unsigned char *bytes, size_t length)
{
	size_t from = 0, to = 0, part;

	while (from < length) {
		if (chunks->state == EVPY_CHUNKS_OFF) {
			memmove(bytes + to, bytes + from, length - from);
			return to + length - from;
		}
		if (evpy_chunks_is_extension(chunks, bytes[from])) {
			unsigned char byte = bytes[from++];

			chunks->state = EVPY_CHUNK_EXTENSION;
			if ((byte < ' ' && byte != '\t') || byte == 0x7f ||
			    ++chunks->dropped > EVPY_MOST_EXTENSIONS) {
				bytes[to++] = ';';
				chunks->state = EVPY_CHUNKS_OFF;
			}
			continue;
		}
		part = evpy_chunks_pass(chunks, bytes + from, length - from);
		memmove(bytes + to, bytes + from, part);
		from += part;
		to += part;
	}
	return to;
}

/* Replaces the input from a position on. */
static int evpy_chunks_replace(
    struct evbuffer *input, size_t from, const unsigned char *bytes, size_t length)
{
	struct evbuffer *before = evbuffer_new();
	int result = -1;

	if (before != NULL && evbuffer_remove_buffer(input, before, from) >= 0 &&
	    evbuffer_drain(input, evbuffer_get_length(input)) == 0 &&
	    evbuffer_prepend(input, bytes, length) == 0)
		result = evbuffer_prepend_buffer(input, before);
	if (before != NULL)
		evbuffer_free(before);
	return result;
}

static int evpy_chunks_clean(struct evpy_chunks *chunks, struct evbuffer *input, size_t from)
{
	size_t length = evbuffer_get_length(input) - from, left;
	unsigned char *bytes = evpy_malloc(length);
	struct evbuffer_ptr position;
	int result = -1;

	if (bytes != NULL && evbuffer_ptr_set(input, &position, from, EVBUFFER_PTR_SET) == 0 &&
	    evbuffer_copyout_from(input, &position, bytes, length) == (ev_ssize_t)length) {
		left = evpy_chunks_compact(chunks, bytes, length);
		result = left == length ? 0 : evpy_chunks_replace(input, from, bytes, left);
	}
	evpy_free(bytes);
	return result;
}

/* Removes the extensions from the input from a position on. Returns -1 without memory; the input is undefined
 * then. */
static int evpy_chunks_filter(struct evpy_chunks *chunks, struct evbuffer *input, size_t from)
{
	int result = 0;

	while (chunks->state != EVPY_CHUNKS_OFF && from < evbuffer_get_length(input)) {
		struct evbuffer_iovec piece;
		struct evbuffer_ptr position;
		size_t passed;

		if (evbuffer_ptr_set(input, &position, from, EVBUFFER_PTR_SET) < 0 ||
		    evbuffer_peek(input, -1, &position, &piece, 1) < 1)
			return -1;
		passed = evpy_chunks_pass(chunks, piece.iov_base, piece.iov_len);
		from += passed;
		if (passed < piece.iov_len && chunks->state != EVPY_CHUNKS_OFF) {
			chunks->busy = 1;
			result = evpy_chunks_clean(chunks, input, from);
			chunks->busy = 0;
			break;
		}
	}
	return result;
}
