/* Ours. */

struct evpy_keeper;

struct evpy_view {
	char *base;
	size_t size;
	struct evpy_keeper *keeper;
};

struct evpy_views {
	size_t n;
	struct evpy_view views[];
};

struct evpy_views *evpy_peek(struct evbuffer *buf, size_t start, size_t size);
struct evpy_views *evpy_pullup(struct evbuffer *buf, size_t size);
void evpy_views_free(struct evpy_views *views);
char *evpy_view_hold(const struct evpy_view *view);
void evpy_keeper_drop(struct evpy_keeper *keeper, const void *base);
int evpy_add_buffer_reference(struct evbuffer *out, struct evbuffer *in);
struct evpy_views *evpy_reserve(size_t size);
int evpy_commit(struct evbuffer *buf, const struct evpy_view *view, size_t size);
