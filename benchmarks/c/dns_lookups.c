/* Lookups of IPv4 addresses, 64 at a time, by a client and a server of DNS in one process. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/dns.h>
#include <event2/dns_struct.h>

#include "contender.h"

#define AT_ONCE 64

static struct event_base *base;
static struct evdns_base *dns;
static long left, unanswered;

static void on_question(struct evdns_server_request *request, void *arg)
{
	uint32_t address = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < request->nquestions; i++)
		evdns_server_request_add_a_reply(
		    request, request->questions[i]->name, 1, &address, 60);
	evdns_server_request_respond(request, 0);
}

static void look_up(void);

static void on_answer(int result, char type, int count, int ttl, void *addresses, void *arg)
{
	if (result != DNS_ERR_NONE || count != 1)
		abort();
	unanswered--;
	if (left)
		look_up();
	else if (unanswered == 0)
		event_base_loopbreak(base);
}

static void look_up(void)
{
	left--;
	unanswered++;
	if (!evdns_base_resolve_ipv4(dns, "host.example", DNS_QUERY_NO_SEARCH, on_answer, NULL))
		abort();
}

int main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	long count;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&address, length) ||
	    getsockname(fd, (struct sockaddr *)&address, &length))
		abort();
	base = new_base();
	dns = evdns_base_new(base, 0);
	if (!dns || !evdns_add_server_port_with_base(base, fd, 0, on_question, NULL) ||
	    evdns_base_nameserver_sockaddr_add(dns, (struct sockaddr *)&address, length, 0))
		abort();

	while (next_count(&count)) {
		long long start = processor_time();
		left = count;
		for (int i = 0; i < AT_ONCE && left; i++)
			look_up();
		event_base_dispatch(base);
		answer(processor_time() - start, count);
	}
	return 0;
}
