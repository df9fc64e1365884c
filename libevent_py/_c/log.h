/* Ours. */

extern "Python" void evpy_fatal(int code);

void evpy_log_install(void);
void evpy_fatal_install(int on);
void evpy_log_poke(int fd);

struct evpy_message;
struct evpy_message *evpy_log_take(void);
void evpy_log_put_back(struct evpy_message *messages);
void evpy_message_free(struct evpy_message *message);
struct evpy_message *evpy_message_next(const struct evpy_message *message);
int evpy_message_severity(const struct evpy_message *message);
const char *evpy_message_text(const struct evpy_message *message);
