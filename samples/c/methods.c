/* Print libevent's version, its backends, the one that it prefers, and the features of that one. */

#include "sample.h"

static const struct {
	int feature;
	const char *text;
} features[] = {
    {EV_FEATURE_ET, "edge-triggered events"},
    {EV_FEATURE_O1, "adding, deleting and firing take the same time however many events there are"},
    {EV_FEATURE_FDS, "any kind of descriptor, files too"},
    {EV_FEATURE_EARLY_CLOSE, "the other end's closing is noticed before all data is read"},
};

int main(int argc, char **argv)
{
	const char **methods = event_get_supported_methods();
	struct event_base *base;
	size_t i;

	start(argc, argv, 0, 0, "");
	printf("libevent %s\n", event_get_version());
	printf("backends: ");
	for (i = 0; methods[i] != NULL; ++i)
		printf("%s%s", i > 0 ? ", " : "", methods[i]);
	base = need(event_base_new(), "event_base_new");
	printf("\nin use: %s\n", event_base_get_method(base));
	for (i = 0; i < sizeof features / sizeof *features; ++i)
		printf("  %-3s %s\n",
		    event_base_get_features(base) & features[i].feature ? "yes" : "no",
		    features[i].text);
	event_base_free(base);
	return 0;
}
