/* All memory that libevent and this module allocate and free. It comes from malloc().
 *
 * For tests, memory can be counted, and any allocation can be made to fail (`libevent_py.debug`). And memory can
 * be put aside for calls in which libevent doesn't survive, or doesn't notice, a failed allocation: see
 * evpy_guard(). Without any of that, each call goes straight to malloc() or free().
 *
 * Every block is a plain block of malloc(), no matter who asked for it and what was switched on later. So any code
 * may free it at any time. */

#include <dlfcn.h>
#include <pthread.h>
#ifdef __APPLE__
#include <malloc/malloc.h>
#define EVPY_SIZE(memory) malloc_size(memory)
#else
#include <malloc.h>
#define EVPY_SIZE(memory) malloc_usable_size((void *)(memory))
#endif
#include <string.h>
#include <event2/event.h>
#if LIBEVENT_PY_HAVE_TLS
#include <openssl/crypto.h>
#endif

/* Who asks for memory. */
enum { EVPY_ANY, EVPY_LIBEVENT, EVPY_OURS, EVPY_OPENSSL, EVPY_SOURCES };

struct evpy_usage {
	size_t blocks;
	size_t bytes;
	size_t peak_blocks;
	size_t peak_bytes;
	size_t allocations;
	size_t refused;
};

struct evpy_block {
	uintptr_t address; /* 0 where the table has room */
	size_t size;
	size_t number; /* of the allocation that it came from */
	int source;
};

/* Memory put aside.
 *
 * Much of libevent doesn't check whether it got memory, or can't undo what it has done by then: the first half of
 * a pair, or a callback without which a bufferevent never writes. So memory is put aside before such a call, and
 * used during the call when malloc() fails. The call succeeds; its caller sees that memory ran short, frees the
 * new object, which is complete, and fails. */

/* More than any one call asks for. The large ones take what a socket gives at once. */
static const struct {
	int blocks;
	size_t size;
} evpy_asides[] = {{136, 2048}, {8, 20 * 1024}};

#define EVPY_ASIDES (sizeof evpy_asides / sizeof *evpy_asides)
#define EVPY_ASIDE_MOST 136

/* So many of the small ones are kept, in a loop, for what libevent doesn't survive without: see evpy_loop_spend(). And a
 * few of these are for a struct evrpc_hook_meta: evrpc asserts that it gets one for each RPC that it got memory for. */
#define EVPY_ASIDE_KEPT 20
#define EVPY_ASIDE_FOR_META 4
#define EVPY_SIZE_OF_META (3 * sizeof(void *))

struct evpy_aside {
	void *blocks[EVPY_ASIDES][EVPY_ASIDE_MOST];
	int left[EVPY_ASIDES];
	void *named; /* one more block, of a size that the caller has asked for */
	size_t named_size;
	int spent; /* in a loop: what is kept may be used, too */
	int depth; /* how many guards there are, one inside the other */
	int missed; /* how often malloc() has refused meanwhile */
	int lacked; /* and which of these was the last for which there was nothing here, either */
};

/* The memory of this thread while it is guarded; that of the loop that it runs, even during a callback, which isn't
 * guarded; and memory kept for the next guard. */
static _Thread_local struct evpy_aside *evpy_guarding, *evpy_looping;
static struct evpy_aside *evpy_spares[4];

static struct evpy_aside *evpy_aside_get(void)
{
	struct evpy_aside *aside = NULL;
	size_t i;

	for (i = 0; aside == NULL && i < sizeof evpy_spares / sizeof *evpy_spares; ++i)
		if (__atomic_load_n(&evpy_spares[i], __ATOMIC_RELAXED) != NULL)
			aside = __atomic_exchange_n(&evpy_spares[i], NULL, __ATOMIC_ACQ_REL);
	return aside != NULL ? aside : calloc(1, sizeof *aside);
}

static void evpy_aside_free(struct evpy_aside *aside)
{
	size_t i;

	for (i = 0; i < EVPY_ASIDES; ++i)
		while (aside->left[i] > 0)
			free(aside->blocks[i][--aside->left[i]]);
	free(aside);
}

