/* `http_peer upload|download BYTES`: take a body of BYTES from a client of HTTP, or send one in chunks.
 *
 * Serve one request, and say first at which port. Like load, this never sleeps once connected.
 */
#include <string.h>
#include <unistd.h>

#include "client.h"

#define PIECE 65536

static int fd;
static char data[PIECE + 16];

static size_t take(char *into, size_t most)
{
	for (;;) {
		ssize_t n = recv(fd, into, most, MSG_DONTWAIT);
		if (n == 0) {
			fprintf(stderr, "http_peer: the client closed the connection too early\n");
			exit(1);
		}
		if (n > 0)
			return n;
		if (errno != EAGAIN)
			fail("recv");
	}
}

static void give(const char *from, size_t left)
{
	while (left) {
		ssize_t n = send(fd, from, left, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			fail("send");
		if (n > 0) {
			from += n;
			left -= n;
		}
	}
}

static void say(const char *text)
{
	give(text, strlen(text));
}

/* Return how much of the body has come with the head. */
static long long take_head(void)
{
	static char head[PIECE];
	size_t length = 0;
	char *end;

	do {
		if (length == sizeof head - 1)
			exit(1);
		length += take(head + length, sizeof head - 1 - length);
		head[length] = 0;
	} while ((end = strstr(head, "\r\n\r\n")) == NULL);
	return head + length - (end + 4);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 3)
		return 2;
	long long bytes = atoll(argv[2]), taken;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &length))
		fail("listen");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);

	if ((fd = accept(listener, NULL, NULL)) < 0)
		fail("accept");
	taken = take_head();
	if (strcmp(argv[1], "upload") == 0) {
		while (taken < bytes)
			taken += take(data, PIECE);
		say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
		return taken != bytes;
	}
	say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (long long left = bytes; left;) {
		size_t size = left < PIECE ? left : PIECE;
		int head = sprintf(data, "%zx\r\n", size);
		memcpy(data + head + size, "\r\n", 2);
		give(data, head + size + 2);
		left -= size;
	}
	say("0\r\n\r\n");
	return 0;
}
