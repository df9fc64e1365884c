/* Ours. */

extern "Python" int evpy_http_headers(uintptr_t key, struct evhttp_request *request);
extern "Python" int evpy_http_part(uintptr_t key);

struct evpy_http_flow;

void evpy_http_suspend(struct bufferevent *bev);
void evpy_http_unsuspend(struct bufferevent *bev);

int evpy_http_stream(struct evpy_http_flow *flow);
void evpy_http_take_chunks(struct evhttp_request *req);
