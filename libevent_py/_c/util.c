_Static_assert(
    EVENT__SIZEOF_SIZE_T == sizeof(size_t) && EVENT__SIZEOF_OFF_T == sizeof(off_t),
    "vendor/include/event2/event-config.h is another machine's: delete vendor/include");

/* libevent has no such function where the C library's arc4random() takes no seed, and a build of it
 * with the function can be exchanged at run time for one without. */
#ifdef __APPLE__
__attribute__((weak_import))
#else
__attribute__((weak))
#endif
void evutil_secure_rng_add_bytes(const char *dat, size_t datlen);

static int evpy_has_secure_rng_add_bytes(void)
{
	return evutil_secure_rng_add_bytes != NULL;
}

static void evpy_secure_rng_add_bytes(const char *dat, size_t datlen)
{
	if (evpy_has_secure_rng_add_bytes())
		evutil_secure_rng_add_bytes(dat, datlen);
	else
		errno = ENOSYS;
}

#define evutil_secure_rng_add_bytes evpy_secure_rng_add_bytes
