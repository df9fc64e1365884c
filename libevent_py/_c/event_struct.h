#define EVLIST_TIMEOUT ...
#define EVLIST_INSERTED ...
#define EVLIST_SIGNAL ...
#define EVLIST_ACTIVE ...
#define EVLIST_INTERNAL ...
#define EVLIST_ACTIVE_LATER ...
#define EVLIST_FINALIZING ...
#define EVLIST_INIT ...
#define EVLIST_ALL ...

struct event;

struct event_callback {
	struct { struct event_callback *tqe_next; struct event_callback **tqe_prev; } evcb_active_next;
	short evcb_flags;
	ev_uint8_t evcb_pri;
	ev_uint8_t evcb_closure;
	union {
		void (*evcb_callback)(evutil_socket_t, short, void *);
		void (*evcb_selfcb)(struct event_callback *, void *);
		void (*evcb_evfinalize)(struct event *, void *);
		void (*evcb_cbfinalize)(struct event_callback *, void *);
	} evcb_cb_union;
	void *evcb_arg;
};

struct event_base;

struct event {
	struct event_callback ev_evcallback;
	union {
		struct { struct event *tqe_next; struct event **tqe_prev; } ev_next_with_common_timeout;
		int min_heap_idx;
	} ev_timeout_pos;
	evutil_socket_t ev_fd;
	struct event_base *ev_base;
	union {
		struct {
			struct { struct event *le_next; struct event **le_prev; } ev_io_next;
			struct timeval ev_timeout;
		} ev_io;
		struct {
			struct { struct event *le_next; struct event **le_prev; } ev_signal_next;
			short ev_ncalls;
			short *ev_pncalls;
		} ev_signal;
	} ev_;
	short ev_events;
	short ev_res;
	struct timeval ev_timeout;
};

struct event_list { struct event *tqh_first; struct event **tqh_last; };

struct event_dlist { struct event *lh_first; };

/* Ours. */
