/* `stream PORT PID sink|relay|source BYTES`: have a server take BYTES, send them back, or send them.
 *
 * Print what processor time the server PID takes meanwhile, in nanoseconds, and the bytes. A sink
 * closes the connection to say that it has taken all. Like load, this never sleeps.
 */
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"

#define PIECE 65536

/* The bytes 0 to 255, again and again: with some to spare, a piece can begin with any of them. */
static char content[PIECE + 256];

static long long bytes, sent, received;

static ssize_t some(ssize_t n, const char *what)
{
	if (n < 0 && errno != EAGAIN)
		fail(what);
	return n;
}

/* Called once for each edge: the next one comes with the next bytes, or with room for more. */
static int play(int fd, int sends, int receives)
{
	static char data[PIECE];
	ssize_t n;

	for (;;) {
		int stuck = 1;
		if (sends && sent < bytes) {
			size_t most = bytes - sent < PIECE ? bytes - sent : PIECE;
			n = some(send(fd, content + sent % 256, most, MSG_NOSIGNAL | MSG_DONTWAIT),
			    "send");
			if (n > 0) {
				sent += n;
				stuck = 0;
			}
			if (sent == bytes && !receives)
				shutdown(fd, SHUT_WR);
		}
		n = some(recv(fd, data, sizeof data, MSG_DONTWAIT), "recv");
		if (n == 0)
			return 0;
		if (n > 0) {
			if (!receives || memcmp(data, content + received % 256, n)) {
				fprintf(stderr, "stream: what comes is not what was to come\n");
				exit(1);
			}
			received += n;
			stuck = 0;
		}
		if (receives && received >= bytes)
			return 0;
		if (stuck)
			return 1;
	}
}

int main(int argc, char **argv)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};

	if (argc != 5)
		return 2;
	clockid_t server_clock = clock_of(atoi(argv[2]));
	int sends = strcmp(argv[3], "source") != 0, receives = strcmp(argv[3], "sink") != 0;
	bytes = atoll(argv[4]);
	for (size_t i = 0; i < sizeof content; i++)
		content[i] = (char)i;

	long long start = now(server_clock);
	int epoll = epoll_create1(0), fd = dial(atoi(argv[1]));
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
	do {
		while (epoll_wait(epoll, &event, 1, 0) == 0)
			;
	} while (play(fd, sends, receives));
	close(fd);
	usleep(
	    10000); /* the clock of a process that runs lags behind, that of one that waits doesn't */
	long long taken = now(server_clock) - start, moved = receives ? received : sent;
	if (moved < bytes) {
		fprintf(
		    stderr, "stream: the server closed the connection after %lld bytes\n", moved);
		return 1;
	}
	printf("%lld %lld\n", taken, moved);
	return 0;
}
