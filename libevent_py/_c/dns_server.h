/* Ours. */

extern "Python" void evpy_dns_query(uintptr_t key, struct evdns_server_request *request,
    int count, const char *name, int type, int dns_class, int *taken);

struct evpy_dns_server {
	struct evdns_server_port *port;
	...;
};

struct evpy_dns_server *evpy_dns_server_new(
    struct event_base *base, evutil_socket_t fd, uintptr_t key);
void evpy_dns_server_free(struct evpy_dns_server *server, struct evdns_server_port *port);
void evpy_dns_drop(struct evpy_dns_server *server, struct evdns_server_request *request);
int evpy_dns_respond(
    struct evpy_dns_server *server, struct evdns_server_request *request, int error);
