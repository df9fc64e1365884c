/* Says which libevent the twins run on, and by which method it waits. */
#include "contender.h"

int main(void)
{
	struct event_base *base = new_base();
	printf("%s %s\n", event_get_version(), event_base_get_method(base));
	event_base_free(base);
	return 0;
}
