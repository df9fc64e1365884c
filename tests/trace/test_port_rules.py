"""What ``compare --port`` takes for the same in Python and in C, and what it doesn't.

The program uses what C has another way for: `EventBase.once`, input that is there when reading
begins, and a listener that no child process inherits.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from libevent_py._cli import compare
from tests.kit.support import program_of
from tests.kit.tracing import compared, run, written

PROTOTYPE = """
    import os

    from libevent_py import BufferEvent, EventBase, EventFlag, Listener

    def on_read(bev):
        if len(bev.input) < 7:
            bev.disable(EventFlag.READ)
            base.once(lambda fd, what: bev.enable(EventFlag.READ))
            right.write(b" ")
        else:
            bev.read()
            base.once(lambda fd, what: None, fd=readable, what=EventFlag.READ, timeout=5)
            base.once(lambda fd, what: base.loopexit(), timeout=0.01)

    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.write(writable, b"there")
    base = EventBase()
    listener = Listener(base, ("127.0.0.1", 0), None)
    left, right = BufferEvent.pair(base)
    left.setcb(on_read, None, None)
    left.enable(EventFlag.READ)
    right.write(b"hello,")
    base.dispatch()
    left.close()
    right.close()
    listener.close()
    base.close()
"""

PORT = r"""
#include <netinet/in.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#ifndef FAULT
#define FAULT 0
#endif

#define FLAGS (LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | (FAULT != 1 ? LEV_OPT_CLOSE_ON_EXEC : 0))

static struct event_base *base;
static struct bufferevent *left, *right;
static int pipe_of[2];

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	(void)arg;
	evconnlistener_disable(listener);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	event_base_loopexit(base, NULL);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	bufferevent_enable(left, EV_READ);
	if (FAULT != 2)
		bufferevent_trigger(left, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct timeval five = {5, 0}, soon = {0, FAULT == 3 ? 20000 : 10000};
	char data[64];

	(void)arg;
	if (evbuffer_get_length(bufferevent_get_input(bev)) < 7) {
		bufferevent_disable(bev, EV_READ);
		if (FAULT != 4)
			event_base_once(base, -1, EV_TIMEOUT, on_later, NULL, NULL);
		else
			on_later(-1, 0, NULL);
		bufferevent_write(right, " ", 1);
	} else {
		bufferevent_read(bev, data, sizeof data);
		event_base_once(base, pipe_of[0], EV_READ | EV_TIMEOUT, on_ready, NULL, &five);
		event_base_once(base, -1, EV_TIMEOUT, on_time, NULL, &soon);
	}
}

int main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct evconnlistener *listener;
	struct bufferevent *pair[2];

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (pipe(pipe_of) < 0 || write(pipe_of[1], "there", 5) < 0)
		return 1;
	base = event_base_new();
	listener = evconnlistener_new_bind(
		base, NULL, NULL, FLAGS, -1, (struct sockaddr *)&address, sizeof address);
	evconnlistener_set_error_cb(listener, on_accept_error);
	bufferevent_pair_new(base, BEV_OPT_DEFER_CALLBACKS, pair);
	left = pair[0];
	right = pair[1];
	bufferevent_setcb(left, on_read, NULL, NULL, NULL);
	bufferevent_enable(left, EV_READ);
	bufferevent_write(right, "hello,", 6);
	event_base_dispatch(base);
	bufferevent_free(left);
	bufferevent_free(right);
	evconnlistener_free(listener);
	event_base_free(base);
	return 0;
}
"""


ALL_FLAGS = "LEV_OPT_CLOSE_ON_FREE|LEV_OPT_CLOSE_ON_EXEC|LEV_OPT_REUSEABLE"


@pytest.fixture(scope="module")
def prototype(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prototype's trace."""
    place = tmp_path_factory.mktemp("prototype")
    run("-o", str(place / "trace"), written(place, PROTOTYPE))
    return place / "trace"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (0, []),
        (1, [f"{ALL_FLAGS}, -1) = listener#1 | "]),
        (2, ["- bufferevent_trigger(bev#1, EV_READ, BEV_TRIG_DEFER_CALLBACKS)"]),
        (3, ["! event_base_once(base#1, -1, EV_TIMEOUT, {0.010000 s}) = 0 | event_base_once"]),
        (4, ["- event_base_once(base#1, -1, EV_TIMEOUT, {0.000000 s}) = 0"]),
    ],
)
def test_what_c_has_another_way_for_is_the_same_and_its_lack_is_told(
    tmp_path: Path, prototype: Path, fault: int, told: list[str]
) -> None:
    program = program_of(f"#define FAULT {fault}\n{PORT}", tmp_path)
    status, lines = compared("--port", str(prototype), str(program))
    found = [line for line in lines if line[0] != " "]
    assert status == (1 if told else 0)
    assert told[0] in found[0] if told else not found, found


ACCEPTED = """\
[[known]]
why = "this port may be inherited"
b = "evconnlistener_new_bind(*1, LEV_OPT_CLOSE_ON_FREE|LEV_OPT_REUSEABLE, -1) = *2"
as = "evconnlistener_new_bind(*1, {flags}, -1) = *2"
"""


def test_what_is_known_is_written_as_the_package_s_own_tables_leave_it(
    tmp_path: Path, prototype: Path
) -> None:
    (tmp_path / "known.toml").write_text(ACCEPTED.replace("{flags}", ALL_FLAGS))
    program = program_of(f"#define FAULT 1\n{PORT}", tmp_path)
    known = ("--known", str(tmp_path / "known.toml"))
    assert compared("--port", *known, str(prototype), str(program)) == (0, [])


MADE = """\
event_base_new() = base#1
event_assign(ev#1, base#1, -1, 0, {callback}, NULL) = 0
event_add(ev#1, {{5.000000 s}}) = 0
"""


@pytest.mark.parametrize(("callback", "hidden"), [("evpy_on_http_next", True), ("0x13", False)])
def test_only_the_package_s_own_events_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], callback: str, hidden: bool
) -> None:
    (tmp_path / "a").write_text(MADE.format(callback=callback))
    (tmp_path / "b").write_text("event_base_new() = base#1\n")
    status = compare.main(["--port", str(tmp_path / "a"), str(tmp_path / "b")])
    told = [line.partition("(")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert (status, told) == ((0, []) if hidden else (1, ["- event_assign", "- event_add"]))
