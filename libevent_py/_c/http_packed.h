/* Ours. */

/* A header that is given to be sent has a name or a value that can't be. */
#define EVPY_MISNAMED ...

ev_ssize_t evpy_http_snapshot(struct evhttp_request *req, char *packed, size_t room);
