/* Callbacks for OpenSSL, and functions that make and free bufferevents with TLS. */

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#ifndef SSL_OP_IGNORE_UNEXPECTED_EOF /* for OpenSSL before 3, in which an end without a closing notice is no error */
#define SSL_OP_IGNORE_UNEXPECTED_EOF 0
#endif
#ifndef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
#define SSL_OP_ALLOW_CLIENT_RENEGOTIATION 0
#endif
#ifndef SSL_R_UNEXPECTED_EOF_WHILE_READING
#define SSL_R_UNEXPECTED_EOF_WHILE_READING 294
#endif

/* The version of the OpenSSL that libevent_openssl is linked with, or 0: LD_LIBRARY_PATH may have selected a
 * libevent_openssl that was built with another OpenSSL than this module (I4). */
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

/* OpenSSL 3's error for an end without a closing notice: libevent itself reports none for a filter. */
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

static int evpy_tls_use_certificate(
    SSL_CTX *ctx, const char *certificate, const char *key, const char *text, size_t length)
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

/* A server's protocols, in the encoding of a handshake. */
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
	evpy_free(protocols);
}

static CRYPTO_ONCE evpy_protocols_once = CRYPTO_ONCE_STATIC_INIT;
static int evpy_protocols_index = -1;

static void evpy_index_protocols(void)
{
	evpy_protocols_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, evpy_free_protocols);
}

/* Choose the server's first protocol that the client has, too. If they have none in common, the handshake fails:
 * otherwise each would go on with its own protocol (RFC 7301, 3.2). */
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

/* They live as long as OpenSSL's context, which connections keep alive longer than its Python object. */
static int evpy_tls_offer(SSL_CTX *ctx, const unsigned char *names, unsigned length)
{
	struct evpy_protocols *protocols;

	if (!CRYPTO_THREAD_run_once(&evpy_protocols_once, evpy_index_protocols) ||
	    evpy_protocols_index < 0)
		return 0;
	protocols = evpy_malloc(sizeof(*protocols) + length);
	if (protocols == NULL)
		return 0;
	protocols->length = length;
	memcpy(protocols->names, names, length);
	if (!SSL_CTX_set_ex_data(ctx, evpy_protocols_index, protocols)) {
		evpy_free(protocols);
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
	index -= SSL_is_server(ssl); /* at a server, OpenSSL leaves out the peer's own */
	if (index >= sk_X509_num(chain))
		return NULL;
	certificate = sk_X509_value(chain, index);
	X509_up_ref(certificate);
	return certificate;
}

/* libevent's own callbacks below TLS, the same functions for all: for events, and for a handshake. */
static bufferevent_event_cb evpy_tls_event;
static bufferevent_data_cb evpy_tls_handshake;

static void evpy_tls_hide(struct bufferevent *underlying);

static void evpy_on_event_below_tls(struct bufferevent *underlying, short what, void *arg)
{
	struct bufferevent *bev = arg;
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	struct evbuffer *input = NULL;

	if (evbuffer_get_length(underlying->input) > 0)
		input = underlying->input;
	else if (SSL_pending(ssl) > 0)
		input = bev->input;
	if (input == NULL || bev->readcb == NULL || !SSL_is_init_finished(ssl) ||
	    !evpy_hold_the_end(underlying, input, what))
		evpy_tls_event(underlying, what, bev);
}

static void evpy_on_handshake_below_tls(struct bufferevent *underlying, void *bev)
{
	bufferevent_incref(underlying);
	evpy_tls_handshake(underlying, bev);
	if (underlying->errorcb == evpy_tls_event) /* the handshake is done */
		evpy_tls_hide(underlying);
	bufferevent_decref(underlying);
}

/* As with filters, TLS that was just freed must not remove the callbacks of the next one. So we set ours. */
static void evpy_tls_hide(struct bufferevent *underlying)
{
	bufferevent_data_cb read, write;
	void *bev;

	bufferevent_getcb(underlying, &read, &write, &evpy_tls_event, &bev);
	if (read == write) {
		evpy_tls_handshake = read;
		read = write = evpy_on_handshake_below_tls;
	}
	bufferevent_setcb(underlying, read, write, evpy_on_event_below_tls, bev);
}

/* The kernel doesn't report bytes that OpenSSL has read from a record, but not delivered yet. When reading was
 * suspended in the middle of a record - by a watermark, a limit, a group, or by disabling it - and is resumed,
 * libevent 2.1 only waits for the socket again. It doesn't report that it resumes; but it adds ev_read with
 * timeout_read, and both are accessible. So while OpenSSL has such a rest, timeout_read is so short that the loop
 * calls ev_read's callback at once. That is one of ours: it restores the connection's own timeout, and makes
 * libevent read on. */
struct evpy_rest {
	struct bufferevent *bev;
	SSL *ssl;
	event_callback_fn readable, writable; /* libevent's own callbacks */
	struct timeval timeout; /* the connection's own timeout_read */
	int awaited; /* timeout_read has our short timeout */
	int reading; /* libevent's own callback runs */
	int progress; /* it has read something */
	int held; /* writing waits until reading is resumed */
	struct evbuffer_cb_entry *on_input, *on_output;
	BIO *bio;
};

#define EVPY_AT_ONCE 3 /* microseconds; no user sets this timeout */

static void evpy_free_rest(
    void *parent, void *rest, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	(void)parent;
	(void)data;
	(void)index;
	(void)argl;
	(void)argp;
	if (rest != NULL)
		BIO_free(((struct evpy_rest *)rest)->bio);
	evpy_free(rest);
}

static CRYPTO_ONCE evpy_rest_once = CRYPTO_ONCE_STATIC_INIT;
static int evpy_rest_index = -1;

static void evpy_index_rest(void)
{
	evpy_rest_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, evpy_free_rest);
}

