/* Pieces of 4 KiB through one evbuffer, timed: `buffer_ops add|search|readln|remove|drain`. */
#include <string.h>

#include <event2/buffer.h>

#include "contender.h"

#define PIECE 4096
#define PIECES 64 /* in the buffer at a time */

static char piece[PIECE], data[PIECE];

static void add(struct evbuffer *buffer, size_t start)
{
	evbuffer_add(buffer, piece, PIECE);
}

static void search(struct evbuffer *buffer, size_t start)
{
	struct evbuffer_ptr from;
	evbuffer_ptr_set(buffer, &from, start, EVBUFFER_PTR_SET);
	evbuffer_search(buffer, "\r\n", 2, &from);
}

static void readln(struct evbuffer *buffer, size_t start)
{
	free(evbuffer_readln(buffer, NULL, EVBUFFER_EOL_CRLF));
}

static void remove_piece(struct evbuffer *buffer, size_t start)
{
	evbuffer_remove(buffer, data, PIECE);
}

static void drain(struct evbuffer *buffer, size_t start)
{
	evbuffer_drain(buffer, PIECE);
}

typedef void operation(struct evbuffer *buffer, size_t start);

static operation *named(const char *name)
{
	static const struct {
		const char *name;
		operation *operate;
	} operations[] = {{"add", add}, {"search", search}, {"readln", readln},
	    {"remove", remove_piece}, {"drain", drain}};

	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (strcmp(operations[i].name, name) == 0)
			return operations[i].operate;
	abort();
}

static void of_each_piece(operation *operate, struct evbuffer *buffer)
{
	for (size_t start = 0; start < PIECES * PIECE; start += PIECE)
		operate(buffer, start);
}

int main(int argc, char **argv)
{
	operation *operate = named(argc > 1 ? argv[1] : "");
	struct evbuffer *buffer = evbuffer_new();
	long count;

	memset(piece, 'x', PIECE);
	memcpy(piece + PIECE - 2, "\r\n", 2);
	while (next_count(&count)) {
		long long taken = 0, start;
		long done;

		for (done = 0; done < count; done += PIECES) {
			if (operate != add)
				of_each_piece(add, buffer);
			start = processor_time();
			of_each_piece(operate, buffer);
			taken += processor_time() - start;
			evbuffer_drain(buffer, evbuffer_get_length(buffer));
		}
		answer(taken, done);
	}
	evbuffer_free(buffer);
	return 0;
}
