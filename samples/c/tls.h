/* What the samples of TLS share: contexts, which host's certificate is wanted, and the text of errors. */

#ifndef SAMPLE_TLS_H
#define SAMPLE_TLS_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <event2/bufferevent_ssl.h>

#include "sample.h"

__attribute__((noreturn)) static inline void die_of_tls(const char *what)
{
	die("%s: %s", what, ERR_reason_error_string(ERR_peek_last_error()));
}

/* Return the context of a server with a certificate and its key, each in a file. */
static inline SSL_CTX *server_context(const char *certificate, const char *key)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
	    SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		die_of_tls(certificate);
	return context;
}

/* Return the context of a client that trusts the authorities in a file or, with NULL, the system's. */
static inline SSL_CTX *client_context(const char *authorities)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
	    (authorities != NULL ? SSL_CTX_load_verify_locations(context, authorities, NULL)
				 : SSL_CTX_set_default_verify_paths(context)) != 1)
		die_of_tls(authorities != NULL ? authorities : "the system's authorities");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	return context;
}

/* Return a client's session, which wants a certificate for a name or an address; NULL without memory. */
static inline SSL *client_session(SSL_CTX *context, const char *host)
{
	SSL *session = SSL_new(context);

	if (session != NULL && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), host) != 1 &&
	    (SSL_set_tlsext_host_name(session, host) != 1 || SSL_set1_host(session, host) != 1)) {
		SSL_free(session);
		return NULL;
	}
	return session;
}

/* Write to `text` what has ended the TLS of a bufferevent, as its callback for events is called. */
static inline const char *tls_error(struct bufferevent *bev, char text[static 200])
{
	int error = errno;
	unsigned long code = bufferevent_get_openssl_error(bev);
	long verified = SSL_get_verify_result(bufferevent_openssl_get_ssl(bev));

	if (code == 0)
		snprintf(text, 200, "%s", error != 0 ? strerror(error) : "the connection was cut");
	else if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		snprintf(text, 200, "certificate verify failed: %s",
		    X509_verify_cert_error_string(verified));
	else
		snprintf(text, 200, "%s", ERR_reason_error_string(code));
	return text;
}

#endif
