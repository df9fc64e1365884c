struct evbuffer;
struct event_base;
struct evrpc_req_generic;
struct evrpc_request_wrapper;
struct evrpc;
struct evhttp_request;
struct evrpc_status;
struct evrpc_hook_meta;
struct evrpc_pool;

struct evrpc_request_wrapper *evrpc_make_request_ctx(
	struct evrpc_pool *pool, void *request, void *reply,
	const char *rpcname,
	void (*req_marshal)(struct evbuffer*, void *),
	void (*rpl_clear)(void *),
	int (*rpl_unmarshal)(void *, struct evbuffer *),
	void (*cb)(struct evrpc_status *, void *, void *, void *),
	void *cbarg);
void evrpc_request_done(struct evrpc_req_generic *req);
void *evrpc_get_request(struct evrpc_req_generic *req);
void *evrpc_get_reply(struct evrpc_req_generic *req);

struct evrpc_base;
struct evhttp;

struct evrpc_base *evrpc_init(struct evhttp *server);
void evrpc_free(struct evrpc_base *base);
int evrpc_register_rpc(struct evrpc_base *, struct evrpc *,
    void (*)(struct evrpc_req_generic*, void *), void *);
int evrpc_unregister_rpc(struct evrpc_base *base, const char *name);

struct evhttp_connection;

int evrpc_make_request(struct evrpc_request_wrapper *ctx);
struct evrpc_pool *evrpc_pool_new(struct event_base *base);
void evrpc_pool_free(struct evrpc_pool *pool);
void evrpc_pool_add_connection(struct evrpc_pool *pool,
    struct evhttp_connection *evcon);
void evrpc_pool_remove_connection(struct evrpc_pool *pool,
    struct evhttp_connection *evcon);
void evrpc_pool_set_timeout(struct evrpc_pool *pool, int timeout_in_secs);

enum EVRPC_HOOK_TYPE {
	EVRPC_INPUT,
	EVRPC_OUTPUT,
	...
};

#define INPUT ...
#define OUTPUT ...

enum EVRPC_HOOK_RESULT {
	EVRPC_TERMINATE,
	EVRPC_CONTINUE,
	EVRPC_PAUSE,
	...
};

void *evrpc_add_hook(void *vbase,
    enum EVRPC_HOOK_TYPE hook_type,
    int (*cb)(void *, struct evhttp_request *, struct evbuffer *, void *),
    void *cb_arg);
int evrpc_remove_hook(void *vbase,
    enum EVRPC_HOOK_TYPE hook_type,
    void *handle);
int evrpc_resume_request(void *vbase, void *ctx, enum EVRPC_HOOK_RESULT res);
void evrpc_hook_add_meta(void *ctx, const char *key,
    const void *data, size_t data_size);
int evrpc_hook_find_meta(void *ctx, const char *key,
    void **data, size_t *data_size);
struct evhttp_connection *evrpc_hook_get_connection(void *ctx);
int evrpc_send_request_generic(struct evrpc_pool *pool,
    void *request, void *reply,
    void (*cb)(struct evrpc_status *, void *, void *, void *),
    void *cb_arg,
    const char *rpcname,
    void (*req_marshal)(struct evbuffer *, void *),
    void (*rpl_clear)(void *),
    int (*rpl_unmarshal)(void *, struct evbuffer *));
int evrpc_register_generic(struct evrpc_base *base, const char *name,
    void (*callback)(struct evrpc_req_generic *, void *), void *cbarg,
    void *(*req_new)(void *), void *req_new_arg, void (*req_free)(void *),
    int (*req_unmarshal)(void *, struct evbuffer *),
    void *(*rpl_new)(void *), void *rpl_new_arg, void (*rpl_free)(void *),
    int (*rpl_complete)(void *),
    void (*rpl_marshal)(struct evbuffer *, void *));
struct evrpc_pool* evrpc_request_get_pool(struct evrpc_request_wrapper *ctx);
void evrpc_request_set_pool(struct evrpc_request_wrapper *ctx,
    struct evrpc_pool *pool);
void evrpc_request_set_cb(struct evrpc_request_wrapper *ctx,
    void (*cb)(struct evrpc_status*, void *request, void *reply, void *arg),
    void *cb_arg);

/* Ours. */

extern "Python" void evpy_rpc(uintptr_t key, struct evrpc_req_generic *rpc, int *taken);
extern "Python" void evpy_rpc_hook(uintptr_t key, int type, void *context,
    struct evhttp_request *request, struct evbuffer *data, int *result);
extern "Python" int evpy_rpc_done(uintptr_t key, int status, struct evhttp_request *request,
    struct evbuffer *reply);

int evpy_rpc_register(struct evrpc_base *base, struct evhttp *http, const char *name, uintptr_t key);
int evpy_rpc_unregister(struct evrpc_base *base, struct evhttp *http, const char *name);
struct evhttp_request *evpy_rpc_http_request(struct evrpc_req_generic *rpc);
struct evbuffer *evpy_rpc_request(struct evrpc_req_generic *rpc);
int evpy_rpc_fill(struct evrpc_req_generic *rpc, const void *data, size_t size);
void evpy_rpc_answer(struct evrpc_req_generic *rpc);
void evpy_rpc_refuse(struct evrpc_req_generic *rpc);
void evpy_rpc_end(void *end, struct evrpc_req_generic *rpc);
void *evpy_rpc_add_hook(void *end, int type, uintptr_t key);

struct evpy_call;
struct evrpc_pool *evpy_rpc_pool_new(uintptr_t key);
struct evpy_call *evpy_call_new(const void *data, size_t size, uintptr_t key);
int evpy_call_begun(const struct evpy_call *call);
struct evrpc_request_wrapper *evpy_call_context(struct evpy_call *call);
uintptr_t evpy_call_at_hand(void);
void evpy_call_free(struct evpy_call *call);
void evpy_call_let_go(struct evpy_call *call);
void evpy_call_abort(struct evpy_call *call);
struct evrpc_request_wrapper *evpy_rpc_make_request(
    struct evpy_call *call, struct evrpc_pool *pool, const char *name, const int *connections);
int evpy_rpc_resume_request(void *end, void *context, int result, int must);
void evpy_rpc_pool_add_connection(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections);
void evpy_rpc_pool_remove_connections(struct evrpc_pool *pool,
    struct evhttp_connection *const *evcons, int *connections);
void evpy_rpc_pool_remove_connection(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections);
void evpy_rpc_pool_add_again(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections);
int evpy_rpc_hook_add_meta(void *context, const char *key, const void *data, size_t size);
