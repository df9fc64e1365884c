/* Ours. */

int evpy_ratelimit_init(void);
int evpy_bufferevent_set_rate_limit(struct bufferevent *bev,
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick);
int evpy_bufferevent_take(struct bufferevent *bev, int writing, ev_ssize_t n);
void evpy_bufferevent_unlimit(struct bufferevent *bev, int busy);
struct bufferevent_rate_limit_group *evpy_rate_limit_group_new(struct event_base *base,
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick);
int evpy_rate_limit_group_set_limit(struct bufferevent_rate_limit_group *group,
    size_t read_rate, size_t read_burst, size_t write_rate, size_t write_burst, double tick);
