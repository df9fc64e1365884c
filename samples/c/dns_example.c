/* Look names up in the loop, all at once; or with -T, be a name server that makes up its answers.
 *
 * The IPv4 addresses of each name are looked up; with -g all addresses, by getaddrinfo; with -x each argument is an
 * address, and its name is looked up. The name servers are those of /etc/resolv.conf, of the file after -c, or the
 * one after -s, such as 127.0.0.1:10053, where -T serves by default. */

#include <arpa/inet.h>
#include <getopt.h>

#include "names.h"

static const char usage[] = "[-x | -g] [-c resolv.conf | -s name server] name ...\n"
			    "-T [port]";

struct search {
	struct event_base *base;
	struct evdns_base *resolver;
	struct lookup *lookups;
	int count, left;
};

struct lookup {
	struct search *search;
	const char *name;
	struct evdns_getaddrinfo_request *request;
};

static void ended(struct lookup *lookup)
{
	lookup->request = NULL;
	if (--lookup->search->left == 0)
		event_base_loopexit(lookup->search->base, NULL);
}

static void on_resolved(int result, char type, int count, int ttl, void *addresses, void *arg)
{
	struct lookup *lookup = arg;
	char text[INET_ADDRSTRLEN];
	int i;

	(void)ttl;
	for (i = 0; i < count; ++i)
		printf("%s: %s\n", lookup->name,
		    type == DNS_PTR ? ((char **)addresses)[i]
				    : evutil_inet_ntop(AF_INET, (struct in_addr *)addresses + i,
					  text, sizeof text));
	if (count == 0)
		printf("%s: no answer (%s)\n", lookup->name, evdns_err_to_string(result));
	ended(lookup);
}

static void on_found(int result, struct evutil_addrinfo *found, void *arg)
{
	struct lookup *lookup = arg;
	struct evutil_addrinfo *one;
	const char *name = lookup->name;
	char host[NI_MAXHOST];

	for (one = found; one != NULL; one = one->ai_next) {
		if (one->ai_canonname != NULL)
			name = one->ai_canonname;
		getnameinfo(
		    one->ai_addr, one->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST);
		printf("%s: %s\n", name, host);
	}
	if (result != 0 && result != EVUTIL_EAI_CANCEL)
		printf("%s: no answer (%s)\n", lookup->name, evutil_gai_strerror(result));
	if (found != NULL)
		evutil_freeaddrinfo(found);
	ended(lookup);
}

static void look_up_address(struct lookup *lookup)
{
	struct evdns_base *resolver = lookup->search->resolver;
	struct in6_addr address;
	void *made = NULL;

	if (evutil_inet_pton(AF_INET, lookup->name, &address) == 1)
		made = evdns_base_resolve_reverse(
		    resolver, (struct in_addr *)&address, 0, on_resolved, lookup);
	else if (evutil_inet_pton(AF_INET6, lookup->name, &address) == 1)
		made = evdns_base_resolve_reverse_ipv6(resolver, &address, 0, on_resolved, lookup);
	need(made, lookup->name);
}

static void look_up_everything(struct lookup *lookup)
{
	struct evutil_addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_flags = EVUTIL_AI_CANONNAME};

	lookup->request = evdns_getaddrinfo(
	    lookup->search->resolver, lookup->name, NULL, &hints, on_found, lookup);
}

static void look_up_name(struct lookup *lookup)
{
	need(
	    evdns_base_resolve_ipv4(lookup->search->resolver, lookup->name, 0, on_resolved, lookup),
	    lookup->name);
}

/* End getaddrinfo's lookups that nobody waits for any more; libevent ends the others with the resolver. */
static void cancel(struct search *search)
{
	int i;

	for (i = 0; i < search->count; ++i)
		if (search->lookups[i].request != NULL)
			evdns_getaddrinfo_cancel(search->lookups[i].request);
	if (search->left > 0)
		event_base_loop(search->base, EVLOOP_NONBLOCK);
}

static void answer(struct evdns_server_request *request, void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < request->nquestions; ++i) {
		const struct evdns_server_question *question = request->questions[i];
		struct in_addr address = {htonl(0xc0a80b0b)}; /* 192.168.11.11 */

		if (question->type == EVDNS_TYPE_A)
			evdns_server_request_add_a_reply(request, question->name, 1, &address, 10);
		else if (question->type == EVDNS_TYPE_PTR)
			evdns_server_request_add_ptr_reply(
			    request, NULL, question->name, "foo.bar.example.com", 10);
		printf("%s, type %d\n", question->name, question->type);
	}
	evdns_server_request_respond(request, DNS_ERR_NONE);
}

static void read_servers(struct evdns_base *resolver, const char *path)
{
	int error = evdns_base_resolv_conf_parse(resolver, DNS_OPTIONS_ALL, path);

	if (error != 0)
		die("%s %s", path, error == 6 ? "names no name server" : "can't be read");
}

struct options {
	int reverse, all, serve;
	const char *conf, *server;
};

static void parse(int argc, char **argv, struct options *options)
{
	int option;

	while ((option = getopt(argc, argv, "xgTc:s:")) >= 0) {
		if (option == 'x')
			options->reverse = 1;
		else if (option == 'g')
			options->all = 1;
		else if (option == 'T')
			options->serve = 1;
		else if (option == 'c')
			options->conf = optarg;
		else if (option == 's')
			options->server = optarg;
		else
			exit(1);
	}
}

static void look_up(struct search *search, const struct options *options, char **names, int count)
{
	struct lookup *lookups = need(calloc((size_t)count + 1, sizeof *lookups), "calloc");
	int i;

	search->lookups = lookups;
	search->count = search->left = count;
	for (i = 0; i < count; ++i) {
		lookups[i].search = search;
		lookups[i].name = names[i];
		if (options->all)
			look_up_everything(&lookups[i]);
		else if (options->reverse)
			look_up_address(&lookups[i]);
		else
			look_up_name(&lookups[i]);
	}
}

/* What libevent says of name servers, the answers say, too. */
static void on_log(int is_warning, const char *message)
{
	(void)is_warning, (void)message;
}

int main(int argc, char **argv)
{
	struct options options = {.conf = "/etc/resolv.conf"};
	struct search search = {.left = 0};
	struct evdns_server_port *server = NULL;
	struct event *interrupt;

	start(argc, argv, 0, argc, usage);
	parse(argc, argv, &options);
	evdns_set_log_fn(on_log);
	search.base = need(event_base_new(), "event_base_new");
	search.resolver =
	    need(evdns_base_new(search.base, EVDNS_BASE_DISABLE_WHEN_INACTIVE), "evdns_base_new");
	interrupt = stop_on_interrupt(search.base);
	if (options.serve)
		server = serve_names(search.base,
		    bind_udp("127.0.0.1", optind < argc ? argv[optind] : "10053"), answer, NULL);
	else if (options.server == NULL)
		read_servers(search.resolver, options.conf);
	else if (evdns_base_nameserver_ip_add(search.resolver, options.server) != 0)
		die("%s is no name server's address", options.server);
	if (!options.serve)
		look_up(&search, &options, argv + optind, argc - optind);
	event_base_dispatch(search.base);
	cancel(&search);
	evdns_base_free(search.resolver, 0);
	event_free(interrupt);
	if (server != NULL)
		evdns_close_server_port(server);
	event_base_free(search.base);
	free(search.lookups);
	return 0;
}
