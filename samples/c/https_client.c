/* A client that sends one request to an HTTP or HTTPS server, and prints the answer.
 *
 * It trusts only a server whose certificate is for the URL's host and signed by a trusted authority: one of the
 * system's, or of those in a file. The response line goes to stderr, the body to stdout, part by part, as it comes.
 * With -data, the file is sent by POST. */

#include <fcntl.h>
#include <getopt.h>

#include "tls.h"
#include "web.h"

struct options {
	const char *url, *data, *crt;
	int ignore_cert, retries;
	double timeout;
};

struct client {
	struct event_base *base;
	struct evhttp_connection *connection;
	const char *url;
	struct failure failure;
	int status;
};

static int on_header(struct evhttp_request *request, void *arg)
{
	(void)arg;
	fprintf(stderr, "Response line: %d %s\n", evhttp_request_get_response_code(request),
	    evhttp_request_get_response_code_line(request));
	return 0;
}

static void on_chunk(struct evhttp_request *request, void *arg)
{
	(void)arg;
	print_buffer(evhttp_request_get_input_buffer(request));
}

static void on_error(enum evhttp_request_error code, void *arg)
{
	struct client *client = arg;

	client->failure.code = (int)code;
}

static void tell_failure(const struct client *client)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(client->connection);
	const struct failure *failure = &client->failure;
	int unresolved = bufferevent_socket_get_dns_error(bev);
	char text[200];

	errno = failure->error;
	if (unresolved != 0)
		snprintf(text, sizeof text, "%s", evutil_gai_strerror(unresolved));
	else if (bufferevent_openssl_get_ssl(bev) == NULL || failure->code == EVREQ_HTTP_TIMEOUT)
		snprintf(text, sizeof text, "%s", failure_text(failure));
	else
		tls_error(bev, text);
	fprintf(stderr, "%s: %s\n", client->url, text);
}

static void on_done(struct evhttp_request *request, void *arg)
{
	struct client *client = arg;

	client->status = request == NULL || evhttp_request_get_response_code(request) == 0;
	if (client->status != 0)
		tell_failure(client);
	event_base_loopexit(client->base, NULL);
}

/* Return a bufferevent that will believe nobody but `host`, if the context verifies at all. Its callbacks are deferred, or
 * bytes would be left in OpenSSL. */
static struct bufferevent *secured(struct event_base *base, SSL_CTX *context, const char *host)
{
	SSL *session = need(client_session(context, host), "client_session");

	return need(bufferevent_openssl_socket_new(base, -1, session, BUFFEREVENT_SSL_CONNECTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS),
	    "bufferevent_openssl_socket_new");
}

static void parse(int argc, char **argv, struct options *options)
{
	enum { URL, DATA, CRT, IGNORE_CERT, RETRIES, TIMEOUT };
	static const struct option known[] = {{"url", 1, NULL, URL}, {"data", 1, NULL, DATA},
	    {"crt", 1, NULL, CRT}, {"ignore-cert", 0, NULL, IGNORE_CERT},
	    {"retries", 1, NULL, RETRIES}, {"timeout", 1, NULL, TIMEOUT}, {NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long_only(argc, argv, "", known, NULL)) >= 0) {
		if (option == URL)
			options->url = optarg;
		else if (option == DATA)
			options->data = optarg;
		else if (option == CRT)
			options->crt = optarg;
		else if (option == IGNORE_CERT)
			options->ignore_cert = 1;
		else if (option == RETRIES)
			options->retries = atoi(optarg);
		else if (option == TIMEOUT)
			options->timeout = atof(optarg);
		else
			exit(1);
	}
	if (options->url == NULL || optind < argc)
		die("-url must be given, and only what --help tells besides");
}

static void make_request(struct client *client, const struct evhttp_uri *url, const char *data)
{
	struct evhttp_request *request =
	    need(evhttp_request_new(on_done, client), "evhttp_request_new");
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	char *target = target_of(url);
	int file;

	evhttp_request_set_error_cb(request, on_error);
	evhttp_request_set_header_cb(request, on_header);
	evhttp_request_set_chunked_cb(request, on_chunk);
	evhttp_add_header(headers, "Host", evhttp_uri_get_host(url));
	evhttp_add_header(headers, "Connection", "close");
	if (data != NULL) {
		file = open(data, O_RDONLY | O_CLOEXEC);
		if (file < 0 ||
		    evbuffer_add_file(evhttp_request_get_output_buffer(request), file, 0, -1) < 0)
			die("%s: %s", data, strerror(errno));
	}
	if (evhttp_make_request(client->connection, request,
		data != NULL ? EVHTTP_REQ_POST : EVHTTP_REQ_GET, target) < 0)
		die("%s: the request can't be made", client->url);
	note_failure(client->connection, &client->failure);
	free(target);
}

int main(int argc, char **argv)
{
	struct options options = {.timeout = -1};
	struct client client = {.failure.code = -1};
	struct bufferevent *bev = NULL;
	SSL_CTX *context = NULL;
	struct evhttp_uri *url;
	struct event *interrupt;
	struct timeval timeout;
	const char *scheme;
	char host[256];
	int port;

	start(argc, argv, 1, argc,
	    "-url URL [-data file] [-crt authorities.pem] [-ignore-cert] [-retries number] "
	    "[-timeout seconds]");
	parse(argc, argv, &options);
	client.url = options.url;
	url = evhttp_uri_parse(options.url);
	scheme =
	    url != NULL && evhttp_uri_get_host(url) != NULL ? evhttp_uri_get_scheme(url) : NULL;
	if (scheme == NULL || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		die("-url must be http:// or https:// and a host");
	host_of(url, host);
	client.base = need(event_base_new(), "event_base_new");
	port = evhttp_uri_get_port(url);
	if (strcmp(scheme, "https") == 0) {
		context = client_context(options.crt);
		if (options.ignore_cert)
			SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
		bev = secured(client.base, context, host);
		port = port > 0 ? port : 443;
	}
	client.connection = need(evhttp_connection_base_bufferevent_new(client.base, NULL, bev,
				     host, (ev_uint16_t)(port > 0 ? port : 80)),
	    "evhttp_connection_base_bufferevent_new");
	evhttp_connection_set_retries(client.connection, options.retries);
	timeout = timeval_of(options.timeout);
	evhttp_connection_set_timeout_tv(client.connection, options.timeout >= 0 ? &timeout : NULL);
	make_request(&client, url, options.data);
	interrupt = stop_on_interrupt(client.base);
	event_base_dispatch(client.base);
	event_free(interrupt);
	evhttp_connection_free(client.connection);
	event_base_free(client.base);
	SSL_CTX_free(context);
	evhttp_uri_free(url);
	return client.status;
}
