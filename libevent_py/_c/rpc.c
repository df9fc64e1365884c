/* Trampolines of evrpc; `arg` is a key, as in event.c.
 *
 * Python makes and reads messages: C sees only their bytes, which it passes on unchanged. So evrpc's many small
 * callbacks (make, marshal, complete, clear …) stay in C. */

#include <event2/rpc_struct.h>

#define EVPY_RPC_PREFIX "/.rpc."

/* evrpc's object for a server's request or reply. */
struct evpy_payload {
	struct evbuffer *data;
	int complete;
};

static void *evpy_payload_new(void *unused)
{
	struct evpy_payload *payload = evpy_calloc(1, sizeof *payload);

	(void)unused;
	if (payload != NULL && (payload->data = evbuffer_new()) == NULL) {
		evpy_free(payload);
		payload = NULL;
	}
	return payload;
}

static void evpy_payload_free(void *payload)
{
	evbuffer_free(((struct evpy_payload *)payload)->data);
	evpy_free(payload);
}

static int evpy_payload_take(void *payload, struct evbuffer *input)
{
	return evbuffer_add_buffer(((struct evpy_payload *)payload)->data, input);
}

static int evpy_payload_complete(void *payload)
{
	return ((struct evpy_payload *)payload)->complete ? 0 : -1;
}

static void evpy_payload_give(struct evbuffer *output, void *payload)
{
	evbuffer_add_buffer(output, ((struct evpy_payload *)payload)->data);
}

/* The public struct that C's handlers get. */
EVRPC_HEADER(evpy, evpy_payload, evpy_payload)

static struct evhttp_request *evpy_rpc_http_request(struct evrpc_req_generic *rpc)
{
	return EVRPC_REQUEST_HTTP((EVRPC_STRUCT(evpy) *)rpc);
}

static struct evbuffer *evpy_rpc_request(struct evrpc_req_generic *rpc)
{
	return ((struct evpy_payload *)evrpc_get_request(rpc))->data;
}

/* Store the bytes of a reply for evpy_rpc_answer(). There may be a reply already, which a hook has paused. */
static int evpy_rpc_fill(struct evrpc_req_generic *rpc, const void *data, size_t size)
{
	struct evpy_payload *reply = evrpc_get_reply(rpc);

	evbuffer_drain(
	    reply->data, evbuffer_get_length(reply->data)); /* an interrupt has left it there */
	return evbuffer_add(reply->data, data, size);
}

static void evpy_rpc_answer(struct evrpc_req_generic *rpc)
{
	int before = evpy_guard_closing(); /* it has nobody to tell */

	((struct evpy_payload *)evrpc_get_reply(rpc))->complete = 1;
	evrpc_request_done(rpc);
	if (before >= 0)
		evpy_unguard(before);
}

/* Answer with 503, as evrpc does when something is wrong. */
static void evpy_rpc_refuse(struct evrpc_req_generic *rpc)
{
	int before = evpy_guard_closing(); /* it has nobody to tell */

	((struct evpy_payload *)evrpc_get_reply(rpc))->complete = 0;
	evrpc_request_done(rpc);
	if (before >= 0)
		evpy_unguard(before);
}

static void evpy_on_rpc(struct evrpc_req_generic *rpc, void *key)
{
	int taken = 0;

	evpy_http_on_sent(evpy_rpc_http_request(rpc));
	EVPY_CALL(evpy_rpc((uintptr_t)key, rpc, &taken));
	if (!taken) /* perhaps an interrupt has kept Python from it */
		EVPY_CALL(evpy_rpc((uintptr_t)key, rpc, &taken));
	if (!taken)
		evpy_rpc_refuse(rpc);
}

/* The path of an RPC, or NULL. */
static char *evpy_rpc_path(const char *name)
{
	char *path = evpy_malloc(sizeof EVPY_RPC_PREFIX + strlen(name));

	if (path != NULL)
		strcat(strcpy(path, EVPY_RPC_PREFIX), name);
	return path;
}

static void evpy_on_no_rpc(struct evhttp_request *request, void *unused)
{
	(void)unused;
	evhttp_send_error(request, HTTP_NOTFOUND, NULL);
}

/* Set a handler for *path*: 0 if there was none, -1 if there was one, less without memory. */
static int evpy_rpc_claim(struct evhttp *http, const char *path)
{
	return path == NULL ? -2 : evhttp_set_cb(http, path, evpy_on_no_rpc, NULL);
}

