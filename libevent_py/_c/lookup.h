/* Ours. */

void evpy_lookup_init(void);
int evpy_lookup_under_way(struct bufferevent *bev);
void evpy_lookup_cancel(struct bufferevent *bev);
void evpy_lookup_cancel_all(struct evdns_base *dns);
