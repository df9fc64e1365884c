/* A persistent event that reads a named pipe, which is made at the start and removed at the end.
 *
 * The pipe is opened for writing, too: so it isn't at its end when a writer closes it, and the next writer can open
 * it. */

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sample.h"

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	char data[4096];
	ssize_t size = read(fd, data, sizeof data);

	(void)what, (void)arg;
	if (size < 0)
		return;
	printf("read: ");
	fwrite(data, 1, size, stdout);
	fflush(stdout);
}

static void on_interrupt(evutil_socket_t signum, short what, void *base)
{
	(void)signum, (void)what;
	event_base_loopbreak(base);
}

int main(int argc, char **argv)
{
	struct event_base *base;
	struct event *readable, *interrupt;
	const char *path;
	int fifo;

	start(argc, argv, 0, 1, "[path]");
	path = argument(argv, 1, "event.fifo");
	if (mkfifo(path, 0600) < 0) /* such as: a file of this name is there */
		die("%s: %s", path, strerror(errno));
	fifo = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fifo < 0)
		die("%s: %s", path, strerror(errno));
	base = need(event_base_new(), "event_base_new");
	readable = new_event(base, fifo, EV_READ | EV_PERSIST, on_readable, NULL);
	event_add(readable, NULL);
	interrupt = on_signal(base, SIGINT, on_interrupt, base);
	printf("reading %s, Ctrl-C to stop\n", path);
	event_base_dispatch(base);
	event_free(interrupt);
	event_free(readable);
	event_base_free(base);
	close(fifo);
	unlink(path);
	return 0;
}