/* Our data for `ssl`, made when first needed, which lives as long as `ssl`. */
static struct evpy_rest *evpy_rest_new(SSL *ssl)
{
	struct evpy_rest *rest;

	if (!CRYPTO_THREAD_run_once(&evpy_rest_once, evpy_index_rest) || evpy_rest_index < 0)
		return NULL;
	rest = SSL_get_ex_data(ssl, evpy_rest_index);
	if (rest == NULL) {
		rest = evpy_malloc(sizeof *rest);
		if (rest == NULL || !SSL_set_ex_data(ssl, evpy_rest_index, rest)) {
			evpy_free(rest);
			return NULL;
		}
	} else {
		BIO_free(rest->bio); /* of the bufferevent that the caller's SSL had before */
	}
	memset(rest, 0, sizeof *rest);
	rest->ssl = ssl;
	return rest;
}

/* For each socket libevent makes another BIO, which counts from 0, and then gives what the last one counted back to the
 * limits of the bufferevent: the largest number would wrap around. So the first BIO stays. (For evhttp, which
 * connects by itself, http_client.c sees to that.) */
static void evpy_rest_keep_bio(struct evpy_rest *rest)
{
	BIO *bio = SSL_get_wbio(rest->ssl);
	int fd = -1;

	if (bio == NULL || bio == rest->bio)
		return;
	if (rest->bio == NULL) {
		rest->bio = bio;
	} else {
		BIO_get_fd(bio, &fd);
		BIO_clear_flags(rest->bio, ~0);
		BIO_set_fd(rest->bio, fd, BIO_NOCLOSE);
		SSL_set_bio(rest->ssl, rest->bio, rest->bio);
	}
	BIO_up_ref(rest->bio);
}

static int evpy_is_at_once(const struct timeval *tv)
{
	return tv->tv_sec == 0 && tv->tv_usec == EVPY_AT_ONCE;
}

