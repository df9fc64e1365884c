/* What TLS needs of OpenSSL by callbacks, and the making and freeing of its bufferevents. */

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#ifndef SSL_OP_IGNORE_UNEXPECTED_EOF /* before OpenSSL 3, where an end without notice is no error */
#define SSL_OP_IGNORE_UNEXPECTED_EOF 0
#endif
#ifndef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
#define SSL_OP_ALLOW_CLIENT_RENEGOTIATION 0
#endif
#ifndef SSL_R_UNEXPECTED_EOF_WHILE_READING
#define SSL_R_UNEXPECTED_EOF_WHILE_READING 294
#endif

/* The version of the OpenSSL that libevent_openssl is linked with, or 0: LD_LIBRARY_PATH may have
 * put one in its place that was built with another OpenSSL than this module (I4). */
static unsigned long evpy_tls_linked(void)
{
	Dl_info info;
	void *library;
	unsigned long (*version)(void) = NULL;

	if (!dladdr((void *)bufferevent_openssl_socket_new, &info))
		return 0;
	library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
	if (library == NULL)
		return 0;
	*(void **)&version = dlsym(library, "OpenSSL_version_num");
	dlclose(library);
	return version == NULL ? 0 : version();
}

/* What OpenSSL 3 says of an end without notice: libevent itself ends a filter without a word. */
static unsigned long evpy_tls_eof(void)
{
	return ERR_PACK(ERR_LIB_SSL, 0, SSL_R_UNEXPECTED_EOF_WHILE_READING);
}

/* libevent keeps SSL_get_error()'s result among the codes (I8). */
static int evpy_tls_is_code(unsigned long error)
{
	return ERR_GET_LIB(error) != 0;
}

static void evpy_tls_set_verify(SSL_CTX *ctx, int mode)
{
	SSL_CTX_set_verify(ctx, mode, NULL);
}

struct evpy_password {
	const char *text;
	size_t length;
};

/* Without this, OpenSSL asks for the password at the terminal. */
static int evpy_on_password(char *space, int size, int writing, void *arg)
{
	const struct evpy_password *password = arg;

	(void)writing;
	if (password == NULL || password->text == NULL || password->length > (size_t)size)
		return -1;
	memcpy(space, password->text, password->length);
	return (int)password->length;
}

static int evpy_tls_use_certificate(SSL_CTX *ctx, const char *certificate, const char *key,
    const char *text, size_t length)
{
	struct evpy_password password = {text, length};
	int done;

	SSL_CTX_set_default_passwd_cb(ctx, evpy_on_password);
	SSL_CTX_set_default_passwd_cb_userdata(ctx, &password);
	done = SSL_CTX_use_certificate_chain_file(ctx, certificate) == 1 &&
	    SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1 &&
	    SSL_CTX_check_private_key(ctx) == 1;
	SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
	return done;
}

/* A server's protocols, as they stand in a handshake. */
struct evpy_protocols {
	unsigned length;
	unsigned char names[];
};

static void evpy_free_protocols(
    void *parent, void *protocols, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	(void)parent;
	(void)data;
	(void)index;
	(void)argl;
	(void)argp;
	free(protocols);
}

static CRYPTO_ONCE evpy_protocols_once = CRYPTO_ONCE_STATIC_INIT;
static int evpy_protocols_index = -1;

static void evpy_index_protocols(void)
{
	evpy_protocols_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, evpy_free_protocols);
}

/* The server's first choice among the client's. That they have none in common ends the handshake:
 * otherwise each would go on with a protocol of its own (RFC 7301, 3.2). */
