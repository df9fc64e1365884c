/* A TCP server and its client that compress what they send, by filters that use zlib.
 *
 * Above the filters both talk as if nothing were compressed: the server answers in capitals. A filter takes bytes from
 * one buffer and adds the compressed ones to another. The end of the stream passes through, too, as the end of the
 * compressed data. So does back-pressure: a watermark below the filter makes it wait for slow clients, and the server
 * reads on when all answers have passed. */

#include <unistd.h>
#include <zlib.h>

#include <event2/buffer.h>

#include "sample.h"

#define OPTIONS (BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS)

struct server {
	struct event_base *base;
	struct connections streams;
	const char *failure; /* of the client that sends */
};

/* What a server or a client has with a connection. */
struct stream {
	struct connection connection; /* with the filter */
	struct server *owner;
	z_stream packer, unpacker;
	int packed_all, unpacked_all;
	const char *failure; /* of zlib, which libevent itself doesn't tell */
};

static void stream_free(struct stream *stream)
{
	deflateEnd(&stream->packer);
	inflateEnd(&stream->unpacker);
	connection_free(&stream->connection);
}

/* Take up to `most` bytes of `source`, or all if that is negative, and add what zlib makes of them to `target`. */
static int work(int (*step)(z_stream *, int), z_stream *zlib, struct evbuffer *source,
    struct evbuffer *target, ev_ssize_t most, int end)
{
	size_t size, left = evbuffer_get_length(source);
	Bytef taken[16384], made[16384];
	int result;

	if (most >= 0 && left > (size_t)most)
		left = most;
	do {
		size = left < sizeof taken ? left : sizeof taken;
		evbuffer_remove(source, taken, size);
		left -= size;
		zlib->next_in = taken;
		zlib->avail_in = size;
		do {
			zlib->next_out = made;
			zlib->avail_out = sizeof made;
			result = step(zlib, left > 0 ? Z_NO_FLUSH : end);
			evbuffer_add(target, made, sizeof made - zlib->avail_out);
		} while (result == Z_OK && zlib->avail_out == 0);
		if (result == Z_BUF_ERROR) /* there was nothing to do */
			result = Z_OK;
	} while (left > 0 && result == Z_OK);
	return result;
}

