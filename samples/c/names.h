/* What the samples share that are name servers. */

#ifndef SAMPLE_NAMES_H
#define SAMPLE_NAMES_H

#include <linux/filter.h>
#include <unistd.h>

#include <event2/dns.h>
#include <event2/dns_struct.h>

#include "sample.h"

/* Have the kernel drop datagrams shorter than a DNS header, by which anybody could crash libevent's server. */
static inline int drop_short(int fd)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
	    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 8 + 12, 0, 1), /* with UDP's own header */
	    BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

/* Return a UDP socket at a numeric host and a port. */
static inline int bind_udp(const char *host, const char *port)
{
	struct evutil_addrinfo *found = find_address(host, port);
	int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || drop_short(fd) < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0)
		die("%s:%s: %s", host, port, strerror(errno));
	evutil_freeaddrinfo(found);
	evutil_make_socket_nonblocking(fd);
	return fd;
}

/* Answer queries to a UDP socket, which the server closes, and say where it is. */
static inline struct evdns_server_port *serve_names(
    struct event_base *base, int fd, evdns_request_callback_fn_type answer, void *arg)
{
	struct evdns_server_port *server =
	    need(evdns_add_server_port_with_base(base, fd, 0, answer, arg), "a name server");

	print_serving(fd);
	return server;
}

#endif