/* Restore the connection's own timeout. */
static void evpy_rest_leave(struct evpy_rest *rest)
{
	struct event *ev = &rest->bev->ev_read;

	if (!rest->awaited)
		return;
	rest->awaited = 0;
	if (evpy_is_at_once(&rest->bev->timeout_read)) /* else the user has set another meanwhile */
		rest->bev->timeout_read = rest->timeout;
	if (event_pending(ev, EV_READ, NULL) && evpy_is_at_once(&ev->ev_.ev_io.ev_timeout)) {
		event_remove_timer(ev);
		if (evutil_timerisset(&rest->bev->timeout_read))
			event_add(ev, &rest->bev->timeout_read);
	}
}

static void evpy_on_rest(evutil_socket_t fd, short what, void *arg);
static void evpy_on_tls_writable(evutil_socket_t fd, short what, void *arg);

static void evpy_rest_take(struct event *ev, event_callback_fn ours, event_callback_fn *theirs)
{
	event_callback_fn *callback = &ev->ev_evcallback.evcb_cb_union.evcb_callback;

	if (*callback != ours && !(ev->ev_evcallback.evcb_flags & EVLIST_FINALIZING)) {
		*theirs = *callback;
		*callback = ours;
	}
}

/* Install our callbacks: libevent sets its own anew after each handshake, and with each socket. */
static void evpy_rest_hook(struct evpy_rest *rest)
{
	evpy_rest_take(&rest->bev->ev_read, evpy_on_rest, &rest->readable);
	evpy_rest_take(&rest->bev->ev_write, evpy_on_tls_writable, &rest->writable);
}

/* Check whether there is a rest, and make sure that it is read as soon as reading isn't suspended. */
static void evpy_rest_look(struct evpy_rest *rest)
{
	struct bufferevent *bev = rest->bev;
	int progress = rest->progress;

	evpy_rest_hook(rest);
	rest->progress = 0;
	if (!rest->held && !SSL_has_pending(rest->ssl)) {
		evpy_rest_leave(rest);
		return;
	}
	if (!rest->awaited || !evpy_is_at_once(&bev->timeout_read))
		rest->timeout = bev->timeout_read;
	rest->awaited = 1;
	bev->timeout_read.tv_sec = 0;
	bev->timeout_read.tv_usec = EVPY_AT_ONCE;
	/* If nothing could be read, the rest is the beginning of a record whose end is still to come. */
	if (progress && event_pending(&bev->ev_read, EV_READ, NULL))
		event_active(&bev->ev_read, EV_READ, 1);
}

/* Let libevent write again, as reading has been resumed. */
static void evpy_rest_release(struct evpy_rest *rest)
{
	struct bufferevent *bev = rest->bev;

	if (rest->held && event_get_fd(&bev->ev_write) >= 0)
		event_add(&bev->ev_write,
		    evutil_timerisset(&bev->timeout_write) ? &bev->timeout_write : NULL);
	rest->held = 0;
}

/* Replaces libevent's own callback. */
static void evpy_on_rest(evutil_socket_t fd, short what, void *arg)
{
	struct bufferevent *bev = arg;
	struct evpy_rest *rest = SSL_get_ex_data(bufferevent_openssl_get_ssl(bev), evpy_rest_index);

	bufferevent_lock(bev); /* and a reference */
	if (what & EV_TIMEOUT && rest->awaited &&
	    evpy_is_at_once(&bev->ev_read.ev_.ev_io.ev_timeout))
		what = EV_READ;
	evpy_rest_leave(rest);
	evpy_rest_release(rest);
	rest->reading = 1;
	rest->readable(fd, what, arg);
	rest->reading = 0;
	evpy_rest_look(rest);
	bufferevent_unlock(bev);
}

static void evpy_on_tls_input(
    struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct evpy_rest *rest = arg;

	(void)input;
	rest->progress |= info->n_added > 0 || info->n_deleted > 0;
	if (!rest->reading)
		evpy_rest_look(rest);
}

