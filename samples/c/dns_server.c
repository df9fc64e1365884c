/* A small name server: it knows the names in its arguments, and says that no others exist.
 *
 * Each name is given as NAME=ADDRESS, IPv4 or IPv6, or as ALIAS=NAME; or by a file such as /etc/hosts. It looks
 * addresses up by names, and names by addresses. Its answers are authoritative; it refuses questions that aren't
 * about addresses and names. */

#include <arpa/inet.h>

#include "names.h"

#define ANY 0

/* What a name has of one type: addresses, or pointers to names. */
struct entry {
	SLIST_ENTRY(entry) others;
	char *name;
	int type, count;
	void *values;
	unsigned seen;
};

struct zone {
	SLIST_HEAD(, entry) entries;
	unsigned asked;
};

static struct entry *find(struct zone *zone, const char *name, int type)
{
	struct entry *entry;

	SLIST_FOREACH(entry, &zone->entries, others)
	if ((type == ANY || entry->type == type) && evutil_ascii_strcasecmp(entry->name, name) == 0)
		return entry;
	return NULL;
}

static void add(struct zone *zone, const char *name, int type, const void *value, size_t size)
{
	struct entry *entry = find(zone, name, type);

	if (entry == NULL) {
		entry = need(calloc(1, sizeof *entry), "calloc");
		entry->name = need(strdup(name), "strdup");
		entry->type = type;
		SLIST_INSERT_HEAD(&zone->entries, entry, others);
	}
	entry->values = need(realloc(entry->values, (entry->count + 1) * size), "realloc");
	memcpy((char *)entry->values + entry->count++ * size, value, size);
}

static void add_name(struct zone *zone, const char *name, int type, const char *target)
{
	char *copy = need(strdup(target), "strdup");

	add(zone, name, type, &copy, sizeof copy);
}

static void add_ipv4(struct zone *zone, const char *name, const unsigned char address[4])
{
	char reverse[80];

	snprintf(reverse, sizeof reverse, "%d.%d.%d.%d.in-addr.arpa", address[3], address[2],
	    address[1], address[0]);
	add(zone, name, EVDNS_TYPE_A, address, 4);
	add_name(zone, reverse, EVDNS_TYPE_PTR, name);
}

static void add_ipv6(struct zone *zone, const char *name, const unsigned char address[16])
{
	char reverse[80];
	int i;

	for (i = 0; i < 16; ++i)
		sprintf(reverse + 4 * i, "%x.%x.", address[15 - i] & 15, address[15 - i] >> 4);
	strcpy(reverse + 64, "ip6.arpa");
	add(zone, name, EVDNS_TYPE_AAAA, address, 16);
	add_name(zone, reverse, EVDNS_TYPE_PTR, name);
}

/* Add an address of a name, or another name that it stands for. */
static void add_pair(struct zone *zone, const char *name, const char *value)
{
	unsigned char address[16];

	if (evutil_inet_pton(AF_INET, value, address) == 1)
		add_ipv4(zone, name, address);
	else if (evutil_inet_pton(AF_INET6, value, address) == 1)
		add_ipv6(zone, name, address);
	else
		add_name(zone, name, EVDNS_TYPE_CNAME, value);
}

static void read_hosts(struct zone *zone, const char *path)
{
	FILE *file = need(fopen(path, "r"), path);
	char *line = NULL, *rest, *address, *name;
	size_t size = 0;

	while (getline(&line, &size, file) >= 0) {
		line[strcspn(line, "#")] = '\0';
		address = strtok_r(line, " \t\r\n", &rest);
		while (address != NULL && (name = strtok_r(NULL, " \t\r\n", &rest)) != NULL)
			add_pair(zone, name, address);
	}
	free(line);
	fclose(file);
}

