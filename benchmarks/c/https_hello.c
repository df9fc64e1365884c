/* "Hello, World!" over HTTPS, on the certificate and the key of a file: `https_hello PEM`. */
#include <netinet/tcp.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <openssl/ssl.h>

#include "http_server.h"

static void hello(struct evhttp_request *request, void *arg)
{
	evbuffer_add(evhttp_request_get_output_buffer(request), "Hello, World!", 13);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

static struct bufferevent *secured(struct event_base *base, void *context)
{
	return bufferevent_openssl_socket_new(base, -1, SSL_new(context), BUFFEREVENT_SSL_ACCEPTING,
	    BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
}

static void hurry(struct evhttp_bound_socket *bound, void *arg)
{
	int on = 1;

	setsockopt(evhttp_bound_socket_get_fd(bound), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	struct evhttp *server;

	if (argc < 2 || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, argv[1], SSL_FILETYPE_PEM) != 1)
		abort();
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
	server = serve_on_loopback(base, hello);
	evhttp_set_bevcb(server, secured, context);
	evhttp_foreach_bound_socket(server, hurry, NULL);
	return event_base_dispatch(base);
}