/* Whether reading is suspended: then libevent doesn't begin to read when it is told to. */
static int evpy_tls_is_held_up(struct bufferevent *bev)
{
	int enabled = bev->enabled & EV_READ, held_up;

	if (event_pending(&bev->ev_read, EV_READ, NULL))
		return 0;
	bufferevent_enable(bev, EV_READ);
	held_up = !event_pending(&bev->ev_read, EV_READ, NULL);
	event_del(&bev->ev_read);
	if (!enabled)
		bufferevent_disable(bev, EV_READ);
	return held_up;
}

/* Whether libevent would loop for ever: it reads before it writes if reading has to write, as in a renegotiation, and goes
 * on to read although reading is suspended. Its own handshakes have one callback for both. */
static int evpy_tls_is_stuck(struct evpy_rest *rest)
{
	return SSL_want_write(rest->ssl) && SSL_in_init(rest->ssl) &&
	    rest->readable != rest->writable && evpy_tls_is_held_up(rest->bev);
}

/* The most bytes in a record. */
#define EVPY_RECORD 16384

/* libevent gives OpenSSL each piece of the output separately, which makes a record and a packet of each. The second
 * packet would wait until the peer acknowledges the first, which takes time. So short pieces are joined first, up
 * to the size of a record; of a long piece no more than that is copied. */
static void evpy_on_tls_writable(evutil_socket_t fd, short what, void *arg)
{
	struct bufferevent *bev = arg;
	struct evpy_rest *rest = SSL_get_ex_data(bufferevent_openssl_get_ssl(bev), evpy_rest_index);
	struct evbuffer *output = bev->output;
	size_t size;

	bufferevent_lock(bev);
	if (what & EV_WRITE && evpy_tls_is_stuck(rest)) {
		/* Reading goes on at once when it is resumed, as if there were a rest. */
		event_del(&bev->ev_write);
		rest->held = 1;
		evpy_rest_look(rest);
		bufferevent_unlock(bev);
		return;
	}
	if (evbuffer_peek(output, EVPY_RECORD, NULL, NULL, 0) > 1) {
		size = evbuffer_get_length(output);
		evbuffer_pullup(output, (ev_ssize_t)(size < EVPY_RECORD ? size : EVPY_RECORD));
	}
	rest->writable(fd, what, arg);
	evpy_rest_hook(rest);
	bufferevent_unlock(bev);
}

static void evpy_on_tls_output(
    struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
	(void)output;
	if (info->n_added > 0)
		evpy_rest_hook(arg);
}

/* Forget a bufferevent that is about to be freed. */
static void evpy_rest_forget(struct bufferevent *bev)
{
	struct evpy_rest *rest;

	if (bufferevent_get_underlying(bev) != NULL)
		return;
	rest = SSL_get_ex_data(bufferevent_openssl_get_ssl(bev), evpy_rest_index);
	evpy_buffer_remove_cb(bufferevent_get_input(bev), rest->on_input);
	evpy_buffer_remove_cb(bufferevent_get_output(bev), rest->on_output);
	rest->on_input = rest->on_output = NULL;
}

/* Check again after a function that may have changed the timeout, or the connection. */
static void evpy_tls_look(struct bufferevent *bev)
{
	struct evpy_rest *rest;

	if (bufferevent_get_underlying(bev) != NULL)
		return;
	rest = SSL_get_ex_data(bufferevent_openssl_get_ssl(bev), evpy_rest_index);
	bufferevent_lock(bev);
	evpy_rest_keep_bio(rest);
	evpy_rest_look(rest);
	bufferevent_unlock(bev);
}

/* With TLS or without. If OpenSSL fails, libevent has given it the descriptor, but doesn't use that itself. */
static int evpy_tls_setfd(struct bufferevent *bev, evutil_socket_t fd)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	evutil_socket_t old = bufferevent_getfd(bev);
	int result;

	if (ssl == NULL || bufferevent_get_underlying(bev) != NULL)
		return bufferevent_setfd(bev, fd);
	if (SSL_renegotiate_pending(ssl))
		return EVPY_RENEGOTIATES;
	result = bufferevent_setfd(bev, fd);
	evpy_tls_look(bev);
	if (result < 0 && SSL_get_wbio(ssl) != NULL)
		BIO_set_fd(SSL_get_wbio(ssl), old, BIO_NOCLOSE);
	return result;
}

