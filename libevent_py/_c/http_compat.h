struct evhttp *evhttp_start(const char *address, ev_uint16_t port);
struct evhttp_connection *evhttp_connection_new(
	const char *address, ev_uint16_t port);
void evhttp_connection_set_base(struct evhttp_connection *evcon,
    struct event_base *base);

/* Ours. */
