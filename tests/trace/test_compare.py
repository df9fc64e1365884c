"""``python -m libevent_py compare``: a prototype in Python, its port to C, and its faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.support import PATIENCE, ROOT, program_of
from tests.kit.tracing import run, written

PROTOTYPE = """
    from libevent_py import BufferEvent, Event, EventBase, EventFlag

    base = EventBase()
    left, right = BufferEvent.pair(base)
    left.setcb(lambda bev: (bev.read(), base.loopexit()), None, None)
    left.setwatermark(EventFlag.READ, 10, 0)
    left.enable(EventFlag.READ)
    timer = Event.timer(base, print).add(5)
    right.write(b"hello, world")
    base.dispatch()
    timer.close()
    left.close()
    right.close()
    base.close()
"""

PORT = r"""
#include <event2/event.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>

#ifndef FAULT
#define FAULT 0
#endif

static void on_read(struct bufferevent *bev, void *arg)
{
	char data[64];

	evbuffer_remove(bufferevent_get_input(bev), data, sizeof data);
	event_base_loopexit(arg, NULL);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

int main(void)
{
	struct timeval five = {FAULT == 3 ? 5000 : 5, 0};
	struct event_base *base = event_base_new_with_config(NULL);
	struct bufferevent *pair[2];
	struct event *timer;

	bufferevent_pair_new(base, BEV_OPT_DEFER_CALLBACKS, pair);
	bufferevent_setcb(pair[0], on_read, NULL, NULL, base);
	if (FAULT != 1)
		bufferevent_setwatermark(pair[0], EV_READ, 10, 0);
	bufferevent_enable(pair[0], EV_READ);
	timer = event_new(base, -1, 0, on_time, NULL);
	event_add(timer, &five);
	bufferevent_write(pair[1], "hello, world", 12);
	event_base_loop(base, 0);
	event_free(timer);
	bufferevent_free(pair[0]);
	if (FAULT != 2)
		bufferevent_free(pair[1]);
	event_base_free(base);
	return 0;
}
"""


def compared(*arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "libevent_py", "compare", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not done.stderr or done.returncode == 2, done.stderr
    return done.returncode, (done.stdout or done.stderr).splitlines()


def port(place: Path, fault: int) -> str:
    """Return the program of the port with a *fault*, in *place*."""
    place = place / str(fault)
    place.mkdir()
    return str(program_of(f"#define FAULT {fault}\n{PORT}", place))


def test_a_program_does_twice_the_same(tmp_path: Path) -> None:
    for program in written(tmp_path, PROTOTYPE), port(tmp_path, 0):
        assert compared(program, program) == (0, [])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (1, "- bufferevent_setwatermark(bev#1, EV_READ, 10, 0)"),
        (2, "- bufferevent_free(bev#2)"),
        (3, "! event_add(ev#1, {5.000000 s}) = 0 | event_add(ev#1, {5000.000000 s}) = 0"),
    ],
)
def test_a_fault_of_a_port_is_told_in_one_line(tmp_path: Path, fault: int, told: str) -> None:
    status, lines = compared(port(tmp_path, 0), port(tmp_path, fault))
    assert status == 1
    assert [line for line in lines if not line.startswith("  ")] == [told]
    assert 1 <= len(lines) - 1 <= 5  # what has led to it


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (1, "- bufferevent_setwatermark(bev#1, EV_READ, 10, 0)"),
        (2, "- bufferevent_free(bev#2)"),
        (3, "! event_add(ev#3, {5.000000 s}) = 0 | event_add(ev#1, {5000.000000 s}) = 0"),
    ],
)
def test_a_port_is_compared_with_its_prototype(tmp_path: Path, fault: int, told: str) -> None:
    prototype = written(tmp_path, PROTOTYPE)
    names = "bufferevent_setwatermark,bufferevent_enable,bufferevent_write,bufferevent_free"
    options = ["-e", names] if fault != 3 else ["-e", "event_add"]
    _, same = compared(*options, prototype, port(tmp_path, 0))
    _, lines = compared(*options, prototype, port(tmp_path, fault))
    assert [line for line in lines if line not in same and line[0] != " "] == [told]


def test_traces_are_compared_as_files_too(tmp_path: Path) -> None:
    program = port(tmp_path, 0)
    run("-o", str(tmp_path / "text"), program)
    run("--json", "-o", str(tmp_path / "json"), program)
    assert compared(str(tmp_path / "text"), str(tmp_path / "json")) == (0, [])


def test_backends_are_compared(tmp_path: Path) -> None:
    program = written(tmp_path, PROTOTYPE)
    status, lines = compared("-e", "!event_new", "--backend", "poll", program)
    told = [line for line in lines if line[0] != " "]
    assert status == 1
    assert set(told) == {
        '! event_base_get_method(base#1) = "epoll" | event_base_get_method(base#1) = "poll"'
    }


def test_sizes_of_reads_are_compared_when_asked(tmp_path: Path) -> None:
    code = PROTOTYPE.replace("hello, world", "hello, everybody")
    (tmp_path / "other").mkdir()
    one, other = written(tmp_path, PROTOTYPE), written(tmp_path / "other", code)
    options = ["-e", "evbuffer_remove"]
    assert compared(*options, one, other)[0] == 0
    assert compared("--sizes", *options, one, other)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.py"], "say what to compare it with"),
        (["no-such-thing", "x.py"], "is neither a trace nor a program"),
        (["-e", "evnt_add", "a", "b"], "did you mean event_add"),
    ],
)
def test_bad_input_is_told(arguments: list[str], said: str) -> None:
    status, lines = compared(*arguments)
    assert status == 2
    assert said in lines[-1]
