/* libevent logs with its locks held, from any thread, and must not be called meanwhile (A5). Even taking
 * the GIL there could run a garbage collection and with it any finalizer. So a message is only queued
 * here; Python fetches it when it is safe to run. */

struct evpy_message {
	struct evpy_message *next;
	int severity;
	char text[];
};

/* Newest first; pushed by any thread, taken as a whole. */
static struct evpy_message *evpy_messages;

/* Oldest first: those that Python has taken, and put back. */
static struct evpy_message *evpy_messages_again;

/* Room for the messages that there is no memory for, which mostly say just that. */
#define EVPY_RESERVED 8
#define EVPY_RESERVED_SIZE 256
static struct {
	_Alignas(struct evpy_message) char message[EVPY_RESERVED][EVPY_RESERVED_SIZE];
	int taken[EVPY_RESERVED];
} evpy_last_messages;

/* Where to write a byte so that a running loop fetches the messages; -1 before the first base. */
static int evpy_log_poke_fd = -1;

/* Each turn of a loop causes debug messages: if each of them woke the loop, it would never rest. */
#define EVPY_DEBUG_BATCH 64
static unsigned evpy_debug_messages;

/* Wake the running loops, to fetch the messages. */
static void evpy_poke_loops(void)
{
	int error = errno, fd = __atomic_load_n(&evpy_log_poke_fd, __ATOMIC_ACQUIRE);

	if (fd >= 0 && write(fd, "", 1) < 0) {
		/* If the pipe is full, the loops wake up anyway. */
	}
	errno = error;
}

static int evpy_pokes(int severity)
{
	return severity != EVENT_LOG_DEBUG ||
	    __atomic_add_fetch(&evpy_debug_messages, 1, __ATOMIC_RELAXED) % EVPY_DEBUG_BATCH == 0;
}

/* Set when libevent is about to warn of something intended: that warning is dropped (R1). */
static _Thread_local int evpy_log_expected;

/* How often libevent has logged a warning in this thread: the only sign that some of its functions failed. */
static _Thread_local unsigned evpy_warned;

/* Memory for a message with a text of `*size` bytes, or of fewer: NULL if there is none. */
static struct evpy_message *evpy_message_new(size_t *size)
{
	const size_t room = EVPY_RESERVED_SIZE - sizeof(struct evpy_message);
	struct evpy_message *message = evpy_malloc(sizeof *message + *size);
	int i;

	for (i = 0; message == NULL && i < EVPY_RESERVED; ++i)
		if (!__atomic_exchange_n(&evpy_last_messages.taken[i], 1, __ATOMIC_ACQUIRE)) {
			message = (void *)evpy_last_messages.message[i];
			if (*size > room)
				*size = room;
		}
	return message;
}

static void evpy_message_free(struct evpy_message *message)
{
	int i;

	for (i = 0; i < EVPY_RESERVED; ++i)
		if ((void *)message == evpy_last_messages.message[i]) {
			__atomic_store_n(&evpy_last_messages.taken[i], 0, __ATOMIC_RELEASE);
			return;
		}
	evpy_free(message);
}

/* See evpy_unwatched. */
static void evpy_note_unwatched(const char *text, int error)
{
	if ((error == ENOSPC || error == ENOMEM) && strncmp(text, "Epoll ", 6) == 0)
		evpy_unwatched = error;
}

static void evpy_on_log(int severity, const char *text)
{
	int error = errno, fd = __atomic_load_n(&evpy_log_poke_fd, __ATOMIC_ACQUIRE);
	size_t size = strlen(text) + 1;
	struct evpy_message *message;

	if (evpy_log_expected && severity == EVENT_LOG_WARN) {
		evpy_log_expected = 0;
		return;
	}
	evpy_warned += severity == EVENT_LOG_WARN;
	if (severity == EVENT_LOG_WARN)
		evpy_note_unwatched(text, error);
	message = evpy_message_new(&size);
	/* libevent ends the process after an error, so the message might never be fetched. */
	if (severity == EVENT_LOG_ERR || message == NULL)
		fprintf(stderr, "[libevent] %s\n", text);
	if (message != NULL) {
		message->severity = severity;
		memcpy(message->text, text, size - 1);
		message->text[size - 1] = '\0';
		message->next = __atomic_load_n(&evpy_messages, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(
		    &evpy_messages, &message->next, message, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			;
		if (fd >= 0 && evpy_pokes(severity) && write(fd, "", 1) < 0) {
			/* If the pipe is full, the loop wakes up anyway. */
		}
	}
	errno = error;
}

static void evpy_on_fatal(int code)
{
	evpy_fatal(code);
}

static void evpy_log_install(void)
{
	event_set_log_callback(evpy_on_log);
}

static void evpy_fatal_install(int on)
{
	event_set_fatal_callback(on ? evpy_on_fatal : NULL);
}

static void evpy_log_poke(int fd)
{
	__atomic_store_n(&evpy_log_poke_fd, fd, __ATOMIC_RELEASE);
}

/* Take all messages, oldest first; each is freed by evpy_message_free(). */
static struct evpy_message *evpy_log_take(void)
{
	struct evpy_message *newest, *oldest = NULL, *again;

	newest = __atomic_exchange_n(&evpy_messages, NULL, __ATOMIC_ACQUIRE);
	while (newest != NULL) {
		struct evpy_message *next = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	again = __atomic_exchange_n(&evpy_messages_again, NULL, __ATOMIC_ACQUIRE);
	if (again == NULL)
		return oldest;
	for (newest = again; newest->next != NULL; newest = newest->next)
		;
	newest->next = oldest;
	return again;
}

/* Put messages back that were taken, the oldest first; an interrupt has come before Python had their texts. */
static void evpy_log_put_back(struct evpy_message *messages)
{
	struct evpy_message *last = messages;

	while (last->next != NULL)
		last = last->next;
	last->next = __atomic_load_n(&evpy_messages_again, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(
	    &evpy_messages_again, &last->next, messages, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static struct evpy_message *evpy_message_next(const struct evpy_message *message)
{
	return message->next;
}

static int evpy_message_severity(const struct evpy_message *message)
{
	return message->severity;
}

static const char *evpy_message_text(const struct evpy_message *message)
{
	return message->text;
}