/* Returns -1 if the path is taken, less without memory. evrpc doesn't check that, and later finds nothing to
 * remove, or another's handler (R2). */
static int evpy_rpc_register(
    struct evrpc_base *base, struct evhttp *http, const char *name, uintptr_t key)
{
	int before = evpy_guard_for(sizeof EVPY_RPC_PREFIX + strlen(name)), failed;
	char *path;

	if (before < 0)
		return -2;
	path = evpy_rpc_path(name);
	failed = evpy_rpc_claim(http, path);
	if (!failed) {
		evhttp_del_cb(http, path);
		if (evrpc_register_generic(base, name, evpy_on_rpc, (void *)key, evpy_payload_new,
			NULL, evpy_payload_free, evpy_payload_take, evpy_payload_new, NULL,
			evpy_payload_free, evpy_payload_complete, evpy_payload_give))
			failed = -2;
	}
	if (!failed && evpy_missed(before)) {
		evrpc_unregister_rpc(base, name);
		failed = -2;
	}
	evpy_free(path);
	evpy_unguard(before);
	return failed;
}

/* evrpc asserts that the path still has its handler; but the user of the HTTP server may have removed it. A name
 * that isn't registered is none to remove. */
static int evpy_rpc_unregister(struct evrpc_base *base, struct evhttp *http, const char *name)
{
	int before = evpy_guard_closing(), claimed;
	char *path;

	if (before < 0)
		return -2;
	path = evpy_rpc_path(name);
	claimed = evpy_rpc_claim(http, path);
	if (claimed >= -1 && evrpc_unregister_rpc(base, name) < 0 && claimed == 0)
		evhttp_del_cb(http, path);
	evpy_free(path);
	evpy_unguard(before);
	return claimed < -1;
}

/* Hooks. Python has its own list for each end, which may change while it is walked. */

static int evpy_rpc_ask(
    void *key, int type, void *context, struct evhttp_request *request, struct evbuffer *data)
{
	int result = EVPY_NOT_CALLED;

	EVPY_CALL(evpy_rpc_hook((uintptr_t)key, type, context, request, data, &result));
	if (result == EVPY_NOT_CALLED) /* perhaps an interrupt has kept Python from it */
		EVPY_CALL(evpy_rpc_hook((uintptr_t)key, type, context, request, data, &result));
	return result == EVPY_NOT_CALLED ? EVRPC_TERMINATE : result;
}

static int evpy_on_rpc_input(
    void *context, struct evhttp_request *request, struct evbuffer *data, void *key)
{
	return evpy_rpc_ask(key, EVRPC_INPUT, context, request, data);
}

static int evpy_on_rpc_output(
    void *context, struct evhttp_request *request, struct evbuffer *data, void *key)
{
	return evpy_rpc_ask(key, EVRPC_OUTPUT, context, request, data);
}

/* evrpc asserts that it gets memory. */
static void *evpy_rpc_add_hook(void *end, int type, uintptr_t key)
{
	void *hook;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	hook = evrpc_add_hook(
	    end, type, type == EVRPC_INPUT ? evpy_on_rpc_input : evpy_on_rpc_output, (void *)key);
	if (evpy_missed(before)) {
		evrpc_remove_hook(end, type, hook);
		hook = NULL;
	}
	evpy_unguard(before);
	return hook;
}

/* A pool's call: evrpc's objects for its request and its reply. */
struct evpy_call {
	uintptr_t key;
	struct evbuffer *request;
	struct evbuffer *reply;
	struct evrpc_request_wrapper *context;
	struct evhttp_request *http; /* while we have to free it */
	int held; /* by C, and by Python */
	int begun; /* C holds it, or has done so */
	int over; /* C has let go of it */
};

/* The call whose request evrpc is making, or whose reply has come; the next step is to ask the hooks. */
static _Thread_local struct evpy_call *evpy_marshalled;

/* evrpc's own callback for the end of an HTTP request. */
static void (*evpy_reply_done)(struct evhttp_request *, void *);

/* An interrupt may keep Python from learning that a call is over. So the record is freed only when Python has
 * dropped it, too. */
