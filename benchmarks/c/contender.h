/* What every C contender shares: how the runner asks for a sample, and the meters. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

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
