#define EVRPC_STATUS_ERR_NONE ...
#define EVRPC_STATUS_ERR_TIMEOUT ...
#define EVRPC_STATUS_ERR_BADPAYLOAD ...
#define EVRPC_STATUS_ERR_UNSTARTED ...
#define EVRPC_STATUS_ERR_HOOKABORTED ...

struct evrpc_status {
	int error;
	struct evhttp_request *http_req;
};

struct evrpc {
	struct { struct evrpc *tqe_next; struct evrpc **tqe_prev; } next;
	const char* uri;
	void *(*request_new)(void *);
	void *request_new_arg;
	void (*request_free)(void *);
	int (*request_unmarshal)(void *, struct evbuffer *);
	void *(*reply_new)(void *);
	void *reply_new_arg;
	void (*reply_free)(void *);
	int (*reply_complete)(void *);
	void (*reply_marshal)(struct evbuffer*, void *);
	void (*cb)(struct evrpc_req_generic *, void *);
	void *cb_arg;
	struct evrpc_base *base;
};

/* Ours. */