/* Read NAME=ADDRESS, ALIAS=NAME, or a file. */
static void read_told(struct zone *zone, const char *told)
{
	const char *equals = strchr(told, '=');
	char *name;

	if (equals == NULL) {
		read_hosts(zone, told);
		return;
	}
	name = need(strndup(told, (size_t)(equals - told)), "strndup");
	add_pair(zone, name, equals + 1);
	free(name);
}

static void zone_clear(struct zone *zone)
{
	struct entry *entry;
	int i;

	while ((entry = SLIST_FIRST(&zone->entries)) != NULL) {
		SLIST_REMOVE_HEAD(&zone->entries, others);
		for (i = 0; i < entry->count; ++i)
			if (entry->type == EVDNS_TYPE_PTR || entry->type == EVDNS_TYPE_CNAME)
				free(((char **)entry->values)[i]);
		free(entry->values);
		free(entry->name);
		free(entry);
	}
}

/* Each address is an answer of its own: libevent would put several of them into one. */
static void add_found(
    struct evdns_server_request *request, const char *name, const struct entry *found)
{
	int i;

	for (i = 0; i < found->count; ++i)
		if (found->type == EVDNS_TYPE_A)
			evdns_server_request_add_a_reply(
			    request, name, 1, (char *)found->values + 4 * i, 60);
		else if (found->type == EVDNS_TYPE_AAAA)
			evdns_server_request_add_aaaa_reply(
			    request, name, 1, (char *)found->values + 16 * i, 60);
		else if (found->type == EVDNS_TYPE_PTR)
			evdns_server_request_add_ptr_reply(
			    request, NULL, name, ((char **)found->values)[i], 60);
		else
			evdns_server_request_add_cname_reply(
			    request, name, ((char **)found->values)[i], 60);
}

/* Add what is asked for, and return how it went. */
static int answer_of(struct zone *zone, struct evdns_server_request *request)
{
	const struct evdns_server_question *question = request->questions[0];
	const char *name = question->name, *target;
	int type = question->type;
	struct entry *alias, *found;

	if (request->nquestions != 1 || question->dns_question_class != EVDNS_CLASS_INET ||
	    (type != EVDNS_TYPE_A && type != EVDNS_TYPE_AAAA && type != EVDNS_TYPE_CNAME &&
		type != EVDNS_TYPE_PTR))
		return DNS_ERR_REFUSED;
	if (find(zone, name, ANY) == NULL)
		return DNS_ERR_NOTEXIST;
	evdns_server_request_set_flags(request, request->flags | EVDNS_FLAGS_AA);
	++zone->asked;
	while (type != EVDNS_TYPE_CNAME && (alias = find(zone, name, EVDNS_TYPE_CNAME)) != NULL &&
	    alias->seen != zone->asked) {
		alias->seen = zone->asked;
		target = ((char **)alias->values)[0];
		evdns_server_request_add_cname_reply(request, name, target, 60);
		name = target;
	}
	if ((found = find(zone, name, type)) != NULL)
		add_found(request, name, found);
	return DNS_ERR_NONE;
}

static void answer(struct evdns_server_request *request, void *zone)
{
	evdns_server_request_respond(request, answer_of(zone, request));
}

int main(int argc, char **argv)
{
	struct zone zone = {.asked = 0};
	struct event_base *base;
	struct evdns_server_port *server;
	struct event *interrupt;
	int i;

	start(argc, argv, 0, argc, "[host [port [NAME=ADDRESS | ALIAS=NAME | hosts file] ...]]");
	for (i = 3; i < argc; ++i)
		read_told(&zone, argv[i]);
	if (argc <= 3)
		read_hosts(&zone, "/etc/hosts");
	base = need(event_base_new(), "event_base_new");
	interrupt = stop_on_interrupt(base);
	server = serve_names(base,
	    bind_udp(argument(argv, 1, "127.0.0.1"), argument(argv, 2, "5353")), answer, &zone);
	event_base_dispatch(base);
	evdns_close_server_port(server);
	event_free(interrupt);
	event_base_free(base);
	zone_clear(&zone);
	return 0;
}