static enum bufferevent_filter_result unpack(struct evbuffer *source, struct evbuffer *target,
    ev_ssize_t limit, enum bufferevent_flush_mode mode, void *arg)
{
	struct stream *stream = arg;
	int result = work(inflate, &stream->unpacker, source, target, -1, Z_SYNC_FLUSH);

	(void)limit, (void)mode;
	if (result < 0) {
		stream->failure = stream->unpacker.msg;
		bufferevent_trigger_event(
		    stream->connection.bev, BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
		return BEV_ERROR;
	}
	stream->unpacked_all |= result == Z_STREAM_END;
	return BEV_OK;
}

static enum bufferevent_filter_result pack(struct evbuffer *source, struct evbuffer *target,
    ev_ssize_t limit, enum bufferevent_flush_mode mode, void *arg)
{
	struct stream *stream = arg;
	int end = mode == BEV_FINISHED ? Z_FINISH : Z_SYNC_FLUSH;

	if (!stream->packed_all &&
	    work(deflate, &stream->packer, source, target, limit, end) == Z_STREAM_END)
		stream->packed_all = 1;
	return BEV_OK;
}

/* Put filters on top of a connection to `fd`, which may be -1. */
static struct stream *stream_new(struct server *owner, evutil_socket_t fd,
    bufferevent_data_cb on_read, bufferevent_data_cb on_write, bufferevent_event_cb on_event)
{
	struct stream *stream = connection_new(&owner->streams, sizeof *stream, owner->base, fd, 0);
	struct bufferevent *below, *bev;

	if (stream == NULL)
		return NULL;
	below = stream->connection.bev;
	stream->owner = owner;
	if (deflateInit(&stream->packer, Z_DEFAULT_COMPRESSION) != Z_OK ||
	    inflateInit(&stream->unpacker) != Z_OK)
		die("no memory for zlib");
	bufferevent_setwatermark(below, EV_WRITE, 0, 65536);
	bev = need(bufferevent_filter_new(below, unpack, pack, OPTIONS, NULL, stream),
	    "bufferevent_filter_new");
	stream->connection.bev = bev;
	bufferevent_setcb(bev, on_read, on_write, on_event, stream);
	bufferevent_enable(bev, EV_READ);
	return stream;
}

/* The server. */

static void on_read(struct bufferevent *bev, void *arg)
{
	struct stream *stream = arg;
	char data[16384];
	size_t size;

	while ((size = bufferevent_read(bev, data, sizeof data)) > 0) {
		capitalize(data, size);
		bufferevent_write(bev, data, size);
	}
	if (stream->unpacked_all)
		bufferevent_flush(bev, EV_WRITE, BEV_FINISHED);
	else if (evbuffer_get_length(bufferevent_get_output(bev)) > 0)
		bufferevent_disable(bev, EV_READ);
}

static void on_write(struct bufferevent *bev, void *stream)
{
	(void)stream;
	bufferevent_enable(bev, EV_READ);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct stream *stream = arg;

	(void)bev, (void)what;
	if (stream->failure != NULL)
		printf("%s\n", stream->failure);
	stream_free(stream);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *server)
{
	(void)listener, (void)address, (void)length;
	stream_new(server, fd, on_read, on_write, on_event);
}

/* The client. */

static void on_answer(struct bufferevent *bev, void *arg)
{
	struct stream *stream = arg;
	char data[16384];
	size_t size;

	while ((size = bufferevent_read(bev, data, sizeof data)) > 0)
		fwrite(data, 1, size, stdout);
	if (stream->unpacked_all)
		event_base_loopexit(stream->owner->base, NULL);
}

static void on_client_event(struct bufferevent *bev, short what, void *arg)
{
	struct stream *stream = arg;
	const char *text = what & BEV_EVENT_EOF ? "the server has ended" : strerror(errno);

	(void)bev;
	if (what == BEV_EVENT_CONNECTED)
		return;
	stream->owner->failure = stream->failure != NULL ? stream->failure : text;
	event_base_loopexit(stream->owner->base, NULL);
}

static void send_stdin(struct server *client, const char *host, const char *port)
{
	struct evutil_addrinfo *address = find_address(host, port);
	struct stream *stream =
	    need(stream_new(client, -1, on_answer, on_write, on_client_event), "stream_new");
	struct bufferevent *bev = stream->connection.bev;
	struct evbuffer *all = need(evbuffer_new(), "evbuffer_new");

	if (bufferevent_socket_connect(
		bufferevent_get_underlying(bev), address->ai_addr, address->ai_addrlen) < 0)
		die("%s:%s: %s", host, port, strerror(errno));
	evutil_freeaddrinfo(address);
	while (evbuffer_read(all, STDIN_FILENO, 65536) > 0)
		continue;
	bufferevent_write_buffer(bev, all);
	evbuffer_free(all);
	bufferevent_flush(bev, EV_WRITE, BEV_FINISHED);
}

int main(int argc, char **argv)
{
	const char *host = argument(argv, 1, "127.0.0.1"), *port = argument(argv, 2, "8888");
	struct server server = {.streams = LIST_HEAD_INITIALIZER(server.streams)};
	struct evconnlistener *listener = NULL;
	struct event *interrupt;

	start(argc, argv, 0, 3, "[host [port]]\n127.0.0.1 8888 send < file");
	server.base = need(event_base_new(), "event_base_new");
	if (argc > 3) {
		send_stdin(&server, host, port);
	} else {
		listener = listen_on(server.base, host, port, on_accept, &server);
		print_serving(evconnlistener_get_fd(listener));
	}
	interrupt = stop_on_interrupt(server.base);
	event_base_dispatch(server.base);
	event_free(interrupt);
	if (listener != NULL)
		evconnlistener_free(listener);
	while (!LIST_EMPTY(&server.streams))
		stream_free((struct stream *)LIST_FIRST(&server.streams));
	event_base_free(server.base);
	if (server.failure != NULL)
		die("the answer is not complete: %s", server.failure);
	return 0;
}
