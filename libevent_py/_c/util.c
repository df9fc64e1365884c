_Static_assert(EVENT__SIZEOF_SIZE_T == sizeof(size_t) && EVENT__SIZEOF_OFF_T == sizeof(off_t),
    "vendor/include/event2/event-config.h is another machine's: delete vendor/include");

/* libevent lacks this function if the C library's arc4random() takes no seed; and at run time, a build with
 * the function may be replaced by one without it. */
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

/* The length of a socket's own name, or of its peer's, or -1. */
static int evpy_socket_name(evutil_socket_t fd, int peer, struct sockaddr *address, int size)
{
	struct sockaddr_storage storage;
	ev_socklen_t length = sizeof storage;
	struct sockaddr *found = (struct sockaddr *)&storage;

	memset(&storage, 0, sizeof storage);
	if ((peer ? getpeername(fd, found, &length) : getsockname(fd, found, &length)) < 0)
		return -1;
	if (length > sizeof storage)
		length = sizeof storage;
	if (address != NULL)
		memcpy(address, found, (int)length < size ? (size_t)length : (size_t)size);
	return (int)length;
}

/* 1 where the text is no address: -1 would be taken for a failure of the system. */
static int evpy_parse_sockaddr_port(const char *text, struct sockaddr *out, int *length)
{
	return evutil_parse_sockaddr_port(text, out, length) != 0;
}

static void evpy_secure_rng_add_bytes(const char *dat, size_t datlen)
{
	if (evpy_has_secure_rng_add_bytes())
		evutil_secure_rng_add_bytes(dat, datlen);
	else
		errno = ENOSYS;
}

#define evutil_secure_rng_add_bytes evpy_secure_rng_add_bytes
