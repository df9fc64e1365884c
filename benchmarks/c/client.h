/* What plays with the servers shares: connections to loopback, and the clocks of other processes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static inline void fail(const char *what)
{
	perror(what);
	exit(1);
}

static inline long long now(clockid_t clock)
{
	struct timespec time;
	if (clock_gettime(clock, &time))
		fail("clock_gettime");
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static inline int dial(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

/* What tells the processor time of another process. */
static inline clockid_t clock_of(pid_t process)
{
	clockid_t clock;
	if ((errno = clock_getcpuclockid(process, &clock)))
		fail("clock_getcpuclockid");
	return clock;
}
