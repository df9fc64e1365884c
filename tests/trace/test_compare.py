"""``python -m libevent_py compare``: a prototype in Python, its port to C, and its faults."""

from __future__ import annotations

import io
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from libevent_py._cli import compare
from tests.kit.support import program_of
from tests.kit.tracing import compared, run, written

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
        pytest.param(2, "- bufferevent_free(bev#2)", marks=pytest.mark.more),
        pytest.param(
            3,
            "! event_add(ev#3, {5.000000 s}) = 0 | event_add(ev#1, {5000.000000 s}) = 0",
            marks=pytest.mark.more,
        ),
    ],
)
def test_a_port_is_compared_with_its_prototype(tmp_path: Path, fault: int, told: str) -> None:
    prototype = written(tmp_path, PROTOTYPE)
    names = "bufferevent_setwatermark,bufferevent_enable,bufferevent_write,bufferevent_free"
    options = ["-e", names] if fault != 3 else ["-e", "event_add"]
    _, same = compared(*options, prototype, port(tmp_path, 0))
    _, lines = compared(*options, prototype, port(tmp_path, fault))
    assert [line for line in lines if line not in same and line[0] != " "] == [told]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (0, []),
        pytest.param(
            1,
            ["- bufferevent_setwatermark(bev#1, EV_READ, 10, 0)"],
            marks=pytest.mark.more,
        ),
        pytest.param(2, ["- bufferevent_free(bev#2)"], marks=pytest.mark.more),
        (3, ["! event_add(ev#3, {5.000000 s}) = 0 | event_add(ev#1, {5000.000000 s}) = 0"]),
    ],
)
def test_what_the_package_does_by_itself_is_left_out_of_a_port(
    tmp_path: Path, fault: int, told: list[str]
) -> None:
    status, lines = compared("--port", written(tmp_path, PROTOTYPE), port(tmp_path, fault))
    assert [line for line in lines if line[0] != " "] == told
    assert status == (1 if told else 0)


ONE = """
event_base_new() = base#1
event_new(base#1, 7, EV_READ, 0x11, 0x12) = ev#1
event_new(base#1, -1, 0, 0x13, NULL) = ev#2
event_add(ev#2, NULL) = 0
event_add(ev#1, {1.000000 s}) = 0
event_base_dispatch(base#1 <unfinished ...>
<- on_accept(listener#1, 8, 127.0.0.1:5000, 16)
-> on_accept
<... event_base_dispatch resumed>) = 1
event_free(ev#2)
event_free(ev#1)
"""

OTHER = """
event_base_new() = base#1
event_new(base#1, 9, EV_READ, 0x21, NULL) = ev#1
event_add(ev#1, {2.000000 s}) = 0
event_base_dispatch(base#1 <unfinished ...>
<- on_accept(listener#1, 10, 127.0.0.1:6000, 16)
-> on_accept
<... event_base_dispatch resumed>) = 0
event_del(ev#1) = 0
event_free(ev#1)
"""

#: All that is not the same in these traces.
KNOWN = [
    """
    [[known]]
    why = "one has an event of its own"
    a = "event_new(base#1, -1, 0, *) = ev#1"
    also = "*ev#1*"
    """,
    """
    [[known]]
    why = "both wait for some time"
    both = "event_add(ev#1, {*.*1}) = 0"
    as = "event_add(ev#1, {*1}) = 0"
    """,
    """
    [[known]]
    why = "one ends, the other is ended"
    a = "event_base_dispatch(base#1) = 1"
    as = "event_base_dispatch(base#1) = 0"
    """,
    """
    [[known]]
    why = "the other deletes first"
    b = "event_del(ev#1) = 0\\nevent_free(ev#1)"
    as = "event_free(ev#1)"
    """,
]


def compared_as_known(place: Path, known: str, a: str, b: str) -> tuple[int, list[str]]:
    """Compare the traces *a* and *b* by what is *known*."""
    files = {"known.toml": textwrap.dedent(known), "a": a.lstrip(), "b": b.lstrip()}
    for name, text in files.items():
        (place / name).write_text(text)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = compare.main(["--known", *(str(place / name) for name in files)])
    return status, said.getvalue().splitlines()


def test_differences_that_are_known_are_left_out(tmp_path: Path) -> None:
    assert compared_as_known(tmp_path, "".join(KNOWN), ONE, OTHER) == (0, [])


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        (0, "- event_new(base#1, -1, 0, 0x13, NULL) = ev#2"),
        (1, "! event_add(ev#1, {1.000000 s}) = 0 | event_add(ev#1, {2.000000 s}) = 0"),
        (2, "! event_base_dispatch(base#1) = 1 | event_base_dispatch(base#1) = 0"),
        (3, "+ event_del(ev#1) = 0"),
    ],
)
def test_a_difference_that_is_not_known_is_told(tmp_path: Path, left_out: int, told: str) -> None:
    known = "".join(KNOWN[:left_out] + KNOWN[left_out + 1 :])
    status, lines = compared_as_known(tmp_path, known, ONE, OTHER)
    assert status == 1
    assert next(line for line in lines if line[0] != " ") == told


def test_what_is_known_of_one_trace_is_not_so_of_the_other(tmp_path: Path) -> None:
    status, lines = compared_as_known(tmp_path, "".join(KNOWN), OTHER, ONE)
    assert status == 1
    assert {"+ event_new", "- event_del"} <= {line.partition("(")[0] for line in lines}


def test_a_name_stands_for_the_same_object_in_the_whole_table(tmp_path: Path) -> None:
    known = '[[known]]\nwhy = "no use"\nb = "event_add(ev#7, *) = 0\\nevent_free(ev#7)"\n'
    made = "event_new(base#1, -1, 0, 0x1, NULL) = ev#1\nevent_new(base#1, 1, 0, 0x1, NULL) = ev#2\n"
    for freed, status in (1, 0), (2, 1):
        both = f"{made}event_add(ev#1, NULL) = 0\nevent_free(ev#{freed})\n"
        assert compared_as_known(tmp_path, known, made, both)[0] == status


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("known = 3", "known.toml: "),
        ("[[unknown]]", "'known'"),
        ('[[known]]\na = "event_add(*)"', "a difference has why"),
        ('[[known]]\nwhy = "so"\nas = "event_add(*)"', "a difference has why"),
        ('[[known]]\nwhy = "so"\na = "event_add(*)"\nb = "event_del(*)"', "a difference has why"),
        ('[[known]]\nwhy = "so"\na = "event_add(ev#1)"\nas = "event_del(ev#2)"', "ev#2 stands for"),
        ('[[known]]\nwhy = "so"\na = "event_add(*)"\nas = "event_del(*1)"', "*1 stands for"),
        ('[[known]]\nwhy = "so"\na = "event_add(*)"\nalso = "*ev#1*"', "ev#1 stands for"),
        ("[[known", "known.toml: "),
    ],
)
def test_a_table_of_differences_that_is_wrong_is_told(
    tmp_path: Path, known: str, said: str
) -> None:
    status, lines = compared_as_known(tmp_path, known, ONE, OTHER)
    assert status == 2
    assert said in lines[-1]


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
