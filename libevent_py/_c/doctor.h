/* Ours. */
const char *evpy_file_of(const char *part);
const char *evpy_openssl(void);
void evpy_memory_keep(void);
int evpy_memory_freed_twice(void);
int evpy_memory_overrun(void);
int evpy_page_is_touched(void *page, size_t size);
extern "Python" void evpy_probed_http(struct evhttp_request *request, void *arg);
extern "Python" void evpy_probed_dns(struct evdns_server_request *request, void *arg);
