/* Two bufferevents that talk to each other in memory, without a socket.
 *
 * The server's callbacks are the same as for a socket. What one half of a pair writes, the other half reads in the
 * loop's next turn. Freeing one half does not notify the other, so the client flushes with BEV_FINISHED when it is
 * done, and the server gets BEV_EVENT_EOF. */

#include <event2/buffer.h>

#include "sample.h"

struct client {
	struct bufferevent *bev; /* NULL when it has finished */
	char **lines;
};

/* The server: answer each line in capitals. */

static void on_read(struct bufferevent *bev, void *arg)
{
	size_t size;
	char *line;

	(void)arg;
	while (
	    (line = evbuffer_readln(bufferevent_get_input(bev), &size, EVBUFFER_EOL_LF)) != NULL) {
		capitalize(line, size);
		line[size] = '\n'; /* where the NUL was */
		bufferevent_write(bev, line, size + 1);
		free(line);
	}
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)arg;
	if (what & BEV_EVENT_EOF) {
		printf("server: the client has finished\n");
		bufferevent_free(bev);
	}
}

/* The client: say each line, the next one when the last has been answered. */

static void say_next(struct client *client)
{
	if (*client->lines != NULL) {
		printf("client: %s\n", *client->lines);
		bufferevent_write(client->bev, *client->lines, strlen(*client->lines));
		bufferevent_write(client->bev, "\n", 1);
		++client->lines;
	} else {
		bufferevent_flush(client->bev, EV_WRITE, BEV_FINISHED);
		bufferevent_free(client->bev);
		client->bev = NULL;
	}
}

static void on_answer(struct bufferevent *bev, void *arg)
{
	struct client *client = arg;
	char *answer;

	while (client->bev != NULL &&
	    (answer = evbuffer_readln(bufferevent_get_input(bev), NULL, EVBUFFER_EOL_LF)) != NULL) {
		printf("server: %s\n", answer);
		free(answer);
		say_next(client);
	}
}

int main(int argc, char **argv)
{
	char *usual[] = {"hello, world", "nobody else is listening", "goodbye", NULL};
	struct event_base *base;
	struct bufferevent *pair[2];
	struct client client;

	start(argc, argv, 0, argc, "[line ...]");
	base = need(event_base_new(), "event_base_new");
	if (bufferevent_pair_new(base, BEV_OPT_DEFER_CALLBACKS, pair) < 0)
		die("bufferevent_pair_new failed");
	bufferevent_setcb(pair[1], on_read, NULL, on_event, NULL);
	bufferevent_enable(pair[1], EV_READ);
	client.bev = pair[0];
	client.lines = argc > 1 ? argv + 1 : usual;
	bufferevent_setcb(pair[0], on_answer, NULL, NULL, &client);
	bufferevent_enable(pair[0], EV_READ);
	say_next(&client);
	event_base_dispatch(base); /* until both are freed */
	event_base_free(base);
	printf("stopped\n");
	return 0;
}
