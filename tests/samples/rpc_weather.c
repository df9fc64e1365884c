/* A client of samples/rpc_weather.py in C: asks for the weather of a city.
 *
 * What event_rpcgen.py would make of the messages is done by hand for the two that are needed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/rpc.h>
#include <event2/rpc_struct.h>
#include <event2/tag.h>

enum { CITY = 1, KELVINS = 2, WORDS = 3 };

static void question_marshal(struct evbuffer *buffer, void *city)
{
	evtag_marshal_string(buffer, CITY, city);
}

static void report_clear(void *printed)
{
	*(int *)printed = 0;
}

static int report_unmarshal(void *printed, struct evbuffer *buffer)
{
	while (evbuffer_get_length(buffer) > 0) {
		ev_uint32_t tag, kelvins;
		char *text;

		if (evtag_peek(buffer, &tag) < 0)
			return -1;
		if (tag == KELVINS) {
			if (evtag_unmarshal_int(buffer, KELVINS, &kelvins) < 0)
				return -1;
			printf("%d C\n", (int)kelvins - 273);
		} else {
			if (evtag_unmarshal_string(buffer, tag, &text) < 0)
				return -1;
			printf("%s\n", text);
			free(text);
		}
	}
	*(int *)printed = 1;
	return 0;
}

static void done(struct evrpc_status *status, void *city, void *printed, void *base)
{
	(void)city;
	if (status->error != EVRPC_STATUS_ERR_NONE || !*(int *)printed)
		printf("error %d\n", status->error);
	event_base_loopexit(base, NULL);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	struct evrpc_pool *pool = evrpc_pool_new(NULL);
	int printed = 0;

	if (argc != 3)
		return 1;
	evrpc_pool_add_connection(
	    pool, evhttp_connection_base_new(base, NULL, "127.0.0.1", atoi(argv[1])));
	evrpc_send_request_generic(pool, argv[2], &printed, done, base, "Ask", question_marshal,
	    report_clear, report_unmarshal);
	event_base_dispatch(base);
	evrpc_pool_free(pool);
	event_base_free(base);
	return 0;
}
