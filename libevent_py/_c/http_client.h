/* Ours. */

struct evpy_client;

#define EVPY_NO_BODY ...

extern "Python" int evpy_client_done(uintptr_t key, int answered, int error);
extern "Python" int evpy_client_header(uintptr_t key);
extern "Python" int evpy_client_informed(uintptr_t key, int code);
extern "Python" int evpy_client_refused(uintptr_t key, const char *reason);
extern "Python" int evpy_client_chunk(uintptr_t key);
extern "Python" int evpy_client_error(uintptr_t key, int code);
extern "Python" int evpy_client_closed(uintptr_t key);
extern "Python" int evpy_client_settled(uintptr_t key);
extern "Python" int evpy_client_ready(uintptr_t key);

struct evhttp_request *evpy_client_request_new(uintptr_t key, int header, int chunk);
int evpy_client_frame(struct evhttp_request *req, int command);
void evpy_client_freeze(struct evhttp_request *req, int frozen);
struct evhttp_connection *evpy_client_connection_new(struct event_base *base,
    struct evdns_base *dns, struct bufferevent *bev, const char *host, int port, uintptr_t key,
    struct evpy_client **ours);
void evpy_client_connection_free(struct evhttp_connection *evcon, struct evpy_client *client,
    int process);
void evpy_client_connection_set_timeout(struct evhttp_connection *evcon, double seconds);
int evpy_client_make_request(struct evhttp_connection *evcon, struct evpy_client *client,
    struct evhttp_request *req, int command, const char *uri, int body, int open);
void evpy_client_forget(struct evpy_client *client, struct evhttp_request *req);
int evpy_client_is_spent(struct evhttp_connection *evcon, const struct evpy_client *client,
    struct evhttp_request *req);
void evpy_client_reset(struct bufferevent *bev);
int evpy_client_send(struct evpy_client *client, struct evhttp_request *req, int body,
    const void *data, size_t size);
int evpy_client_send_buffer(struct evpy_client *client, struct evhttp_request *req, int body,
    struct evbuffer *data);
int evpy_client_send_end(struct evpy_client *client, struct evhttp_request *req, int body);
int evpy_client_answered(struct evpy_client *client, struct evhttp_request *req);
void evpy_client_settle(struct evhttp_connection *evcon, uintptr_t key);
int evpy_client_connection_set_local_address(
    struct evhttp_connection *evcon, const char *address);
