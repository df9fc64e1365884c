/* An HTTPS server that greets its clients, and says which TLS version and cipher they use. */

#include "tls.h"
#include "web.h"

static void greet(struct evhttp_request *request, void *arg)
{
	struct evhttp_connection *client = evhttp_request_get_connection(request);
	SSL *ssl = bufferevent_openssl_get_ssl(evhttp_connection_get_bufferevent(client));

	(void)arg;
	evbuffer_add_printf(evhttp_request_get_output_buffer(request),
	    "Hello, World, by %s with %s!\n", SSL_get_version(ssl), SSL_get_cipher_name(ssl));
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

static struct bufferevent *secured(struct event_base *base, void *context)
{
	SSL *ssl = need(SSL_new(context), "SSL_new");

	/* never NULL, or libevent would speak without TLS; deferred, or bytes would be left in OpenSSL */
	return need(bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS),
	    "bufferevent_openssl_socket_new");
}

int main(int argc, char **argv)
{
	struct timeval timeout = {10, 0};
	SSL_CTX *context;
	struct event_base *base;
	struct evhttp *server;
	evutil_socket_t fd;
	struct event *interrupt;

	start(argc, argv, 3, 4, "host port certificate.pem [key.pem]");
	context = server_context(argv[3], argument(argv, 4, argv[3]));
	base = need(event_base_new(), "event_base_new");
	server = need(evhttp_new(base), "evhttp_new");
	evhttp_set_timeout_tv(server, &timeout);
	evhttp_set_bevcb(server, secured, context);
	evhttp_set_gencb(server, greet, NULL);
	fd = serve_on(server, argv[1], argv[2]);
	interrupt = stop_on_interrupt(base);
	print_serving(fd);
	event_base_dispatch(base);
	event_free(interrupt);
	evhttp_free(server);
	event_base_free(base);
	SSL_CTX_free(context);
	return 0;
}
