"""The calls to libevent as objects, in tests that run apart, under the tracer."""

from __future__ import annotations

from pathlib import Path

import pytest

from libevent_py.testing import LibeventTrace, TracedCall
from tests.kit.pytests import pytest_of

TRACED = """
    import pytest
    from libevent_py import BufferEvent, Event, EventFlag

    def test_calls(libevent_trace, bufferevent_pair):
        libevent_trace.clear()
        bufferevent_pair[0].setwatermark(EventFlag.READ, 10, 0)
        (call,) = libevent_trace.calls("bufferevent_setwatermark")
        assert call.name == "bufferevent_setwatermark"
        assert call.args[1:] == ("EV_READ", "10", "0")
        assert str(call).startswith("bufferevent_setwatermark(bev#")
        assert str(call) in libevent_trace.lines

    def test_until_leaves_its_own_calls_out(libevent_trace, event_base, bufferevent_pair, until):
        left, right = bufferevent_pair
        ticks = []
        right.on_read = lambda bev: None
        with Event.timer(event_base, lambda *_: ticks.append(event_base.n_priorities)) as timer:
            event_base.loop(3)  # what the package makes for a loop is there
            libevent_trace.clear()
            right.setwatermark(EventFlag.READ, 10, 0)
            timer.add(0.02)
            right.enable(EventFlag.READ)
            left.write(b"123456789")
            with pytest.raises(AssertionError) as caught:
                until(lambda: len(right.input) == 10, timeout=0.06)
            told = str(caught.value).partition("the last calls:\\n")[2].splitlines()
            assert [line for line in told if "setwatermark" in line]
            assert [line for line in told if "bufferevent_write" in line]
            at = told.index("<- callback(-1, EV_TIMEOUT)")
            assert told[at + 1] == "  event_base_get_npriorities(base#1) = 1"
            assert told[at + 2] == "-> callback"
            assert "get_length(input of" not in told[-1]  # what the condition asks again and again
            assert len(ticks) == 1
            assert libevent_trace.callbacks() == ["callback(-1, EV_TIMEOUT)"] + [
                each for each in libevent_trace.callbacks()[1:] if "ev#" in each  # of explain()
            ]
            assert [str(call) for call in libevent_trace.calls("event_add")] == [
                f"event_add({libevent_trace.calls('event_add')[0].args[0]}, {{0.020000 s}}) = 0"
            ]
            calls = libevent_trace.calls("event_new", "event_free", "event_del", "event_base_loop")
            assert calls == []
            assert len(libevent_trace.calls("evbuffer_get_length")) > 3  # the condition's stay
            event_base.turn(0)
            assert len(libevent_trace.calls("event_base_loop")) == 1  # the test's own

    def test_what_happens_in_the_loop_stays(libevent_trace, bufferevent_pair, until):
        left, right = bufferevent_pair
        got = []
        right.on_read = lambda bev: got.append(bev.read())
        right.enable(EventFlag.READ)
        libevent_trace.clear()
        left.write(b"hello")
        until(lambda: got)
        left.write(b"world")
        until(lambda: len(got) == 2)
        lines = [line for line in libevent_trace.lines if "on_read" in line or "_remove(" in line]
        begin, remove, end = lines[:3]
        assert begin.startswith("<- on_read(bev#") and end == "-> on_read"
        assert remove.startswith("  evbuffer_remove(input of") and "hello" in remove
        assert len(lines) == 6 and len(libevent_trace.calls("evbuffer_remove")) == 2
        assert [call.depth for call in libevent_trace.calls("evbuffer_remove")] == [1, 1]
        assert not libevent_trace.calls("event_base_loop")

    def test_a_function_that_there_is_not(libevent_trace):
        with pytest.raises(ValueError, match="did you mean evbuffer_add"):
            libevent_trace.calls("evbufer_add")

    def test_both(libevent_trace, libevent_debug_mode, event_base):
        assert libevent_trace.calls("event_base_new*")[0].result == "base#1"

    def test_crash(libevent_trace):
        import os
        os.abort()
"""


@pytest.mark.more
def test_a_test_sees_its_calls(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, TRACED)
    assert ran.outcomes == {
        "test_calls": "passed",
        "test_until_leaves_its_own_calls_out": "passed",
        "test_what_happens_in_the_loop_stays": "passed",
        "test_a_function_that_there_is_not": "passed",
        "test_both": "passed",
        "test_crash": "failed",
    }, ran.said
    assert "the test's own process was ended by SIGABRT" in ran.said


LINES = """\
event_new(base#1, -1, 0, 0x7f, NULL) = ev#1
event_add(ev#1, {0.050000 s}) = 0
event_base_loop(base#1, 0 <unfinished ...>
<- callback(-1, EV_TIMEOUT)
  event_add(ev#1, NULL) = -1 ENOMEM
  evbuffer_remove(buf#1 <unfinished ...>
  <- on_change(buf#1)
    event_active(ev#1, EV_READ, 1)
  -> on_change
  <... evbuffer_remove resumed>, "x", 1) = 1
-> callback
<... event_base_loop resumed>) = 0
event_base_loop(base#1, 0 <unfinished ...>
"""


def test_lines_become_calls(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text("event_free(ev#9)\n")
    trace = LibeventTrace(file)
    with file.open("a") as more:
        more.write(LINES)
    assert trace.calls() == [
        TracedCall("event_new", ("base#1", "-1", "0", "0x7f", "NULL"), "ev#1", 0),
        TracedCall("event_add", ("ev#1", "{0.050000 s}"), "0", 0),
        TracedCall("event_base_loop", ("base#1", "0"), "0", 0),
        TracedCall("event_add", ("ev#1", "NULL"), "-1 ENOMEM", 1),
        TracedCall("evbuffer_remove", ("buf#1", '"x"', "1"), "1", 1),
        TracedCall("event_active", ("ev#1", "EV_READ", "1"), None, 2),
        TracedCall("event_base_loop", ("base#1", "0"), None, 0),
    ]
    assert [call.name for call in trace.calls("evbuffer", "event_n*")] == [
        "event_new",
        "evbuffer_remove",
    ]
    assert str(trace.calls("event_new")[0]) == "event_new(base#1, -1, 0, 0x7f, NULL) = ev#1"
    assert str(trace.calls("event_active")[0]) == "event_active(ev#1, EV_READ, 1)"
    assert trace.callbacks() == ["callback(-1, EV_TIMEOUT)", "on_change(buf#1)"]
    assert len(trace.lines) == len(LINES.splitlines())
    trace.clear()
    assert trace.calls() == []


def test_calls_of_several_threads_keep_their_results(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.touch()
    trace = LibeventTrace(file)
    file.write_text(
        "event_base_loop(base#1, 0 <unfinished ...>\n"
        "evbuffer_add(buf#1 <unfinished ...>\n"
        "<... event_base_loop resumed>) = 1\n"
        '<... evbuffer_add resumed>, "x", 1) = 0\n'
        "<... event_base_free resumed>)\n"  # begun before the test
    )
    assert list(map(str, trace.calls())) == [
        "event_base_loop(base#1, 0) = 1",
        'evbuffer_add(buf#1, "x", 1) = 0',
    ]