static void evpy_release_ssl(const void *data, size_t length, void *ssl)
{
	(void)data;
	(void)length;
	SSL_free(ssl);
}

/* Without CLOSE_ON_FREE libevent doesn't free the SSL, and uses it until it frees the bufferevent, in some later turn
 * of the loop (I2). It frees the input then, too, and with it the memory that the input refers to. In the middle of
 * a renegotiation, disabling doesn't always stop the events. */
static void evpy_tls_free(struct bufferevent *bev)
{
	int before = evpy_guard(); /* without the reference, the SSL would leak */

	bufferevent_disable(bev, EV_READ | EV_WRITE);
	event_del(&bev->ev_read);
	event_del(&bev->ev_write);
	evpy_rest_forget(bev);
	evbuffer_add_reference(
	    bufferevent_get_input(bev), "", 1, evpy_release_ssl, bufferevent_openssl_get_ssl(bev));
	evpy_bufferevent_free(bev);
	if (before >= 0)
		evpy_unguard(before);
}

/* The same for one that connected a socket that libevent made (F8). */
static void evpy_tls_free_with_fd(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);

	evpy_tls_free(bev);
	if (fd >= 0)
		evutil_closesocket(fd);
}

/* The same for one that could not be completed; its descriptor still belongs to the caller. */
static void evpy_tls_disown(struct bufferevent *bev, SSL *ssl, int options)
{
	BIO *bio = SSL_get_wbio(ssl);

	if (bio != NULL)
		BIO_set_fd(bio, -1, BIO_NOCLOSE);
	if (options & BEV_OPT_CLOSE_ON_FREE)
		bufferevent_free(bev);
	else
		evpy_tls_free(bev);
}

/* Where OpenSSL writes to a bufferevent below: to its output, whatever the high watermark for writing says. libevent
 * sees to that itself before it writes. Its own BIO takes no more then; and if that comes while OpenSSL reads, as in
 * a renegotiation, and reading is suspended, libevent loops for ever. */
static BIO_METHOD *evpy_tls_below;

static int evpy_on_write_below(BIO *bio, const char *data, int length)
{
	struct bufferevent *underlying = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (length > 0 &&
	    evbuffer_add(bufferevent_get_output(underlying), data, (size_t)length) < 0)
		return -1;
	return length;
}

static long evpy_on_ctrl_below(BIO *bio, int what, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return what == BIO_CTRL_FLUSH || what == BIO_CTRL_DUP;
}

