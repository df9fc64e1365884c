/* `load PORT PID CONNECTIONS SIZE WARM_MS MS`: play ping-pong with an echo server on loopback.
 *
 * Each connection sends a message and waits for all of it to come back before it sends the next.
 * After WARM_MS, for MS, count what comes back and what processor time the server PID takes
 * meanwhile, and print both: nanoseconds and bytes. It never sleeps: the server would pay for waking
 * it up, which in a virtual machine is dear and never twice the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "client.h"

struct connection {
	int fd;
	size_t sent, received;
};

static char *message;
static size_t size;
static long long echoed;

static void send_message(struct connection *connection)
{
	while (connection->sent < size) {
		ssize_t n = send(connection->fd, message + connection->sent,
		    size - connection->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			fail("send");
		connection->sent += n;
	}
}

/* Called once for each edge: the next one comes with the next bytes, or with room for more. */
static void play(struct connection *connection)
{
	static char data[262144];

	send_message(connection);
	ssize_t n = recv(connection->fd, data, sizeof data, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		fail("recv");
	if (n == 0 || (size_t)n > connection->sent - connection->received ||
	    memcmp(data, message + connection->received, n)) {
		fprintf(stderr, "load: what came back is not what was sent\n");
		exit(1);
	}
	echoed += n;
	connection->received += n;
	if (connection->received == size) {
		connection->sent = connection->received = 0;
		send_message(connection);
	}
}

/* Wait for a message to come back: by then the server has accepted all that were before. */
static void meet(struct connection *connection)
{
	char data[65536];
	ssize_t n;

	if (send(connection->fd, message, size, MSG_NOSIGNAL) != (ssize_t)size)
		fail("send");
	for (size_t left = size; left > 0; left -= n) {
		n = recv(connection->fd, data, left < sizeof data ? left : sizeof data, 0);
		if (n <= 0)
			fail("recv");
	}
}

static void play_until(int epoll, long long deadline)
{
	struct epoll_event events[64];

	while (now(CLOCK_MONOTONIC) < deadline) {
		int n = epoll_wait(epoll, events, 64, 0);
		for (int i = 0; i < n; i++)
			play(events[i].data.ptr);
	}
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	int port = atoi(argv[1]), connections = atoi(argv[3]);
	size = atol(argv[4]);
	long long warm = atol(argv[5]) * 1000000LL, length = atol(argv[6]) * 1000000LL;

	clockid_t server_clock = clock_of(atoi(argv[2]));

	message = malloc(size);
	for (size_t i = 0; i < size; i++)
		message[i] = (char)(i * 31 + i / 251);

	int epoll = epoll_create1(0);
	for (int i = 0; i < connections; i++) {
		struct connection *connection = calloc(1, sizeof *connection);
		struct epoll_event event = {
		    .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
		connection->fd = dial(port);
		/* What a listener has no room for is tried again after a second. */
		if (i % 64 == 63)
			meet(connection);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event))
			fail("epoll_ctl");
	}

	play_until(epoll, now(CLOCK_MONOTONIC) + warm);
	echoed = 0;
	long long start = now(server_clock);
	play_until(epoll, now(CLOCK_MONOTONIC) + length);
	printf("%lld %lld\n", now(server_clock) - start, echoed);
	return 0;
}
