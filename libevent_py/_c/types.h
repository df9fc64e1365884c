/* Ours: the types that libevent's declarations use. Macros in util.h become typedefs; the compiler
 * completes types that the system defines. */
typedef int8_t ev_int8_t;
typedef uint8_t ev_uint8_t;
typedef int16_t ev_int16_t;
typedef uint16_t ev_uint16_t;
typedef int32_t ev_int32_t;
typedef uint32_t ev_uint32_t;
typedef int64_t ev_int64_t;
typedef uint64_t ev_uint64_t;
typedef intptr_t ev_intptr_t;
typedef uintptr_t ev_uintptr_t;
typedef ssize_t ev_ssize_t;
typedef int... ev_off_t;
typedef int... ev_socklen_t;
typedef int... evutil_socket_t;

typedef int... time_t;
typedef int... suseconds_t;
typedef int... sa_family_t;
typedef int... in_port_t;
typedef int... in_addr_t;

struct timeval {
	time_t tv_sec;
	suseconds_t tv_usec;
};

struct tm {
	int tm_sec;
	int tm_min;
	int tm_hour;
	int tm_mday;
	int tm_mon;
	int tm_year;
	int tm_wday;
	int tm_yday;
	int tm_isdst;
	...;
};

struct sockaddr {
	sa_family_t sa_family;
	char sa_data[14];
	...;
};

struct sockaddr_storage {
	sa_family_t ss_family;
	...;
};

struct in_addr {
	in_addr_t s_addr;
	...;
};

struct in6_addr {
	uint8_t s6_addr[16];
	...;
};

struct sockaddr_in {
	sa_family_t sin_family;
	in_port_t sin_port;
	struct in_addr sin_addr;
	...;
};

struct sockaddr_in6 {
	sa_family_t sin6_family;
	in_port_t sin6_port;
	uint32_t sin6_flowinfo;
	struct in6_addr sin6_addr;
	uint32_t sin6_scope_id;
	...;
};

struct sockaddr_un {
	sa_family_t sun_family;
	char sun_path[...];
	...;
};

/* Macros for struct addrinfo and struct iovec. */
struct evutil_addrinfo {
	int ai_flags;
	int ai_family;
	int ai_socktype;
	int ai_protocol;
	ev_socklen_t ai_addrlen;
	char *ai_canonname;
	struct sockaddr *ai_addr;
	struct evutil_addrinfo *ai_next;
	...;
};

struct evbuffer_iovec {
	void *iov_base;
	size_t iov_len;
	...;
};

/* Frees memory that libevent returns: a line, a decoded URI. */
void free(void *);

/* 1 when this module was built with libevent_openssl. */
#define LIBEVENT_PY_HAVE_OPENSSL ...

/* 1 when it was built with OpenSSL too: then TlsContext works. */
#define LIBEVENT_PY_HAVE_TLS ...
