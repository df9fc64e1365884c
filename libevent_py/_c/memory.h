/* Ours. */

#define EVPY_ANY ...
#define EVPY_LIBEVENT ...
#define EVPY_OURS ...
#define EVPY_OPENSSL ...

struct evpy_usage {
	size_t blocks;
	size_t bytes;
	size_t peak_blocks;
	size_t peak_bytes;
	size_t allocations;
	size_t refused;
};

struct evpy_block {
	uintptr_t address;
	size_t size;
	size_t number;
	int source;
};

/* Frees memory that libevent returns, such as a line or a decoded URI, and what the functions below return. */
void evpy_free(void *memory);

int evpy_guard(void);
int evpy_guard_closing(void);
int evpy_put_aside(void);
int evpy_lacked(int before);
void evpy_unguard(int before);

int evpy_loop_missed(void);

int evpy_count_memory(void);
int evpy_counts(int source);
void evpy_usage(int source, struct evpy_usage *usage);
size_t evpy_live_blocks(int source, struct evpy_block *blocks, size_t room);
void evpy_refuse(int source, size_t nth, int onwards);
void evpy_asides_forget(void);
