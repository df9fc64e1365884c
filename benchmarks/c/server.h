/* What the C servers share: a listener on an ephemeral loopback port that says where it is. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/listener.h>

#include "contender.h"

static inline void listen_on_loopback(struct event_base *base, evconnlistener_cb on_accept)
{
	struct sockaddr_in address;
	socklen_t length = sizeof address;
	struct evconnlistener *listener;

	signal(SIGPIPE, SIG_IGN);
	memset(&address, 0, sizeof address);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = evconnlistener_new_bind(base, on_accept, base, LEV_OPT_CLOSE_ON_FREE, 1024,
	    (struct sockaddr *)&address, length);
	if (listener == NULL)
		abort();
	getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &length);
	say_port(ntohs(address.sin_port));
}

static inline void send_at_once(evutil_socket_t fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