static int evpy_on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *length,
    const unsigned char *offered, unsigned size, void *arg)
{
	const struct evpy_protocols *protocols = arg;
	unsigned char *found;

	(void)ssl;
	if (SSL_select_next_proto(&found, length, protocols->names, protocols->length, offered,
		size) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*chosen = found;
	return SSL_TLSEXT_ERR_OK;
}

/* They live as long as the context, which connections keep longer than its Python object does. */
static int evpy_tls_offer(SSL_CTX *ctx, const unsigned char *names, unsigned length)
{
	struct evpy_protocols *protocols;

	if (!CRYPTO_THREAD_run_once(&evpy_protocols_once, evpy_index_protocols) ||
	    evpy_protocols_index < 0)
		return 0;
	protocols = malloc(sizeof(*protocols) + length);
	if (protocols == NULL)
		return 0;
	protocols->length = length;
	memcpy(protocols->names, names, length);
	if (!SSL_CTX_set_ex_data(ctx, evpy_protocols_index, protocols)) {
		free(protocols);
		return 0;
	}
	SSL_CTX_set_alpn_select_cb(ctx, evpy_on_alpn, protocols);
	return 1;
}

/* The certificates that the peer has sent, its own first; the caller frees them. */
static X509 *evpy_tls_peer(const SSL *ssl, int index)
{
	STACK_OF(X509) *chain;
	X509 *certificate;

	if (index == 0)
		return SSL_get_peer_certificate(ssl);
	chain = SSL_get_peer_cert_chain(ssl);
	index -= SSL_is_server(ssl); /* there OpenSSL leaves the peer's own out */
	if (index >= sk_X509_num(chain))
		return NULL;
	certificate = sk_X509_value(chain, index);
	X509_up_ref(certificate);
	return certificate;
}

/* libevent's own callback for events below TLS, which is the same for all. */
static bufferevent_event_cb evpy_tls_event;

static void evpy_on_event_below_tls(struct bufferevent *underlying, short what, void *bev)
{
	evpy_tls_event(underlying, what, bev);
}

/* As with filters, one that was freed a moment ago must not take the next one's callbacks away: it finds
 * ours, until a handshake is done, and by then is unlinked. */
static void evpy_tls_hide(struct bufferevent *underlying)
{
	bufferevent_data_cb read, write;
	void *arg;

	bufferevent_getcb(underlying, &read, &write, &evpy_tls_event, &arg);
	bufferevent_setcb(underlying, read, write, evpy_on_event_below_tls, arg);
}

/* Makes a bufferevent that owns `ssl`; the caller keeps a reference of its own. With CLOSE_ON_FREE
 * libevent frees the SSL itself, and does so at once when it fails (I1); without, it lets the SSL
 * go with the bufferevent, which is what evpy_tls_free() is for. */
static struct bufferevent *evpy_tls_new(struct event_base *base, struct bufferevent *underlying,
    evutil_socket_t fd, SSL *ssl, int state, int options)
{
	struct bufferevent *bev;

	SSL_up_ref(ssl);
	if (underlying != NULL)
		bev = bufferevent_openssl_filter_new(base, underlying, ssl, state, options);
	else
		bev = bufferevent_openssl_socket_new(base, fd, ssl, state, options);
	if (bev == NULL && !(options & BEV_OPT_CLOSE_ON_FREE))
		SSL_free(ssl);
	if (bev != NULL && underlying != NULL) {
		evpy_tls_hide(underlying);
		if (state != BUFFEREVENT_SSL_OPEN) /* a pair would wait for the other side to begin */
			bufferevent_trigger(underlying, EV_WRITE,
			    BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	}
	return bev;
}

/* Tells whether there was a connection for TLS to go through. */
static int evpy_tls_reached(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	return fd < 0 || getpeername(fd, (struct sockaddr *)&address, &length) == 0;
}

static void evpy_release_ssl(const void *data, size_t length, void *ssl)
{
	(void)data;
	(void)length;
	SSL_free(ssl);
}

/* Without CLOSE_ON_FREE nobody frees the SSL, which libevent uses until it frees the bufferevent,
 * in some later turn of the loop (I2); it frees the input with it, and so what the input refers to.
 * Nor does disabling always stop the events, in the midst of a renegotiation. */
static void evpy_tls_free(struct bufferevent *bev)
{
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	event_del(&bev->ev_read);
	event_del(&bev->ev_write);
	evbuffer_add_reference(bufferevent_get_input(bev), "", 1, evpy_release_ssl,
	    bufferevent_openssl_get_ssl(bev));
	evpy_bufferevent_free(bev);
}

/* The same for one that connected a socket of its own making (F8). */
static void evpy_tls_free_with_fd(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);

	evpy_tls_free(bev);
	if (fd >= 0)
		evutil_closesocket(fd);
}