/* Made when first needed, for good. */
static BIO_METHOD *evpy_tls_method_below(void)
{
	BIO_METHOD *none = NULL, *made = __atomic_load_n(&evpy_tls_below, __ATOMIC_ACQUIRE);

	if (made != NULL)
		return made;
	made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bufferevent");
	if (made == NULL)
		return NULL;
	BIO_meth_set_write(made, evpy_on_write_below);
	BIO_meth_set_ctrl(made, evpy_on_ctrl_below);
	if (!__atomic_compare_exchange_n(
		&evpy_tls_below, &none, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		BIO_meth_free(made); /* another thread has made one meanwhile */
		made = none;
	}
	return made;
}

/* Returns 0 if there is no memory. */
static int evpy_tls_write_below(SSL *ssl, struct bufferevent *underlying)
{
	BIO_METHOD *method = evpy_tls_method_below();
	BIO *bio = method == NULL ? NULL : BIO_new(method);

	if (bio == NULL)
		return 0;
	BIO_set_data(bio, underlying);
	BIO_set_init(bio, 1);
	SSL_set0_wbio(ssl, bio);
	return 1;
}

static struct bufferevent *evpy_tls_over(
    struct event_base *base, struct bufferevent *underlying, SSL *ssl, int state, int options)
{
	struct bufferevent *bev;
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *arg;
	short enabled = bufferevent_get_enabled(underlying);
	int before = evpy_guard();

	if (before < 0)
		return NULL;
	SSL_up_ref(ssl);
	bufferevent_getcb(underlying, &read, &write, &event, &arg);
	bev = bufferevent_openssl_filter_new(base, underlying, ssl, state, options);
	if (bev == NULL && !(options & BEV_OPT_CLOSE_ON_FREE))
		SSL_free(ssl);
	if (bev != NULL && (evpy_missed(before) || !evpy_tls_write_below(ssl, underlying))) {
		evpy_tls_free(bev);
		bev = NULL;
		errno = ENOMEM;
	}
	if (bev == NULL) {
		bufferevent_setcb(underlying, read, write, event, arg);
		bufferevent_disable(underlying, (EV_READ | EV_WRITE) & ~enabled);
	}
	evpy_unguard(before);
	if (bev == NULL)
		return NULL;
	evpy_tls_hide(underlying);
	if (state != BUFFEREVENT_SSL_OPEN) /* a pair would wait for the other side to begin */
		bufferevent_trigger(
		    underlying, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	return bev;
}

/* The same, after an interrupt. With CLOSE_ON_FREE libevent frees the SSL. */
static void evpy_tls_free_without_fd(struct bufferevent *bev)
{
	evpy_rest_forget(bev);
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	event_del(&bev->ev_read);
	event_del(&bev->ev_write);
	evpy_tls_disown(bev, bufferevent_openssl_get_ssl(bev), BEV_OPT_CLOSE_ON_FREE);
}

/* Makes a bufferevent that owns `ssl`; the caller keeps its own reference. With CLOSE_ON_FREE libevent frees the SSL
 * itself, at once if it fails (I1); without, evpy_tls_free() frees it with the bufferevent. Without memory for half
 * of this, libevent crashes; and it doesn't check whether OpenSSL could connect the SSL with the socket. */
static struct bufferevent *evpy_tls_new(struct event_base *base, struct bufferevent *underlying,
    evutil_socket_t fd, SSL *ssl, int state, int options)
{
	struct bufferevent *bev;
	struct evpy_rest *rest;
	int before;

	if (underlying != NULL)
		return evpy_tls_over(base, underlying, ssl, state, options);
	if ((rest = evpy_rest_new(ssl)) == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	before = evpy_guard();
	if (before < 0)
		return NULL;
	SSL_up_ref(ssl);
	bev = bufferevent_openssl_socket_new(base, fd, ssl, state, options);
	if (bev == NULL && !(options & BEV_OPT_CLOSE_ON_FREE))
		SSL_free(ssl);
	if (bev != NULL) {
		/* Otherwise it would read data together with the end of the handshake. */
		SSL_set_read_ahead(ssl, 0);
		rest->bev = bev;
		evpy_rest_keep_bio(rest);
		rest->on_input = evbuffer_add_cb(bev->input, evpy_on_tls_input, rest);
		rest->on_output = evbuffer_add_cb(bev->output, evpy_on_tls_output, rest);
		if (rest->on_input == NULL || rest->on_output == NULL || evpy_missed(before) ||
		    (fd >= 0 && SSL_get_wbio(ssl) == NULL)) {
			evpy_tls_disown(bev, ssl, options);
			bev = NULL;
			errno = ENOMEM;
		}
	}
	evpy_unguard(before);
	if (bev != NULL)
		evpy_rest_look(rest);
	return bev;
}

/* Give the caller a reference of its own. */
static SSL *evpy_tls_hold(SSL *ssl)
{
	SSL_up_ref(ssl);
	return ssl;
}

/* The caller gets its own reference. */
static SSL *evpy_tls_ssl(struct bufferevent *bev)
{
	return evpy_tls_hold(bufferevent_openssl_get_ssl(bev));
}

/* Whether there was a connection for TLS. */
static int evpy_tls_reached(struct bufferevent *bev)
{
	evutil_socket_t fd = bufferevent_getfd(bev);
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	return fd < 0 || getpeername(fd, (struct sockaddr *)&address, &length) == 0;
}
