/* Ours. */

extern "Python" void evpy_http_request(
    uintptr_t key, struct evhttp_request *request, int *begun);
extern "Python" int evpy_http_allowed(uintptr_t key, int method);
extern "Python" int evpy_http_completed(uintptr_t key, struct evhttp_request *request);
extern "Python" int evpy_http_written(uintptr_t key);
extern "Python" int evpy_http_closed(uintptr_t key);
extern "Python" int evpy_http_bev(uintptr_t key, struct bufferevent **place);
extern "Python" int evpy_http_accept_error(struct evconnlistener *listener, int error);

int evpy_http_bind(
    struct evhttp *http, struct evconnlistener *listener, struct evhttp_bound_socket **bound);
int evpy_http_set_cb(struct evhttp *http, const char *path, uintptr_t key);
void evpy_http_set_gencb(struct evhttp *http, int handled, uintptr_t key);
void evpy_http_hand_over(struct bufferevent *bev, size_t most, struct bufferevent **place);
void evpy_http_make_bev(struct event_base *base, size_t most, struct bufferevent **place);
void evpy_http_set_bevcb(struct evhttp *http, int made, uintptr_t key, size_t most);
void evpy_http_set_timeout(struct evhttp *http, double seconds);

#define EVPY_ORPHAN ...
#define EVPY_TAKEN ...
int evpy_http_reply(struct evhttp_request *req, int code, const char *reason, const void *body,
    size_t size);
int evpy_http_reply_with(struct evhttp_request *req, int code, const char *reason,
    const void *body, size_t size, const char *headers, size_t headers_size, size_t pairs);
int evpy_http_reply_buffer(struct evhttp_request *req, int code, const char *reason,
    struct evbuffer *body, const char *headers, size_t headers_size, size_t pairs);
int evpy_http_reply_error(struct evhttp_request *req, int code, const char *reason);
int evpy_http_reply_start(struct evhttp_request *req, int code, const char *reason);
int evpy_http_reply_chunk(struct evhttp_request *req, const void *data, size_t size, int called,
    uintptr_t key);
int evpy_http_reply_chunk_buffer(struct evhttp_request *req, struct evbuffer *data, int called,
    uintptr_t key);
int evpy_http_ends_at_once(const struct evhttp_request *req);
int evpy_http_reply_end(struct evhttp_request *req);
int evpy_http_keep(struct evhttp_request *req);
void evpy_http_end_kept(struct evhttp_request *req);
ev_int64_t evpy_http_missing(const struct evhttp_request *req);
void evpy_http_mute(struct evhttp_connection *evcon);
struct bufferevent *evpy_http_hold(struct evhttp_connection *evcon);
void evpy_http_push(struct bufferevent *bev);
int evpy_http_abandon(struct evhttp_request *req);
int evpy_http_outcome(struct evhttp_request *req);
int evpy_http_take_orphan(struct evhttp_request *req);
void evpy_http_free_orphan(struct evhttp_request *req);

int evpy_http_watch(struct evhttp_connection *evcon, uintptr_t key, struct evpy_http_flow **place);
void evpy_http_await(struct evhttp_request *req, struct evpy_http_flow *flow);
struct evhttp_connection *evpy_http_connection_of(struct bufferevent *bev);
