/* Ours. */

struct evpy_segment {
	struct evbuffer_file_segment *segment;
	...;
};

struct evpy_segment *evpy_segment_new(
    int fd, ev_off_t offset, ev_off_t length, unsigned flags);
int evpy_segment_fd(const struct evpy_segment *part);
int evpy_segment_on_cleanup(struct evpy_segment *part, uintptr_t key);
int evpy_segment_add(
    struct evpy_segment *part, struct evbuffer *buf, size_t offset, size_t length);
void evpy_segment_free(struct evpy_segment *part);
