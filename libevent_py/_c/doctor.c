/* For the doctor: where code was loaded from, and what libevent does to memory. */

#include <dlfcn.h>
#include <sys/mman.h>

/* Found by the address of a symbol in it, so this is the file in use, even if there are others. */
static const char *evpy_file_of(const char *part)
{
	static const int here;
	const struct {
		const char *part;
		const void *address;
	} parts[] = {
	    {"extension", &here},
	    {"event_core", (void *)event_base_new},
	    {"event_extra", (void *)evhttp_new},
	    {"event_pthreads", (void *)evthread_use_pthreads},
#if LIBEVENT_PY_HAVE_OPENSSL
	    {"event_openssl", (void *)bufferevent_openssl_get_ssl},
#endif
#if LIBEVENT_PY_HAVE_TLS
	    {"ssl", (void *)SSL_new},
#endif
	};
	Dl_info info;
	size_t i;

	for (i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strcmp(parts[i].part, part) == 0 && dladdr(parts[i].address, &info))
			return info.dli_fname;
	return NULL;
}

/* The name and version of the loaded OpenSSL, or of its replacement; NULL without one. */
static const char *evpy_openssl(void)
{
#if LIBEVENT_PY_HAVE_TLS
	return OpenSSL_version(OPENSSL_VERSION);
#else
	return NULL;
#endif
}

/* Memory for probes, in another process. Nothing is freed, and each block is longer than libevent asked
 * for: so a use after free, a double free or an overrun does no harm, and can be detected. */

#define EVPY_MARGIN 256
#define EVPY_UNTOUCHED 0x5A

static struct {
	unsigned char *memory;
	size_t size;
	int frees;
} evpy_blocks[4096];
static size_t evpy_n_blocks;

static void *evpy_memory_new(size_t size)
{
	unsigned char *memory = malloc(size + EVPY_MARGIN);

	if (memory == NULL || evpy_n_blocks == sizeof evpy_blocks / sizeof *evpy_blocks) {
		free(memory);
		return NULL;
	}
	memset(memory + size, EVPY_UNTOUCHED, EVPY_MARGIN);
	evpy_blocks[evpy_n_blocks].memory = memory;
	evpy_blocks[evpy_n_blocks++].size = size;
	return memory;
}

/* Memory from before evpy_memory_keep() is not in the list, and is left alone. */
static void evpy_memory_free(void *memory)
{
	size_t i;

	for (i = 0; i < evpy_n_blocks; i++)
		if (evpy_blocks[i].memory == memory)
			evpy_blocks[i].frees++;
}

static void *evpy_memory_resize(void *old, size_t size)
{
	void *memory;
	size_t i;

	for (i = 0; i < evpy_n_blocks && evpy_blocks[i].memory != old; i++)
		;
	if (old != NULL && i == evpy_n_blocks)
		return realloc(old, size);
	if ((memory = evpy_memory_new(size)) != NULL && old != NULL) {
		memcpy(memory, old, size < evpy_blocks[i].size ? size : evpy_blocks[i].size);
		evpy_blocks[i].frees++;
	}
	return memory;
}

static void evpy_memory_keep(void)
{
	event_set_mem_functions(evpy_memory_new, evpy_memory_resize, evpy_memory_free);
}

static int evpy_memory_freed_twice(void)
{
	size_t i;

	for (i = 0; i < evpy_n_blocks && evpy_blocks[i].frees < 2; i++)
		;
	return i < evpy_n_blocks;
}

static int evpy_memory_overrun(void)
{
	size_t i, byte;

	for (i = 0; i < evpy_n_blocks; i++)
		for (byte = 0; byte < EVPY_MARGIN; byte++)
			if (evpy_blocks[i].memory[evpy_blocks[i].size + byte] != EVPY_UNTOUCHED)
				return 1;
	return 0;
}

/* Whether the kernel has provided the page, as it does when it is first read; -1 if unknown. */
static int evpy_page_is_touched(void *page, size_t size)
{
	unsigned char resident;

	return mincore(page, size, (void *)&resident) == 0 ? resident & 1 : -1;
}