static void evpy_call_free(struct evpy_call *call)
{
	if (__atomic_sub_fetch(&call->held, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (call->request != NULL)
		evbuffer_free(call->request);
	if (call->reply != NULL)
		evbuffer_free(call->reply);
	evpy_free(call);
}

/* C lets go of the call, once: an interrupt may have kept Python from learning that it has. */
static void evpy_call_let_go(struct evpy_call *call)
{
	if (!call->begun || call->over)
		return;
	call->over = 1;
	evpy_call_free(call);
}

static void evpy_call_marshal(struct evbuffer *output, void *arg)
{
	struct evpy_call *call = arg;

	evbuffer_add_buffer(output, call->request);
	evpy_marshalled = call;
}

static void evpy_call_clear(void *arg)
{
	struct evpy_call *call = arg;

	evbuffer_drain(call->reply, evbuffer_get_length(call->reply));
}

static int evpy_call_unmarshal(void *arg, struct evbuffer *input)
{
	return evbuffer_add_buffer(((struct evpy_call *)arg)->reply, input);
}

/* evrpc forgets a request that it could not send. */
static void evpy_on_call_done(struct evrpc_status *status, void *request, void *reply, void *arg)
{
	struct evpy_call *call = arg;

	(void)request;
	(void)reply;
	if (call->http != NULL)
		evhttp_request_free(call->http);
	call->http = NULL;
	__atomic_add_fetch(&call->held, 1, __ATOMIC_ACQ_REL);
	/* Calls once more if an interrupt has kept Python from telling of the end. */
	EVPY_TELL(evpy_rpc_done(call->key, status->error, status->http_req, call->reply));
	evpy_call_let_go(call);
	evpy_call_free(call);
}

/* A pool has no base of its own (R1), so neither has the timer that evrpc deletes here, which makes
 * libevent warn. */
static void evpy_call_replied(struct evpy_call *call, struct evhttp_request *request)
{
	evpy_log_expected = 1;
	evpy_marshalled = call;
	evpy_reply_done(request, call->context);
	evpy_log_expected = 0;
}

/* We own the request until here, because libevent doesn't say when it has freed one that failed. */
static void evpy_on_reply(struct evhttp_request *request, void *arg)
{
	struct evpy_call *call = arg;

	if (request == NULL)
		evhttp_request_free(call->http);
	else
		request->flags &= ~EVHTTP_USER_OWNED;
	call->http = NULL;
	evpy_call_replied(call, request);
}

/* A pool's first hook: only here does evrpc give access to the request that it has made for a call. */
static int evpy_on_call(
    void *context, struct evhttp_request *request, struct evbuffer *data, void *key)
{
	struct evpy_call *call = evpy_marshalled;

	call->http = request;
	evhttp_request_own(request);
	evpy_reply_done = request->cb;
	request->cb = evpy_on_reply;
	request->cb_arg = call;
	return evpy_on_rpc_output(context, request, data, key);
}

static struct evrpc_pool *evpy_rpc_pool_new(uintptr_t key)
{
	struct evrpc_pool *pool;
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	pool = evrpc_pool_new(NULL);
	if (pool != NULL) {
		evrpc_add_hook(pool, EVRPC_OUTPUT, evpy_on_call, (void *)key);
		evrpc_add_hook(pool, EVRPC_INPUT, evpy_on_rpc_input, (void *)key);
	}
	if (pool != NULL && evpy_missed(before)) {
		evrpc_pool_free(pool);
		pool = NULL;
	}
	evpy_unguard(before);
	return pool;
}

static struct evpy_call *evpy_call_new(const void *data, size_t size, uintptr_t key)
{
	struct evpy_call *call = evpy_calloc(1, sizeof *call);

	if (call == NULL)
		return NULL;
	call->key = key;
	call->held = 1;
	if ((call->request = evbuffer_new()) == NULL || (call->reply = evbuffer_new()) == NULL ||
	    evbuffer_add(call->request, data, size) < 0) {
		evpy_call_free(call);
		return NULL;
	}
	return call;
}

static int evpy_call_begun(const struct evpy_call *call)
{
	return call->begun;
}

/* evrpc's own object for the call, or NULL when it has none, or none any more. */
static struct evrpc_request_wrapper *evpy_call_context(struct evpy_call *call)
{
	return call->over ? NULL : call->context;
}

/* The key of the call about which a hook of its pool is asked. */
static uintptr_t evpy_call_at_hand(void)
{
	return evpy_marshalled->key;
}

static void evpy_on_nothing(struct evhttp_request *request, void *unused)
{
	(void)request;
	(void)unused;
}

/* End a call that is under way on a connection: libevent itself would not call back (P3, P4). */
static void evpy_call_abort(struct evpy_call *call)
{
	struct evhttp_request *request = call->http;
	struct evhttp_connection *evcon;

	if (request == NULL)
		return;
	call->http = NULL;
	request->cb = evpy_on_nothing;
	evcon = evhttp_request_get_connection(request);
	if (evcon != NULL) /* or evhttp would do it, perhaps without memory */
		evpy_lookup_cancel(evhttp_connection_get_bufferevent(evcon));
	evhttp_cancel_request(request);
	evhttp_request_free(request);
	evpy_call_replied(call, NULL);
}

/* Functions that may begin a call: without memory, evrpc and evhttp leave it half done. */

/* evrpc has nothing to free a context with that it has not begun to use. So an interrupt must not come in between.
 * Returns NULL if the call is over, too; the errno is 0 if there was no connection. */
static struct evrpc_request_wrapper *evpy_rpc_make_request(
    struct evpy_call *call, struct evrpc_pool *pool, const char *name, const int *connections)
{
	int before;

	errno = 0;
	if (*connections == 0) /* evrpc would assert */
		return NULL;
	before = evpy_guard();
	if (before < 0)
		return NULL;
	call->context = evrpc_make_request_ctx(pool, call, call, name, evpy_call_marshal,
	    evpy_call_clear, evpy_call_unmarshal, evpy_on_call_done, call);
	if (call->context != NULL) {
		call->begun = 1;
		__atomic_add_fetch(&call->held, 1, __ATOMIC_ACQ_REL);
		evrpc_make_request(call->context);
	}
	evpy_unguard(before);
	if (!call->begun)
		errno = ENOMEM;
	if (call->http != NULL)
		evpy_client_look(call->http);
	return evpy_call_context(call);
}

/* Returns EVPY_NOT_BEGUN without memory, unless it must be done. */
static int evpy_rpc_resume_request(void *end, void *context, int result, int must)
{
	int before = evpy_guard_closing(), failed;

	if (before < 0 && !must)
		return EVPY_NOT_BEGUN;
	failed = evrpc_resume_request(end, context, result);
	if (before >= 0)
		evpy_unguard(before);
	return failed;
}

/* Refuse a call of the server *end*, even if a hook has paused it. */
static void evpy_rpc_end(void *end, struct evrpc_req_generic *rpc)
{
	if (evpy_rpc_resume_request(end, rpc, EVRPC_TERMINATE, 1))
		evpy_rpc_refuse(rpc);
}

/* *connections is how many the pool has. Adding one may send a call that waits, which may remove another. */
static void evpy_rpc_pool_add_connection(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections)
{
	int before = evpy_guard();

	++*connections;
	evrpc_pool_add_connection(pool, evcon);
	if (before >= 0)
		evpy_unguard(before);
}

/* All of them; after an interrupt there are none to be removed once more. */
static void evpy_rpc_pool_remove_connections(
    struct evrpc_pool *pool, struct evhttp_connection *const *evcons, int *connections)
{
	while (*connections > 0)
		evrpc_pool_remove_connection(pool, evcons[--*connections]);
}

static void evpy_rpc_pool_remove_connection(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections)
{
	--*connections;
	evrpc_pool_remove_connection(pool, evcon);
}

/* Remove a connection, and add it again, so that evrpc sends a call that waits. */
static void evpy_rpc_pool_add_again(
    struct evrpc_pool *pool, struct evhttp_connection *evcon, int *connections)
{
	evpy_rpc_pool_remove_connection(pool, evcon, connections);
	evpy_rpc_pool_add_connection(pool, evcon, connections);
}

/* evrpc asserts that it gets memory for a copy of the data. */
static int evpy_rpc_hook_add_meta(void *context, const char *key, const void *data, size_t size)
{
	int before = evpy_guard_for(size > strlen(key) ? size : strlen(key) + 1);

	if (before < 0)
		return -1;
	evrpc_hook_add_meta(context, key, data, size);
	evpy_unguard(before);
	return 0;
}
