/* Ours. */

#define EVPY_ARENA ...

/* Memory that the callbacks of a base's eager bufferevents read and write through, one at a time. */
struct evpy_arena {
	char input[...];
	char output[...];
	...;
};

struct evpy_eager {
	int direct;
	...;
};

struct evpy_arena *evpy_arena_new(uintptr_t object);
void evpy_arena_free(struct evpy_arena *arena);
int evpy_arena_functions(uintptr_t names);
int evpy_arena_take(struct bufferevent *bev, struct evpy_arena *arena);
struct evpy_eager *evpy_eager_new(struct evpy_arena *arena, uintptr_t key, int deferred);
void evpy_eager_setcb(
    struct bufferevent *bev, int read, int write, struct evpy_eager *eager);
void evpy_eager_unhook(struct bufferevent *bev);
int evpy_eager_put_back(struct bufferevent *bev, struct evpy_eager *eager, size_t unread);
int evpy_eager_spill(struct bufferevent *bev, const char *data, size_t size);
int evpy_eager_uncork(struct bufferevent *bev, struct evpy_eager *eager);
void evpy_eager_free(struct evpy_eager *eager);
