/* Ours. */

extern "Python" int evpy_dns_query(uintptr_t key, struct evdns_server_request *request);

struct evdns_server_port *evpy_dns_server_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t key);
int evpy_dns_server_calling(void);
int evpy_dns_respond(struct evdns_server_request *request, int error);
