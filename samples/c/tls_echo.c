/* A TLS server that sends back what it gets, and a client that joins it with stdin and stdout.
 *
 * The client trusts the authorities in a file, or the system's, and only a server whose certificate is for the given
 * name. Both send TLS's closing notice when they have finished: an end without it is an error, because the connection
 * may have been cut. */

#include <unistd.h>

#include <event2/buffer.h>

#include "tls.h"

#define OPTIONS (BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS)

/* How many bytes of answers may wait for a client. */
#define MOST 65536

struct server {
	struct event_base *base;
	SSL_CTX *context;
	struct connections clients;
};

/* The server. */

static void client_free(struct connection *client)
{
	SSL_shutdown(bufferevent_openssl_get_ssl(client->bev));
	connection_free(client);
}

static void on_read(struct bufferevent *bev, void *client)
{
	(void)client;
	bufferevent_write_buffer(bev, bufferevent_get_input(bev));
	if (evbuffer_get_length(bufferevent_get_output(bev)) > MOST)
		bufferevent_disable(bev, EV_READ);
}

static void on_write(struct bufferevent *bev, void *client)
{
	(void)client;
	bufferevent_enable(bev, EV_READ);
}

static void on_all_sent(struct bufferevent *bev, void *client)
{
	(void)bev;
	client_free(client);
}

static void on_end(struct bufferevent *bev, short what, void *client)
{
	(void)bev, (void)what;
	connection_free(client);
}

static void on_event(struct bufferevent *bev, short what, void *client)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	char text[200];

	if (what & BEV_EVENT_CONNECTED) {
		printf("%s %s\n", SSL_get_version(ssl), SSL_get_cipher_name(ssl));
	} else if (!(what & BEV_EVENT_EOF)) {
		printf("%s\n", tls_error(bev, text));
		connection_free(client);
	} else {
		printf("a client has finished\n");
		if (evbuffer_get_length(bufferevent_get_output(bev)) > 0)
			bufferevent_setcb(bev, NULL, on_all_sent, on_end, client);
		else
			client_free(client);
	}
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
    int length, void *arg)
{
	struct server *server = arg;
	SSL *ssl = SSL_new(server->context);
	struct bufferevent *bev = NULL;
	struct connection *client;

	(void)listener, (void)address, (void)length;
	if (ssl != NULL)
		bev = bufferevent_openssl_socket_new(
		    server->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, OPTIONS);
	client = connection_of(&server->clients, sizeof *client, bev, fd);
	if (client == NULL)
		return;
	bufferevent_setcb(bev, on_read, on_write, on_event, client);
	bufferevent_enable(bev, EV_READ);
}

static void serve(struct event_base *base, char **argv)
{
	struct server server = {base, .clients = LIST_HEAD_INITIALIZER(server.clients)};
	struct evconnlistener *listener;
	struct event *interrupt;

	server.context = server_context(argv[4], argument(argv, 5, argv[4]));
	listener = listen_on(base, argv[1], argv[2], on_accept, &server);
	interrupt = stop_on_interrupt(base);
	print_serving(evconnlistener_get_fd(listener));
	event_base_dispatch(base);
	event_free(interrupt);
	evconnlistener_free(listener);
	connections_free(&server.clients);
	SSL_CTX_free(server.context);
}

/* The client. */

struct client {
	struct event_base *base;
	struct event *stdin_readable;
	struct bufferevent *bev;
	char failure[200]; /* what has ended it, or nothing */
};

static void on_stdin(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	char data[MOST];
	ssize_t size = read(fd, data, sizeof data);

	(void)what;
	if (size > 0)
		bufferevent_write(client->bev, data, size);
	else
		SSL_shutdown(bufferevent_openssl_get_ssl(client->bev));
}

static void on_echo(struct bufferevent *bev, void *client)
{
	char data[MOST];
	size_t size;

	(void)client;
	while ((size = bufferevent_read(bev, data, sizeof data)) > 0)
		fwrite(data, 1, size, stdout);
	fflush(stdout);
}

static void on_sent(struct bufferevent *bev, void *arg)
{
	struct client *client = arg;

	(void)bev;
	event_add(client->stdin_readable, NULL); /* all is sent: the next piece */
}

static void on_client_event(struct bufferevent *bev, short what, void *arg)
{
	struct client *client = arg;

	if (what & BEV_EVENT_CONNECTED) {
		event_add(client->stdin_readable, NULL);
		return;
	}
	if (!(what & BEV_EVENT_EOF))
		tls_error(bev, client->failure);
	event_base_loopexit(client->base, NULL);
}

static void talk(struct event_base *base, char **argv)
{
	struct client client = {.base = base, .failure = ""};
	SSL_CTX *context = client_context(argument(argv, 5, NULL));
	SSL *ssl = need(client_session(context, argv[4]), "SSL_new");
	struct evutil_addrinfo *address = find_address(argv[1], argv[2]);
	struct event *interrupt = stop_on_interrupt(base);

	client.bev =
	    need(bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, OPTIONS),
		"bufferevent_openssl_socket_new");
	bufferevent_setcb(client.bev, on_echo, on_sent, on_client_event, &client);
	client.stdin_readable = new_event(base, STDIN_FILENO, EV_READ, on_stdin, &client);
	bufferevent_enable(client.bev, EV_READ);
	if (bufferevent_socket_connect(client.bev, address->ai_addr, address->ai_addrlen) < 0)
		die("%s:%s: %s", argv[1], argv[2], strerror(errno));
	event_base_dispatch(base);
	bufferevent_free(client.bev);
	event_free(client.stdin_readable);
	event_free(interrupt);
	evutil_freeaddrinfo(address);
	SSL_CTX_free(context);
	if (client.failure[0] != '\0')
		die("%s:%s: %s", argv[1], argv[2], client.failure);
}

int main(int argc, char **argv)
{
	static const char usage[] = "127.0.0.1 8888 serve certificate.pem [key.pem]\n"
				    "127.0.0.1 8888 talk localhost [authorities.pem]";
	struct event_config *config;
	struct event_base *base;

	start(argc, argv, 4, 5, usage);
	if (strcmp(argv[3], "serve") != 0 && strcmp(argv[3], "talk") != 0)
		die("%s: neither serve nor talk", argv[3]);
	config = need(event_config_new(), "event_config_new");
	event_config_require_features(config, EV_FEATURE_FDS); /* stdin may be a file */
	base = need(event_base_new_with_config(config), "event_base_new_with_config");
	event_config_free(config);
	(strcmp(argv[3], "serve") == 0 ? serve : talk)(base, argv);
	event_base_free(base);
	return 0;
}
