/* Ours. */

int evpy_bufferevent_enable(struct bufferevent *bev, short what);
int evpy_bufferevent_setwatermark(struct bufferevent *bev, short what, size_t low, size_t high);