/* Keep it for the next guard, if there is room. */
static void evpy_aside_keep(struct evpy_aside *aside)
{
	struct evpy_aside *none;
	size_t i;

	for (i = 0; i < sizeof evpy_spares / sizeof *evpy_spares; ++i) {
		none = NULL;
		if (__atomic_compare_exchange_n(
			&evpy_spares[i], &none, aside, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return;
	}
	evpy_aside_free(aside);
}

static int evpy_refuses_all(void);
static void evpy_count_refused(void);

/* Put aside the missing blocks; return whether all are there. */
static int evpy_aside_fill(struct evpy_aside *aside)
{
	size_t i;

	if (evpy_refuses_all())
		return aside->left[0] == evpy_asides[0].blocks &&
		    aside->left[1] == evpy_asides[1].blocks;
	for (i = 0; i < EVPY_ASIDES; ++i)
		while (aside->left[i] < evpy_asides[i].blocks) {
			void *block = malloc(evpy_asides[i].size);

			if (block == NULL)
				return 0;
			aside->blocks[i][aside->left[i]++] = block;
		}
	return 1;
}

static void evpy_unguard(int before);

/* What ends something needs this many blocks of each size, at most. */
#define EVPY_ASIDE_LEAST 6

/* How many small blocks may be used. */
static int evpy_aside_small(const struct evpy_aside *aside)
{
	return aside->left[0] - (aside == evpy_looping && !aside->spent ? EVPY_ASIDE_KEPT : 0);
}

static int evpy_guard_by(int least)
{
	struct evpy_aside *aside = evpy_guarding;

	if (aside == NULL)
		aside = evpy_aside_get();
	if (aside == NULL ||
	    (!evpy_aside_fill(aside) &&
		(evpy_aside_small(aside) < least || aside->left[1] < least))) {
		if (aside != NULL && aside->depth == 0)
			evpy_aside_keep(aside);
		if (evpy_refuses_all())
			evpy_count_refused();
		errno = ENOMEM;
		return -1;
	}
	evpy_guarding = aside;
	++aside->depth;
	return aside->missed;
}

/* Guard what this thread does until evpy_unguard(). Returns the argument for that, or -1 and ENOMEM if not all that
 * might be needed can be put aside. */
static int evpy_guard(void)
{
	return evpy_guard_by(EVPY_ASIDE_MOST);
}

/* Guard what ends something, if need be with less than that: nothing is put aside again for as long as there is no
 * memory. */
static int evpy_guard_closing(void)
{
	return evpy_guard_by(EVPY_ASIDE_LEAST);
}

/* As evpy_guard(), with room for one block of `size` bytes. */
static int evpy_guard_for(size_t size)
{
	int before = evpy_guard();

	if (before < 0 || size <= evpy_asides[EVPY_ASIDES - 1].size || evpy_guarding->named != NULL)
		return before;
	evpy_guarding->named = malloc(size);
	evpy_guarding->named_size = size;
	if (evpy_guarding->named != NULL)
		return before;
	evpy_unguard(before);
	errno = ENOMEM;
	return -1;
}

/* Tell whether memory ran short since evpy_guard() returned `before`. */
static int evpy_missed(int before)
{
	return evpy_guarding->missed != before;
}

/* Tell whether any allocation failed in spite of that, because it was too large or there were too many. */
static int evpy_lacked(int before)
{
	return evpy_guarding->lacked > before;
}

/* End the guard; errno is ENOMEM afterwards if memory ran short. */
static void evpy_unguard(int before)
{
	struct evpy_aside *aside = evpy_guarding;
	int error = aside->missed != before ? ENOMEM : errno;

	if (--aside->depth == 0) {
		evpy_guarding = NULL;
		free(aside->named);
		aside->named = NULL;
		aside->missed = aside->lacked = 0;
		evpy_aside_keep(aside);
	}
	errno = error;
}

/* Put aside what the next guard needs; -1 and ENOMEM if that is not possible. */
static int evpy_put_aside(void)
{
	int before = evpy_guard();

	if (before >= 0)
		evpy_unguard(before);
	return before < 0 ? -1 : 0;
}

/* A loop is guarded, too, as libevent allocates memory there by itself. Callbacks are not guarded: Python's functions
 * must see that there is no memory. So memory used there is libevent's own, and a byte to the log's pipe makes the
 * loop look. */

/* Guard the loop that this thread begins, and store the argument for evpy_loop_end(); -1 and ENOMEM if nothing can be
 * put aside. */
static int evpy_loop_begin(struct evpy_aside **outer)
{
	if (evpy_guard() < 0)
		return -1;
	*outer = evpy_looping;
	evpy_looping = evpy_guarding;
	evpy_looping->spent = 0;
	return 0;
}

/* Tell whether there is less than was put aside, and no memory for it: then all that is kept may be used from here on. */
static int evpy_loop_spends(void)
{
	struct evpy_aside *aside = evpy_guarding;

	if (aside == NULL || aside != evpy_looping || evpy_aside_fill(aside))
		return 0;
	aside->spent = 1;
	return 1;
}

/* How often memory has run short in the loop since this was last asked. */
static int evpy_loop_missed(void)
{
	struct evpy_aside *aside = evpy_looping;
	int missed = aside == NULL ? 0 : aside->missed;

	if (aside != NULL) {
		aside->missed = aside->lacked = 0;
		evpy_aside_fill(aside);
	}
	return missed;
}

static void evpy_loop_end(struct evpy_aside *outer)
{
	int error = errno;

	evpy_unguard(0);
	errno = error;
	evpy_looping = outer;
}

static void evpy_poke_loops(void);

static void *evpy_aside_take(struct evpy_aside *aside, size_t size)
{
	void *memory = NULL;
	int small = evpy_aside_small(aside) + (size == EVPY_SIZE_OF_META ? EVPY_ASIDE_FOR_META : 0);
	size_t i;

	for (i = 0; i < EVPY_ASIDES; ++i)
		if (size <= evpy_asides[i].size && aside->left[i] > 0 && (i > 0 || small > 0))
			return aside->blocks[i][--aside->left[i]];
	if (aside->named != NULL && size <= aside->named_size) {
		memory = aside->named;
		aside->named = NULL;
	}
	return memory;
}

/* What malloc() has refused. */
static void *evpy_from_aside(size_t size)
{
	struct evpy_aside *aside = evpy_guarding;
	void *memory = NULL;

	if (aside != NULL) {
		++aside->missed;
		memory = evpy_aside_take(aside, size);
		if (memory == NULL)
			aside->lacked = aside->missed;
		else if (aside == evpy_looping)
			evpy_poke_loops();
	}
	errno = ENOMEM;
	return memory;
}

/* Counting. */

/* Whether blocks are counted, and OpenSSL's with them. */
static int evpy_counting, evpy_counting_openssl;

static struct {
	struct evpy_usage usage[EVPY_SOURCES];
	struct evpy_block *blocks; /* by address: a hash table with open addressing */
	size_t room; /* a power of two, at least twice as many as there are blocks */
	struct {
		size_t countdown; /* 1: the next one fails */
		int source;
		int onwards;
	} refusing;
} evpy_counted;

/* Whether every allocation fails, so that nothing can be put aside, either. */
static int evpy_refusing_all;

static int evpy_refuses_all(void)
{
	return __atomic_load_n(&evpy_refusing_all, __ATOMIC_RELAXED);
}

/* No other lock is taken while it is held: so a thread that holds any other lock may take it. */
static pthread_mutex_t evpy_counted_lock = PTHREAD_MUTEX_INITIALIZER;

static void evpy_counted_hold(void)
{
	pthread_mutex_lock(&evpy_counted_lock);
}

static void evpy_counted_leave(void)
{
	pthread_mutex_unlock(&evpy_counted_lock);
}

static size_t evpy_slot_of(uintptr_t address)
{
	return (size_t)((uint64_t)address * 0x9E3779B97F4A7C15u >> 20) & (evpy_counted.room - 1);
}

/* Where a block is in the table, or where there is room for it. */
static struct evpy_block *evpy_find(uintptr_t address)
{
	struct evpy_block *blocks = evpy_counted.blocks;
	size_t slot = evpy_slot_of(address);

	while (blocks[slot].address != 0 && blocks[slot].address != address)
		slot = (slot + 1) & (evpy_counted.room - 1);
	return &blocks[slot];
}

static int evpy_table_grow(void)
{
	struct evpy_block *old = evpy_counted.blocks;
	size_t room = evpy_counted.room, i;

	evpy_counted.blocks = calloc(room ? 2 * room : 4096, sizeof *old);
	if (evpy_counted.blocks == NULL) {
		evpy_counted.blocks = old;
		return -1;
	}
	evpy_counted.room = room ? 2 * room : 4096;
	for (i = 0; i < room; ++i)
		if (old[i].address != 0)
			*evpy_find(old[i].address) = old[i];
	free(old);
	return 0;
}

static void evpy_note_block(struct evpy_usage *usage, size_t size)
{
	++usage->blocks;
	usage->bytes += size;
	if (usage->blocks > usage->peak_blocks)
		usage->peak_blocks = usage->blocks;
	if (usage->bytes > usage->peak_bytes)
		usage->peak_bytes = usage->bytes;
}

static void evpy_forget_block(struct evpy_block *block)
{
	size_t mask = evpy_counted.room - 1;
	size_t hole = (size_t)(block - evpy_counted.blocks), slot = hole;
	const int sources[] = {EVPY_ANY, block->source};
	size_t i;

	for (i = 0; i < 2; ++i) {
		--evpy_counted.usage[sources[i]].blocks;
		evpy_counted.usage[sources[i]].bytes -= block->size;
	}
	/* Entries that collided with this one move up. */
	for (;;) {
		evpy_counted.blocks[hole].address = 0;
		do {
			size_t home;

			slot = (slot + 1) & mask;
			if (evpy_counted.blocks[slot].address == 0)
				return;
			home = evpy_slot_of(evpy_counted.blocks[slot].address);
			if (((slot - home) & mask) >= ((slot - hole) & mask))
				break;
		} while (1);
		evpy_counted.blocks[hole] = evpy_counted.blocks[slot];
		hole = slot;
	}
}

/* What a tracer lets fail (`python -m libevent_py trace --inject malloc`), if there is one. */
static int (*evpy_tracer_refuses)(const void *, size_t);

/* Count an allocation, for the block `old` if that is to be resized; return whether it may be tried. */
static int evpy_admit(int source, const void *old, size_t size)
{
	const int sources[] = {EVPY_ANY, source};
	int refused = 0;
	size_t i;

	if (evpy_counted.refusing.countdown > 0 &&
	    (evpy_counted.refusing.source == EVPY_ANY || evpy_counted.refusing.source == source)) {
		refused = evpy_counted.refusing.countdown == 1;
		if (!refused || !evpy_counted.refusing.onwards)
			--evpy_counted.refusing.countdown;
		else if (evpy_counted.refusing.source == EVPY_ANY)
			__atomic_store_n(&evpy_refusing_all, 1, __ATOMIC_RELAXED);
	}
	if (!refused && source == EVPY_LIBEVENT && evpy_tracer_refuses != NULL)
		refused = evpy_tracer_refuses(old, size);
	for (i = 0; i < 2; ++i) {
		++evpy_counted.usage[sources[i]].allocations;
		evpy_counted.usage[sources[i]].refused += (size_t)refused;
	}
	return !refused;
}

/* Count what could not be put aside, as every allocation fails: it is asked for by no function that counts. */
static void evpy_count_refused(void)
{
	const int sources[] = {EVPY_ANY, EVPY_OURS};
	size_t i;

	evpy_counted_hold();
	for (i = 0; i < 2; ++i) {
		++evpy_counted.usage[sources[i]].allocations;
		++evpy_counted.usage[sources[i]].refused;
	}
	evpy_counted_leave();
}

/* Enter a new block in the table; -1 if there is no room. */
static int evpy_enter(int source, void *memory, size_t size)
{
	struct evpy_block *block;

	if (2 * (evpy_counted.usage[EVPY_ANY].blocks + 1) > evpy_counted.room &&
	    evpy_table_grow() < 0)
		return -1;
	block = evpy_find((uintptr_t)memory);
	if (block->address != 0) { /* other code has freed it without our function */
		evpy_forget_block(block);
		block = evpy_find((uintptr_t)memory);
	}
	block->address = (uintptr_t)memory;
	block->size = size;
	block->number = evpy_counted.usage[EVPY_ANY].allocations;
	block->source = source;
	evpy_note_block(&evpy_counted.usage[EVPY_ANY], size);
	evpy_note_block(&evpy_counted.usage[source], size);
	return 0;
}

static void *evpy_counted_new(int source, size_t size)
{
	void *memory;

	evpy_counted_hold();
	memory = evpy_admit(source, NULL, size) ? malloc(size) : NULL;
	if (memory == NULL && source != EVPY_OPENSSL)
		memory = evpy_from_aside(size);
	if (memory != NULL && evpy_enter(source, memory, size) < 0) {
		free(memory);
		memory = NULL;
	}
	evpy_counted_leave();
	if (memory == NULL)
		errno = ENOMEM;
	return memory;
}

static void evpy_counted_free(void *memory)
{
	struct evpy_block *block;

	if (memory == NULL)
		return;
	evpy_counted_hold();
	block = evpy_find((uintptr_t)memory);
	if (block->address != 0)
		evpy_forget_block(block);
	evpy_counted_leave(); /* before free(): afterwards another thread may get the same block and enter it */
	free(memory);
}

static void *evpy_grown(void *old, size_t size)
{
	size_t before = EVPY_SIZE(old);
	void *memory = evpy_from_aside(size);

	if (memory != NULL) {
		memcpy(memory, old, before < size ? before : size);
		free(old);
	}
	return memory;
}

static void *evpy_counted_resize(int source, void *old, size_t size)
{
	struct evpy_block *block, kept;
	void *memory;

	evpy_counted_hold();
	block = evpy_find((uintptr_t)old);
	kept = *block;
	memory = evpy_admit(source, old, size) ? realloc(old, size) : NULL;
	if (memory == NULL && source != EVPY_OPENSSL)
		memory = evpy_grown(old, size);
	if (memory != NULL) {
		if (kept.address != 0)
			evpy_forget_block(block);
		/* For a block from before counting there may be no room; it stays unknown. */
		evpy_enter(kept.address != 0 ? kept.source : source, memory, size);
	}
	evpy_counted_leave();
	if (memory == NULL)
		errno = ENOMEM;
	return memory;
}

/* The functions that libevent and this module call. */

static void *evpy_take(int source, size_t size)
{
	void *memory;

	if (__atomic_load_n(&evpy_counting, __ATOMIC_RELAXED))
		return evpy_counted_new(source, size);
	memory = malloc(size);
	return memory != NULL ? memory : evpy_from_aside(size);
}

static void *evpy_resize(int source, void *old, size_t size)
{
	void *memory;

	if (old == NULL)
		return evpy_take(source, size);
	if (__atomic_load_n(&evpy_counting, __ATOMIC_RELAXED))
		return evpy_counted_resize(source, old, size);
	memory = realloc(old, size);
	return memory != NULL ? memory : evpy_grown(old, size);
}

static void evpy_free(void *memory)
{
	if (__atomic_load_n(&evpy_counting, __ATOMIC_RELAXED))
		evpy_counted_free(memory);
	else
		free(memory);
}

static void *evpy_malloc(size_t size)
{
	return evpy_take(EVPY_OURS, size);
}

/* Uses calloc(), which leaves much memory untouched. */
static void *evpy_calloc(size_t n, size_t size)
{
	void *memory;

	if (__atomic_load_n(&evpy_counting, __ATOMIC_RELAXED))
		memory = evpy_take(EVPY_OURS, n * size);
	else if ((memory = calloc(n, size)) != NULL)
		return memory;
	else
		memory = evpy_from_aside(n * size);
	return memory == NULL ? NULL : memset(memory, 0, n * size);
}

static char *evpy_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = evpy_take(EVPY_OURS, size);

	return copy == NULL ? NULL : memcpy(copy, text, size);
}

/* Freeing later.
 *
 * evpy_dns_clear() has libevent free some memory that it goes on using. So while it holds memory back, what this
 * thread frees is only listed, and freed afterwards. The list grows by memory that the caller has put aside. */

static _Thread_local struct {
	int on;
	void **freed;
	size_t count, room;
} evpy_held_back;

/* How many threads do so, to know at once that none does. */
static int evpy_holding_back;

/* List the block instead of freeing it. Without memory for the list, it is never freed. */
static void evpy_hold_back(void *memory)
{
	if (evpy_held_back.count == evpy_held_back.room) {
		size_t room = 2 * evpy_held_back.room + 16;
		void **freed = evpy_resize(EVPY_OURS, evpy_held_back.freed, room * sizeof *freed);

		if (freed == NULL)
			return;
		evpy_held_back.freed = freed;
		evpy_held_back.room = room;
	}
	evpy_held_back.freed[evpy_held_back.count++] = memory;
}

static int evpy_holds_back(void)
{
	return __atomic_load_n(&evpy_holding_back, __ATOMIC_RELAXED) > 0 && evpy_held_back.on;
}

/* What libevent has as its functions. */

static void *evpy_libevent_malloc(size_t size)
{
	return evpy_take(EVPY_LIBEVENT, size);
}

static void *evpy_libevent_realloc(void *old, size_t size)
{
	return evpy_resize(EVPY_LIBEVENT, old, size);
}

static void evpy_libevent_free(void *memory)
{
	if (evpy_holds_back())
		evpy_hold_back(memory);
	else
		evpy_free(memory);
}

/* Somebody else's functions: libevent has them in place of ours, but frees by this one. */
static void (*evpy_others_free)(void *);

static void evpy_libevent_free_by_others(void *memory)
{
	if (evpy_holds_back())
		evpy_hold_back(memory);
	else
		evpy_others_free(memory);
}

/* What is called in place of event_set_mem_functions(): where that gets NULL, our functions are used, which are over
 * malloc(), as libevent's own are. */
static void evpy_set_mem_functions(
    void *(*new)(size_t), void *(*resize)(void *, size_t), void (*release)(void *))
{
	evpy_others_free = release;
	event_set_mem_functions(new != NULL ? new : evpy_libevent_malloc,
	    resize != NULL ? resize : evpy_libevent_realloc,
	    release != NULL ? evpy_libevent_free_by_others : evpy_libevent_free);
}

static void evpy_hold_back_begin(void)
{
	evpy_held_back.on = 1;
	__atomic_add_fetch(&evpy_holding_back, 1, __ATOMIC_RELAXED);
}

static void evpy_hold_back_end(void)
{
	__atomic_sub_fetch(&evpy_holding_back, 1, __ATOMIC_RELAXED);
	evpy_held_back.on = 0;
}

/* Free what has been held back. */
static void evpy_let_go(void)
{
	void (*release)(void *) = evpy_others_free != NULL ? evpy_others_free : evpy_free;

	while (evpy_held_back.count > 0)
		release(evpy_held_back.freed[--evpy_held_back.count]);
	evpy_free(evpy_held_back.freed);
	evpy_held_back.freed = NULL;
	evpy_held_back.room = 0;
}

#if LIBEVENT_PY_HAVE_TLS
/* OpenSSL also asks for 0 bytes, and may resize a block to 0. */

static void *evpy_openssl_malloc(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return size == 0 ? NULL : evpy_counted_new(EVPY_OPENSSL, size);
}

static void evpy_openssl_free(void *memory, const char *file, int line)
{
	(void)file;
	(void)line;
	evpy_counted_free(memory);
}

static void *evpy_openssl_realloc(void *old, size_t size, const char *file, int line)
{
	if (old == NULL)
		return evpy_openssl_malloc(size, file, line);
	if (size == 0) {
		evpy_counted_free(old);
		return NULL;
	}
	return evpy_counted_resize(EVPY_OPENSSL, old, size);
}
#endif

/* Count from now on. */
static int evpy_count_memory(void)
{
	int ready;

	evpy_counted_hold();
	ready = evpy_counted.room > 0 || evpy_table_grow() == 0;
	evpy_counted_leave();
	if (!ready)
		return -1;
	__atomic_store_n(&evpy_counting, 1, __ATOMIC_RELAXED);
	return 0;
}

static int evpy_counts(int source)
{
	return source == EVPY_OPENSSL ? evpy_counting_openssl : evpy_counting;
}

static void evpy_usage(int source, struct evpy_usage *usage)
{
	evpy_counted_hold();
	*usage = evpy_counted.usage[source];
	evpy_counted_leave();
}

/* Write up to `room` of the blocks of `source` to `blocks`, in no order; return how many there are. */
static size_t evpy_live_blocks(int source, struct evpy_block *blocks, size_t room)
{
	size_t found = 0, i;

	evpy_counted_hold();
	for (i = 0; i < evpy_counted.room; ++i) {
		const struct evpy_block *block = &evpy_counted.blocks[i];

		if (block->address == 0 || (source != EVPY_ANY && block->source != source))
			continue;
		if (found < room)
			blocks[found] = *block;
		++found;
	}
	evpy_counted_leave();
	return found;
}

/* Refuse the `nth` allocation from now of `source`, and with `onwards` all after it; none with 0. */
static void evpy_refuse(int source, size_t nth, int onwards)
{
	evpy_counted_hold();
	evpy_counted.refusing.countdown = nth;
	evpy_counted.refusing.source = source;
	evpy_counted.refusing.onwards = onwards;
	__atomic_store_n(
	    &evpy_refusing_all, source == EVPY_ANY && nth == 1 && onwards, __ATOMIC_RELAXED);
	evpy_counted_leave();
}

/* Free what is put aside for the next guards, for tests of what happens when nothing can be. */
static void evpy_asides_forget(void)
{
	size_t i;

	for (i = 0; i < sizeof evpy_spares / sizeof *evpy_spares; ++i) {
		struct evpy_aside *aside =
		    __atomic_exchange_n(&evpy_spares[i], NULL, __ATOMIC_ACQ_REL);

		if (aside != NULL)
			evpy_aside_free(aside);
	}
}

/* Runs when the module is loaded. That is before any lock is made that is held during an allocation, so that this
 * lock is the last one to be taken before a fork(). And it is before Python's next imports use OpenSSL, which
 * accepts other memory functions only before its first allocation. */
__attribute__((constructor)) static void evpy_memory_begin(void)
{
	const char *wanted = getenv("LIBEVENT_PY_COUNT_MEMORY");
	int (*(*asked)(void *(*)(size_t)))(const void *, size_t);

	pthread_atfork(evpy_counted_hold, evpy_counted_leave, evpy_counted_leave);
	*(void **)&asked = dlsym(RTLD_DEFAULT, "libevent_py_refuses");
	if (asked != NULL && (evpy_tracer_refuses = asked(evpy_libevent_malloc)) != NULL)
		evpy_count_memory(); /* so that evpy_admit() is asked */
	evpy_set_mem_functions(NULL, NULL, NULL);
	if (wanted == NULL || *wanted == '\0' || evpy_count_memory() < 0)
		return;
#if LIBEVENT_PY_HAVE_TLS
	evpy_counting_openssl =
	    CRYPTO_set_mem_functions(evpy_openssl_malloc, evpy_openssl_realloc, evpy_openssl_free);
#endif
}

#define event_set_mem_functions evpy_set_mem_functions
