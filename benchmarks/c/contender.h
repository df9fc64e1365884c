/* What every C contender shares: how the runner asks for a sample, and the meters. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

/* A program as small as a twin gives its whole heap back to the system again and again, and pays for
 * each page that it gets anew: up to ten times what an operation takes. A Python process never does. */
__attribute__((constructor)) static void keep_memory(void)
{
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, 1 << 26);
}

static inline long long processor_time(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline long long resident_bytes(void)
{
	long long size, resident;
	FILE *statm = fopen("/proc/self/statm", "r");
	if (statm == NULL || fscanf(statm, "%lld %lld", &size, &resident) != 2)
		abort();
	fclose(statm);
	return resident * sysconf(_SC_PAGESIZE);
}

static inline int next_count(long *count)
{
	return scanf("%ld", count) == 1;
}

static inline void say_port(int port)
{
	printf("%d\n", port);
	fflush(stdout);
}

static inline void answer(long long amount, long operations)
{
	printf("%lld %ld\n", amount, operations);
	fflush(stdout);
}

static inline struct event_base *new_base(void)
{
	struct event_base *base = event_base_new();
	if (base == NULL)
		abort();
	return base;
}
