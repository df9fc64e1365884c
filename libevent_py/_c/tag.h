struct evbuffer;

void evtag_init(void);
int evtag_unmarshal_header(struct evbuffer *evbuf, ev_uint32_t *ptag);
void evtag_marshal(struct evbuffer *evbuf, ev_uint32_t tag, const void *data,
    ev_uint32_t len);
void evtag_marshal_buffer(struct evbuffer *evbuf, ev_uint32_t tag,
    struct evbuffer *data);
void evtag_encode_int(struct evbuffer *evbuf, ev_uint32_t number);
void evtag_encode_int64(struct evbuffer *evbuf, ev_uint64_t number);
void evtag_marshal_int(struct evbuffer *evbuf, ev_uint32_t tag,
    ev_uint32_t integer);
void evtag_marshal_int64(struct evbuffer *evbuf, ev_uint32_t tag,
    ev_uint64_t integer);
void evtag_marshal_string(struct evbuffer *buf, ev_uint32_t tag,
    const char *string);
void evtag_marshal_timeval(struct evbuffer *evbuf, ev_uint32_t tag,
    struct timeval *tv);
int evtag_unmarshal(struct evbuffer *src, ev_uint32_t *ptag,
    struct evbuffer *dst);
int evtag_peek(struct evbuffer *evbuf, ev_uint32_t *ptag);
int evtag_peek_length(struct evbuffer *evbuf, ev_uint32_t *plength);
int evtag_payload_length(struct evbuffer *evbuf, ev_uint32_t *plength);
int evtag_consume(struct evbuffer *evbuf);
int evtag_unmarshal_int(struct evbuffer *evbuf, ev_uint32_t need_tag,
    ev_uint32_t *pinteger);
int evtag_unmarshal_int64(struct evbuffer *evbuf, ev_uint32_t need_tag,
    ev_uint64_t *pinteger);
int evtag_unmarshal_fixed(struct evbuffer *src, ev_uint32_t need_tag,
    void *data, size_t len);
int evtag_unmarshal_string(struct evbuffer *evbuf, ev_uint32_t need_tag,
    char **pstring);
int evtag_unmarshal_timeval(struct evbuffer *evbuf, ev_uint32_t need_tag,
    struct timeval *ptv);

/* Ours. */

struct evpy_item {
	ev_uint32_t tag, length;
	ev_uint64_t number;
	struct timeval time;
	char *payload;
};

#define EVPY_TAG_BYTES ...
#define EVPY_TAG_INT ...
#define EVPY_TAG_INT64 ...
#define EVPY_TAG_TIMEVAL ...
#define EVPY_TAG_BARE_INT ...
#define EVPY_TAG_BARE_INT64 ...
#define EVPY_TAG_HEADER ...
#define EVPY_TAG_WHOLE ...
#define EVPY_TAG_MALFORMED ...
#define EVPY_TAG_INCOMPLETE ...
#define EVPY_TAG_OTHER ...
#define EVPY_TAG_PAYLOAD ...

int evpy_tag_marshal(struct evbuffer *buf, int kind, const struct evpy_item *item,
    const void *payload);
int evpy_tag_marshal_buffer(struct evbuffer *buf, struct evbuffer *data, ev_uint32_t tag);
ev_ssize_t evpy_tag_peek(struct evbuffer *buf, int lengths, struct evpy_item *item);
int evpy_tag_unmarshal(struct evbuffer *buf, int kind, ev_int64_t need,
    struct evpy_item *item);
