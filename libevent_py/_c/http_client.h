/* Ours. */

extern "Python" void evpy_client_done(uintptr_t key, int answered, int error);
extern "Python" int evpy_client_header(uintptr_t key);
extern "Python" void evpy_client_chunk(uintptr_t key);
extern "Python" void evpy_client_error(uintptr_t key, int code);
extern "Python" void evpy_client_closed(uintptr_t key);
extern "Python" void evpy_client_settled(uintptr_t key);

struct evhttp_request *evpy_client_request_new(uintptr_t key, int header, int chunk);
struct evhttp_connection *evpy_client_connection_new(struct event_base *base,
    struct evdns_base *dns, struct bufferevent *bev, const char *host, int port, uintptr_t key);
void evpy_client_connection_free(struct evhttp_connection *evcon, int inherited);
void evpy_client_connection_set_timeout(struct evhttp_connection *evcon, double seconds);
int evpy_client_make_request(struct evhttp_connection *evcon, struct evhttp_request *req,
    int command, const char *uri);
void evpy_client_settle(struct evhttp_connection *evcon, uintptr_t key);
