/* Ours. */

/* The part of OpenSSL that we need: contexts and connections must come from the very library that
 * libevent_openssl uses (I4); those of Python's ssl module may not. */

#define OPENSSL_VERSION_NUMBER ...
#define SSL_ERROR_SSL ...
#define SSL_ERROR_SYSCALL ...
#define SSL_MODE_RELEASE_BUFFERS ...
#define SSL_OP_ALLOW_CLIENT_RENEGOTIATION ...
#define SSL_OP_IGNORE_UNEXPECTED_EOF ...
#define SSL_SENT_SHUTDOWN ...
#define SSL_RECEIVED_SHUTDOWN ...
#define SSL_VERIFY_FAIL_IF_NO_PEER_CERT ...
#define SSL_VERIFY_PEER ...
#define TLS1_VERSION ...
#define TLS1_1_VERSION ...
#define TLS1_2_VERSION ...
#define TLS1_3_VERSION ...
#define TLSEXT_NAMETYPE_host_name ...
#define X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS ...

struct ssl_ctx_st;
struct ssl_cipher_st;
struct ssl_method_st;
struct x509_st;
struct X509_VERIFY_PARAM_st;

const struct ssl_method_st *TLS_client_method(void);
const struct ssl_method_st *TLS_server_method(void);

struct ssl_ctx_st *SSL_CTX_new(const struct ssl_method_st *method);
void SSL_CTX_free(struct ssl_ctx_st *ctx);
uint64_t SSL_CTX_set_options(struct ssl_ctx_st *ctx, uint64_t options);
long SSL_CTX_set_mode(struct ssl_ctx_st *ctx, long mode);
int SSL_CTX_set_min_proto_version(struct ssl_ctx_st *ctx, int version);
int SSL_CTX_set_max_proto_version(struct ssl_ctx_st *ctx, int version);
int SSL_CTX_set_cipher_list(struct ssl_ctx_st *ctx, const char *names);
int SSL_CTX_set_ciphersuites(struct ssl_ctx_st *ctx, const char *names);
int SSL_CTX_load_verify_locations(struct ssl_ctx_st *ctx, const char *file, const char *path);
int SSL_CTX_set_default_verify_paths(struct ssl_ctx_st *ctx);
int SSL_CTX_set_session_id_context(
    struct ssl_ctx_st *ctx, const unsigned char *context, unsigned length);
int SSL_CTX_set_alpn_protos(
    struct ssl_ctx_st *ctx, const unsigned char *protocols, unsigned length);

struct ssl_st *SSL_new(struct ssl_ctx_st *ctx);
int SSL_up_ref(struct ssl_st *ssl);
void SSL_free(struct ssl_st *ssl);
uint64_t SSL_set_options(struct ssl_st *ssl, uint64_t options);
uint64_t SSL_clear_options(struct ssl_st *ssl, uint64_t options);
long SSL_set_tlsext_host_name(struct ssl_st *ssl, const char *name);
struct X509_VERIFY_PARAM_st *SSL_get0_param(struct ssl_st *ssl);
void X509_VERIFY_PARAM_set_hostflags(struct X509_VERIFY_PARAM_st *param, unsigned flags);
int X509_VERIFY_PARAM_set1_host(
    struct X509_VERIFY_PARAM_st *param, const char *name, size_t length);
int X509_VERIFY_PARAM_set1_ip(
    struct X509_VERIFY_PARAM_st *param, const unsigned char *ip, size_t length);

int SSL_is_init_finished(const struct ssl_st *ssl);
int SSL_version(const struct ssl_st *ssl);
const char *SSL_get_version(const struct ssl_st *ssl);
const struct ssl_cipher_st *SSL_get_current_cipher(const struct ssl_st *ssl);
const char *SSL_CIPHER_get_name(const struct ssl_cipher_st *cipher);
const char *SSL_CIPHER_get_version(const struct ssl_cipher_st *cipher);
int SSL_CIPHER_get_bits(const struct ssl_cipher_st *cipher, int *algorithm);
const char *SSL_get_servername(const struct ssl_st *ssl, int type);
void SSL_get0_alpn_selected(
    const struct ssl_st *ssl, const unsigned char **protocol, unsigned *length);
int SSL_session_reused(const struct ssl_st *ssl);
long SSL_get_verify_result(const struct ssl_st *ssl);
const char *X509_verify_cert_error_string(long code);
int SSL_renegotiate(struct ssl_st *ssl);
int SSL_shutdown(struct ssl_st *ssl);
int SSL_get_shutdown(const struct ssl_st *ssl);
int i2d_X509(const struct x509_st *certificate, unsigned char **der);
void X509_free(struct x509_st *certificate);

void ERR_clear_error(void);
unsigned long ERR_get_error(void);
void ERR_error_string_n(unsigned long code, char *text, size_t size);

unsigned long evpy_tls_linked(void);
unsigned long evpy_tls_eof(void);
int evpy_tls_is_code(unsigned long error);
void evpy_tls_set_verify(struct ssl_ctx_st *ctx, int mode);
int evpy_tls_use_certificate(struct ssl_ctx_st *ctx, const char *certificate, const char *key,
    const char *password, size_t length);
int evpy_tls_offer(struct ssl_ctx_st *ctx, const unsigned char *protocols, unsigned length);
struct x509_st *evpy_tls_peer(const struct ssl_st *ssl, int index);
struct bufferevent *evpy_tls_new(struct event_base *base, struct bufferevent *underlying,
    evutil_socket_t fd, struct ssl_st *ssl, int state, int options);
struct ssl_st *evpy_tls_hold(struct ssl_st *ssl);
struct ssl_st *evpy_tls_ssl(struct bufferevent *bev);
void evpy_tls_look(struct bufferevent *bev);
int evpy_tls_reached(struct bufferevent *bev);
void evpy_tls_free(struct bufferevent *bev);
void evpy_tls_free_with_fd(struct bufferevent *bev);
void evpy_tls_free_without_fd(struct bufferevent *bev);
