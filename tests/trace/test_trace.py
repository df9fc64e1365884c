"""``python -m libevent_py trace`` and its options, on Python programs and on C programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from libevent_py import EventBase
from libevent_py._cli.trace import fault, parsed
from libevent_py._cli.trace import traced as names
from tests.kit.support import PATIENCE, ROOT, program_of
from tests.kit.tracing import ADDRESS, run, traced, written

PROGRAM = """
    from libevent_py import BufferEvent, Event, EventBase, EventFlag

    with EventBase() as base:
        left, right = BufferEvent.pair(base)

        def on_read(bev):
            print(bev.read())
            base.loopexit()

        left.setcb(on_read, None, None)
        left.enable(EventFlag.READ)
        left.setwatermark(EventFlag.READ, 10, 0)
        right.write(b'GET "/" HTTP/1.1\\r\\n' + b"x" * 40)
        timer = Event.timer(base, print).add(5)
        base.dispatch()
"""

C_PROGRAM = r"""
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

static struct event_base *base;
static int changes;

static void once(evutil_socket_t fd, short what, void *arg)
{
	assert(fd == -1 && what == EV_TIMEOUT && arg == (void *)&base);
}

static void self(evutil_socket_t fd, short what, void *arg)
{
	struct event *ev = arg;

	assert(event_get_base(ev) == base && event_get_callback_arg(ev) == ev);
	assert(event_get_callback(ev) == self);
	event_free(ev);
	(void)fd, (void)what;
}

static void assigned(evutil_socket_t fd, short what, void *arg)
{
	assert(*(int *)arg == 4711);
	event_base_loopexit(base, NULL);
	(void)fd, (void)what;
}

static void changed(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	assert(arg == &changes);
	changes += (int)info->n_added;
	(void)buffer;
}

static void cleaned(const void *data, size_t size, void *arg)
{
	assert(size == 4 && arg == (void *)data);
}

static void reads(struct bufferevent *bev, void *arg)
{
	assert(arg == (void *)&changes);
	(void)bev;
}

static void happens(struct bufferevent *bev, short what, void *arg)
{
	(void)bev, (void)what, (void)arg;
}

int main(void)
{
	struct timeval soon = {0, 1000}, later = {2, 500000};
	struct event user;
	int number = 4711;
	struct evbuffer *buffer = evbuffer_new();
	struct bufferevent *bev;
	struct event *ev;
	struct event_base *found;
	evutil_socket_t fd;
	short events;
	event_callback_fn callback;
	bufferevent_data_cb readcb, writecb;
	bufferevent_event_cb eventcb;
	void *arg;
	char text[] = "data", room[8], one[2] = {'a', 'b'}, other[2] = {'A', 'B'};

	base = event_base_new();
	event_base_once(base, -1, EV_TIMEOUT, once, &base, &soon);
	ev = event_new(base, -1, 0, self, event_self_cbarg());
	event_active(ev, EV_READ, 1);
	event_assign(&user, base, -1, EV_PERSIST, assigned, &number);
	event_get_assignment(&user, &found, &fd, &events, &callback, &arg);
	assert(found == base && fd == -1 && events == EV_PERSIST);
	assert(callback == assigned && arg == &number);
	event_add(&user, &later);
	event_add(&user, &soon);
	evbuffer_add_cb(buffer, changed, &changes);
	evbuffer_add_printf(buffer, "%s-%d\n", "one", 2);
	assert(changes == 6);
	assert(evbuffer_remove_cb(buffer, changed, &changes) == 0);
	evbuffer_add_reference(buffer, text, 4, cleaned, text);
	assert(changes == 6 && evbuffer_remove(buffer, room, 6) == 6 && evbuffer_drain(buffer, 4) == 0);
	assert(evutil_ascii_strncasecmp(one, other, sizeof one) == 0);
	bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(bev, reads, NULL, happens, &changes);
	bufferevent_getcb(bev, &readcb, &writecb, &eventcb, &arg);
	assert(readcb == reads && writecb == NULL && eventcb == happens && arg == &changes);
	bufferevent_trigger(bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS);
	bufferevent_trigger_event(bev, BEV_EVENT_EOF | BEV_EVENT_READING, 0);
	event_base_dispatch(base);
	event_del(&user);
	bufferevent_free(bev);
	evbuffer_free(buffer);
	event_base_free(base);
	puts("fine");
	return 3;
}
"""

#: What is told of it, without addresses.
TOLD = """
evbuffer_new() = buf#1
event_base_new() = base#1
event_base_once(base#1, -1, EV_TIMEOUT, 0x, 0x, {0.001000 s}) = 0
event_new(base#1, -1, 0, 0x, 0x) = ev#1
event_active(ev#1, EV_READ, 1)
event_assign(ev#2, base#1, -1, EV_PERSIST, 0x, 0x) = 0
event_get_assignment(ev#2)
event_add(ev#2, {2.500000 s}) = 0
event_add(ev#2, {0.001000 s}) = 0
evbuffer_add_cb(buf#1, 0x, 0x) = cb#1
evbuffer_add_printf(buf#1, "%s-%d\\n", ... <unfinished ...>
<- callback(buf#1, 0x)
-> callback
<... evbuffer_add_printf resumed>) = 6
evbuffer_remove_cb(buf#1, 0x, 0x) = 0
evbuffer_add_reference(buf#1, "data", 4, 0x, 0x) = 0
evbuffer_remove(buf#1, "one-2\\n", 6) = 6
evbuffer_drain(buf#1, 4 <unfinished ...>
<- cleanupfn(0x, 4)
-> cleanupfn
<... evbuffer_drain resumed>) = 0
evutil_ascii_strncasecmp("ab", "AB", 2) = 0
bufferevent_socket_new(base#1, -1, BEV_OPT_CLOSE_ON_FREE) = bev#1
bufferevent_setcb(bev#1, 0x, NULL, 0x, 0x)
bufferevent_getcb(bev#1)
bufferevent_trigger(bev#1, EV_READ, BEV_TRIG_IGNORE_WATERMARKS <unfinished ...>
<- on_read(bev#1)
-> on_read
<... bufferevent_trigger resumed>)
bufferevent_trigger_event(bev#1, BEV_EVENT_READING|BEV_EVENT_EOF, 0 <unfinished ...>
<- on_event(bev#1, BEV_EVENT_READING|BEV_EVENT_EOF)
-> on_event
<... bufferevent_trigger_event resumed>)
event_base_dispatch(base#1 <unfinished ...>
<- callback(-1, EV_READ)
  event_get_base(ev#1) = base#1
  event_get_callback_arg(ev#1) = 0x
  event_get_callback(ev#1) = 0x
  event_free(ev#1)
-> callback
""".strip().splitlines()


def test_a_bufferevent_s_buffers_are_called_so_though_nobody_has_asked_for_them(
    tmp_path: Path,
) -> None:
    found = traced(tmp_path, written(tmp_path, PROGRAM))
    lengths = found.calls("evbuffer_get_length")
    assert lengths[0] == "evbuffer_get_length(input of bev#1) = 0"
    assert not [line for line in found.lines if "buf#" in line]


def test_the_package_s_own_events_are_known_by_their_callback(tmp_path: Path) -> None:
    found = traced(tmp_path, "-e", "event_new", written(tmp_path, PROGRAM))
    own = [line for line in found.calls("event_new") if ", evpy_on_wake, " in line]
    users = [line for line in found.calls("event_new") if line not in own]
    assert len(own) == 4
    assert users == ["event_new(base#1, -1, 0, 0x, 0x) = ev#3"]


def test_a_call_is_told_in_c_s_own_syntax(tmp_path: Path) -> None:
    done = traced(tmp_path, written(tmp_path, PROGRAM))
    calls = done.calls("event_add", "bufferevent_write", "bufferevent_enable", "event_base_free")
    assert "event_add(ev#3, {5.000000 s}) = 0" in calls
    assert (
        'bufferevent_write(bev#2, "GET \\"/\\" HTTP/1.1\\r\\nxxxxxxxxxxxxxx"..., 58) = 0' in calls
    )
    assert "bufferevent_enable(bev#1, EV_READ) = 0" in calls
    assert calls[-1] == "event_base_free(base#1)"
    at = done.lines.index("<- on_read(bev#1)")
    assert "input of bev#1" in done.lines[at + 1] and done.lines[at + 1].startswith("  ")
    assert done.lines[-1] == "+++ exited with 0 +++"
    assert done.out.startswith("b'GET")


def test_a_c_program_gets_what_it_has_passed(tmp_path: Path) -> None:
    program = program_of(C_PROGRAM, tmp_path)
    done = traced(tmp_path, str(program), status=3)
    assert done.out == "fine\n"
    lines = [ADDRESS.sub("0x", line) for line in done.lines]
    assert lines[: len(TOLD)] == TOLD
    assert lines[-1] == "+++ exited with 3 +++"
    plain = subprocess.run([program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (plain.returncode, plain.stdout) == (3, "fine\n")


@pytest.mark.parametrize(
    ("wanted", "some", "none"),
    [
        ("event_add", {"event_add"}, {"event_new"}),
        ("evbuffer,event_add", {"event_add", "evbuffer_remove"}, {"bufferevent_enable"}),
        ("bufferevent_*ble", {"bufferevent_enable"}, {"bufferevent_write", "event_add"}),
        ("!bufferevent", {"event_add"}, {"bufferevent_enable"}),
        ("bufferevent,!bufferevent_write", {"bufferevent_enable"}, {"bufferevent_write"}),
    ],
)
def test_only_what_is_wanted_is_told(
    tmp_path: Path, wanted: str, some: set[str], none: set[str]
) -> None:
    done = traced(tmp_path, "-e", wanted, written(tmp_path, PROGRAM))
    told = {line.strip().partition("(")[0] for line in done.lines}
    assert some <= told
    assert not none & told


def test_options_for_times_strings_and_stacks(tmp_path: Path) -> None:
    program = written(tmp_path, PROGRAM)
    lines = traced(tmp_path, "-t", "-s", "5", "-e", "bufferevent_write", program).lines
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{6} .*"GET \\""\.\.\., 58\) = 0', lines[0])
    lines = traced(tmp_path, "-r", "-e", "event_add", program).lines
    assert all(re.match(r" +\d+\.\d{6} +\S", line) for line in lines[:-1])
    lines = traced(tmp_path, "-k", "-e", "bufferevent_write", program).lines
    assert any("program.py" in line for line in lines)
    code = program_of(C_PROGRAM, tmp_path)
    lines = traced(tmp_path, "-k", "-e", "event_add", str(code), status=3).lines
    assert any(line.startswith(f" > {code}(") for line in lines)


def test_a_table_counts_calls_and_failures(tmp_path: Path) -> None:
    code = """
        from libevent_py import ffi, lib
        buffer = lib.evbuffer_new()
        for _ in range(10):
            lib.evbuffer_add(buffer, b"x", 1)
        lib.evbuffer_drain(buffer, 3)
        lib.evbuffer_freeze(buffer, 0)
        assert lib.evbuffer_add(buffer, b"x", 1) == -1
        lib.evbuffer_free(buffer)
    """
    done = traced(tmp_path, "-c", written(tmp_path, code))
    rows = {line.split()[-1]: line.split() for line in done.lines if line[:3] not in ("% t", "---")}
    assert rows["evbuffer_add"][3:5] == ["11", "1"]
    assert rows["evbuffer_drain"][3] == "1"
    assert not any("evbuffer_add(" in line for line in done.lines)


def test_json_says_the_same(tmp_path: Path) -> None:
    program = written(tmp_path, PROGRAM)
    lines = traced(tmp_path, program).lines
    told = [json.loads(line) for line in traced(tmp_path, "--json", program).lines]
    assert [ADDRESS.sub("0x", json.dumps(parsed(line))) for line in lines] == [
        ADDRESS.sub("0x", json.dumps(one)) for one in told
    ]
    assert {"call": "event_add", "args": ["ev#3", "{5.000000 s}"], "result": "0"} in told
    assert {"begins": "on_read", "args": ["bev#1"]} in told
    assert told[-1] == {"end": "exited with 0"}


def test_what_libevent_calls_itself_is_told_when_asked(tmp_path: Path) -> None:
    program = written(tmp_path, PROGRAM)
    inside = traced(tmp_path, "--inside", program)
    outside = traced(tmp_path, program)
    assert not outside.calls("evbuffer_invoke_callbacks", "event_assign")
    assert inside.calls("event_assign")
    assert inside.out == outside.out


@pytest.mark.parametrize("by", ["abort", "segv"])
def test_a_crash_leaves_a_complete_trace(tmp_path: Path, by: str) -> None:
    how = {"abort": "os.abort()", "segv": "ctypes.string_at(0)"}[by]
    code = f"""
        import ctypes, os, resource
        from libevent_py import EventBase
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with EventBase() as base:
            base.once(lambda *_: {how})
            base.dispatch()
    """
    name = {"abort": signal.SIGABRT, "segv": signal.SIGSEGV}[by]
    done = traced(tmp_path, "-e", "event", written(tmp_path, code), status=128 + name)
    assert done.lines[-1] == f"+++ killed by {name.name} +++"
    assert "event_base_loop(base#1, 0 <unfinished ...>" in done.lines


def test_a_crash_in_libevent_tells_the_call(tmp_path: Path) -> None:
    code = """
        import resource
        from libevent_py import ffi, lib
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        lib.evbuffer_get_length(ffi.cast("struct evbuffer *", 64))
    """
    done = traced(tmp_path, written(tmp_path, code), status=128 + signal.SIGSEGV)
    assert done.lines[-2:] == [
        "evbuffer_get_length(buf#1 <unfinished ...>",
        "+++ killed by SIGSEGV +++",
    ]


def test_child_processes_are_told_when_asked(tmp_path: Path) -> None:
    code = """
        import os, subprocess, sys
        from libevent_py import EventBase
        with EventBase() as base:
            pid = os.fork()
            if pid == 0:
                base.reinit()
                base.close()
                os._exit(0)
            os.waitpid(pid, 0)
        subprocess.run([sys.executable, "-c", "import libevent_py"], check=True)
    """
    program = written(tmp_path, code)
    alone = traced(tmp_path, program)
    assert not alone.calls("event_reinit")
    assert len(alone.calls("event_get_version")) == 1
    follow = traced(tmp_path, "-f", program)
    assert {re.match(r"\[\d+\] ", line) is not None for line in follow.lines[:-1]} == {True}
    found = [line.partition("] ")[2] for line in follow.lines]
    assert "event_reinit(base#1) = 0" in found
    assert sum(line.startswith("event_get_version(") for line in found) == 2


def test_a_text_of_unknown_size_ends_with_its_nul(tmp_path: Path) -> None:
    source = """
        #include <event2/http.h>
        #include <stdlib.h>
        #include <string.h>

        int main(void)
        {
            char *text = malloc(4);

            strcpy(text, "a b");
            free(evhttp_uriencode(text, -1, 0));
            free(evhttp_uriencode(text, 2, 1));
            free(text);
            return 0;
        }
    """
    program = program_of(source, tmp_path, "-Wl,--no-as-needed", "-levent_extra")
    assert traced(tmp_path, str(program)).calls("evhttp_uriencode") == [
        'evhttp_uriencode("a b", -1, 0) = "a%20b"',
        'evhttp_uriencode("a ", 2, 1) = "a+"',
    ]


def test_what_libevent_itself_has_freed_gives_no_name_to_what_comes_after(tmp_path: Path) -> None:
    """New objects often have the memory of old ones."""
    file = written(
        tmp_path,
        """
        from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest, HttpServer

        asked = []

        def answer(request):
            request.send_reply_start(200, "OK")
            request.send_reply_chunk(b"hello")
            request.send_reply_end()

        def ask(done):
            if len(asked) == 3:
                base.loopexit()
                return
            asked.append(HttpRequest(ask))
            asked[-1].output_headers["Connection"] = "close"
            HttpConnection(base, "127.0.0.1", port).make_request(asked[-1], HttpCommand.GET, "/")

        with EventBase() as base:
            server = HttpServer(base)
            server.set_gencb(answer)
            port = server.bind_socket("127.0.0.1", 0).port
            ask(None)
            base.dispatch()
        """,
    )
    lines = traced(tmp_path, file).lines
    answered = re.findall(r"<- on_request\((req#\d+)\)", "\n".join(lines))
    assert len(set(answered)) == len(answered) == 3
    moved = re.findall(r"evbuffer_add_buffer\(buf#\d+, output of (req#\d+)\)", "\n".join(lines))
    assert moved == answered
    made = re.findall(r"evbuffer_new\(\) = (.*)", "\n".join(lines))
    assert len(set(made)) == len(made) >= 6
    assert all(re.fullmatch(r"buf#\d+", name) for name in made)


def test_each_thread_has_its_own_indentation(tmp_path: Path) -> None:
    code = """
        import threading
        from libevent_py import EventBase

        def work():
            with EventBase() as base:
                for _ in range(100):
                    base.once(lambda *_: base.events())
                base.dispatch()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    """
    done = traced(tmp_path, written(tmp_path, code))
    found = [parsed(line) for line in done.lines]
    assert not [one for one in found if "text" in one]
    assert sum("begins" in one for one in found) == sum("ends" in one for one in found) >= 400


def test_a_module_is_traced_with_all_that_follows(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "__main__.py").write_text(
        "import sys\nfrom libevent_py import EventBase\nEventBase().close()\nprint(sys.argv[1:])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    given = ["-c", "x", "-m", "--json", "--", "-x", "y"]
    done = run("-e", "event_base_free", "-m", "part", *given, env=env)
    assert done.stdout == f"{given}\n"
    assert done.stderr == "event_base_free(base#1)\n+++ exited with 0 +++\n"


def test_a_module_must_be_named() -> None:
    assert "-m: say which module is to be run" in run("-c", "-m", status=2).stderr


def test_a_program_s_own_option_m_is_its_own(tmp_path: Path) -> None:
    program = written(tmp_path, "import sys; print(sys.argv[1:])")
    assert run(program, "-m", "x").stdout == "['-m', 'x']\n"


@pytest.mark.parametrize(
    ("inject", "raised"),
    [
        ("event_new:error=NULL:errno=ENOMEM:when=3", "MemoryError"),
        ("event_add:error=-1:errno=ENOSPC", "OSError"),
        ("bufferevent_write:error=-1:when=1..2", "LibeventError"),
    ],
)
def test_a_call_fails_as_it_is_told_to(tmp_path: Path, inject: str, raised: str) -> None:
    done = run("-e", "event_new,event_add,bufferevent_write", "--inject", inject,
               written(tmp_path, PROGRAM), status=1)  # fmt: skip
    assert raised in done.stderr
    assert "(INJECTED)" in done.stderr


def test_calls_fail_from_one_on(tmp_path: Path) -> None:
    code = """
        from libevent_py import lib
        buffer = lib.evbuffer_new()
        results = [lib.evbuffer_add(buffer, b"x", 1) for _ in range(4)]
        print(results, lib.evbuffer_get_length(buffer))
    """
    fault_from_2 = "evbuffer_add:error=-1:errno=ENOMEM:when=2+"
    done = traced(tmp_path, "--inject", fault_from_2, written(tmp_path, code))
    assert done.out == "[0, -1, -1, -1] 1\n"
    assert done.calls("evbuffer_add")[1].endswith(" = -1 ENOMEM (INJECTED)")


ADDS = """
    from libevent_py import lib
    buffer = lib.evbuffer_new()
    print([lib.evbuffer_add(buffer, b"x", 1) for _ in range(4)])
"""


def test_several_faults_of_a_function_each_count_its_calls(tmp_path: Path) -> None:
    faults = [f"--inject=evbuffer_add:error={-n}:when={n}" for n in (1, 3, 4)]
    done = traced(tmp_path, *faults, written(tmp_path, ADDS))
    assert done.out == "[-1, 0, -3, -4]\n"


@pytest.mark.parametrize(
    ("inject", "said"),
    [
        ("evbuffer_add:error=-1:when=5+", "evbuffer_add was called 4 times"),
        ("evbuffer_new:error=NULL:when=7", "evbuffer_new was called 1 time"),
        (
            "evconnlistener_new_bind:error=NULL",
            "evconnlistener_new_bind was called 0 times (in Python, Listener calls "
            "evconnlistener_new)",
        ),
        ("malloc:when=100000+", "libevent has allocated [1-9][0-9]* times"),
    ],
)
def test_an_injection_that_never_took_place_is_told(tmp_path: Path, inject: str, said: str) -> None:
    missed = re.escape(f"--inject {inject} never took place: ")
    missed += said if "[" in said else re.escape(said)
    file = tmp_path / "trace"
    options = ["-o", str(file), "-e", "evbuffer_add", "--inject", inject]
    done = run(*options, written(tmp_path, ADDS), status=2)
    assert done.stdout == "[0, 0, 0, 0]\n"
    assert re.fullmatch(rf"libevent_py: trace: {missed}\n", done.stderr)
    *_, line, last = file.read_text().splitlines()
    assert re.fullmatch(rf"\+\+\+ {missed} \+\+\+", line)
    assert last == "+++ exited with 0 +++"


def test_on_stderr_it_is_told_once_and_as_json_when_asked(tmp_path: Path) -> None:
    options = ["-e", "evbuffer_add", "--inject", "evbuffer_add:error=-1:when=9"]
    program = written(tmp_path, ADDS)
    assert run(*options, program, status=2).stderr.count("never took place") == 1
    lines = run("--json", *options, program, status=2).stderr.splitlines()
    told = [each for each in map(json.loads, lines) if "missed" in each]
    assert told == [
        {"missed": f"{' '.join(options[2:])} never took place: evbuffer_add was called 4 times"}
    ]


def test_only_what_never_took_place_is_told_and_a_program_s_status_stays(tmp_path: Path) -> None:
    program = written(tmp_path, ADDS + "    raise SystemExit(3)\n")
    options = [f"--inject=evbuffer_add:error=-1:when={n}" for n in (2, 9)]
    done = traced(tmp_path, *options, program, status=3)
    assert done.out == "[0, -1, 0, 0]\n"
    assert [line for line in done.lines if "never took place" in line] == done.lines[-2:-1]
    assert "when=9 never took place" in done.lines[-2]


def test_what_child_processes_call_is_counted_when_they_are_traced(tmp_path: Path) -> None:
    code = """
        import os
        from libevent_py import lib
        for each in range(3):
            if os.fork() == 0:
                lib.evbuffer_new()
                os._exit(0)
            os.wait()
    """
    options = ["--inject", "evbuffer_new:error=NULL:when=2", written(tmp_path, code)]
    done = traced(tmp_path, "-f", *options, status=2)
    assert "evbuffer_new was called 3 times" in done.lines[-2]  # once in each
    assert "evbuffer_new was called 0 times" in traced(tmp_path, *options, status=2).lines[-2]


def test_what_libevent_allocates_fails_as_it_is_told_to(tmp_path: Path) -> None:
    code = """
        from libevent_py import Buffer
        buffer = Buffer()
        for each in range(3):
            try:
                buffer.add(b"x")
            except MemoryError as error:
                print(error)
        print(bytes(buffer))
    """
    # The package allocates as it is imported: which allocation is the buffer's first one for bytes?
    count = """
        from libevent_py import Buffer, MemorySource, debug
        buffer = Buffer()
        print(debug.memory(MemorySource.LIBEVENT).allocations)
    """
    counted = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(count)],
        env={**os.environ, "LIBEVENT_PY_COUNT_MEMORY": "1"},
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    first = int(counted.stdout) + 1
    faults = f"malloc:when={first}..{first + 1}"
    done = traced(tmp_path, "-e", "evbuffer_add", "--inject", faults, written(tmp_path, code))
    assert done.out == 2 * "evbuffer_add: Cannot allocate memory\n" + "b'x'\n"
    told = [line.strip() for line in done.lines]
    at = next(n for n, line in enumerate(told) if "INJECTED" in line)
    assert re.fullmatch(r'evbuffer_add\(.+, "x", 1 <unfinished \.\.\.>', told[at - 1])
    assert re.fullmatch(r"malloc\(\d+\) = NULL ENOMEM \(INJECTED\)", told[at])
    assert told[at + 1] == "<... evbuffer_add resumed>) = -1 ENOMEM"


@pytest.mark.parametrize("nth", range(1, 12))
def test_the_package_is_imported_or_says_that_there_is_no_memory(tmp_path: Path, nth: int) -> None:
    code = "from libevent_py import EventBase\nwith EventBase() as base: base.loop(2)\n"
    done = run("-e", "event_base_new", "--inject", f"malloc:when={nth}",
               written(tmp_path, code), status=None)  # fmt: skip
    assert "(INJECTED)" in done.stderr
    assert done.returncode == 0 or re.search(r"^MemoryError: ", done.stderr, re.MULTILINE)


MEMORY_IN_C = r"""
    #include <event2/event.h>
    #include <event2/buffer.h>
    #include <stdio.h>
    #include <stdlib.h>

    static int taken, given;

    static void *take(size_t size) { ++taken; return malloc(size); }
    static void *resize(void *old, size_t size) { return realloc(old, size); }
    static void give(void *memory) { ++given; free(memory); }

    int main(int argc, char **argv)
    {
        struct evbuffer *buffer;
        int i;

        (void)argv;
        if (argc > 1)
            event_set_mem_functions(take, resize, give);
        buffer = evbuffer_new();
        for (i = 0; i < 3; ++i)
            printf("%d ", evbuffer_add(buffer, "x", 1));
        evbuffer_free(buffer);
        printf("%d %d\n", taken, given);
        return 0;
    }
"""


@pytest.mark.parametrize("own", [False, True], ids=["malloc", "its-own"])
def test_what_libevent_allocates_fails_in_a_c_program(tmp_path: Path, own: bool) -> None:
    program = str(program_of(MEMORY_IN_C, tmp_path))
    arguments = [program, *(["its own"] if own else [])]
    done = traced(tmp_path, "--inject", "malloc:when=2..3", *arguments)
    assert done.out == f"-1 -1 0 {'2 2' if own else '0 0'}\n"
    assert sum("(INJECTED)" in line for line in done.lines) == 2


def test_another_backend_is_used(tmp_path: Path) -> None:
    code = "from libevent_py import EventBase\nprint(EventBase().method)\n"
    for method in EventBase.supported_methods():
        assert traced(tmp_path, "--backend", method, written(tmp_path, code)).out == f"{method}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", "evnt_add", "x.py"], "did you mean event_add"),
        (["x.py"], "there is no file x.py"),
        (["no-such-program"], "there is no program no-such-program: give its path"),
        (["--backend", "kqueue", "true"], "there is no backend kqueue: there are "),
        (["--libevent", "/", "true"], "there is no libevent in /: give the directory"),
        (["--inject", "event_add", "true"], "say what the function is to return, as error=-1"),
        (["--inject", "event_add:error=x", "true"], "error=x is no value: give a number, or NULL"),
        (["--inject", "event_add:error=-1:no=1", "true"], "'no=1' is none of error=VALUE"),
        (
            ["--inject", "event_add:error=-1:errno=EFOO", "true"],
            "--inject event_add:error=-1:errno=EFOO: unknown errno 'EFOO': give its name",
        ),
        (["--inject", "event_add:error=-1:errno=ENOMEN", "true"], "did you mean ENOMEM"),
        (["--inject", "event_add:error=-1:errno=12", "true"], "give its name, such as ENOMEM"),
        (
            ["--inject", "event_add:error=-1:errno=errorcode", "true"],
            "unknown errno 'errorcode': give its name",
        ),
        (
            ["--inject", "event_add:error=-1:when=x", "true"],
            "when=x says no call: give its number as N, N+ for all from it on, or N..M",
        ),
        (["--inject", "malloc:when=0", "true"], "when=0 is no call: the first one is 1"),
        (["--inject", "malloc:when=3..2", "true"], "when=3..2 is no call: the first one is 1"),
        (["-o", "a\nb", "true"], "the path must be in one line"),
        (["--inject", "malloc:error=-1", "true"], "malloc() can only return NULL"),
        (33 * ["--inject", "malloc:when=1"] + ["true"], "there are 33, and at most 32 can be"),
        (["--inject", "malloc_:error=NULL", "true"], "libevent has no function malloc_ that can"),
        (["--inject", "evbuffer:error=NULL", "true"], "libevent has no function evbuffer that can"),
        (["--inject", "accept4:error=-1", "true"], "system calls can't be made to fail"),
        (
            ["-e", "listener", "true"],
            "(families are bufferevent, ev, evbuffer, evconnlistener, evdns, event, evhttp, evrpc, "
            "evtag, evthread, evutil, libevent, and longer beginnings such as event_base)",
        ),
    ],
)
def test_bad_input_is_told_with_what_to_do(arguments: list[str], said: str) -> None:
    done = run(*arguments, status=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_folders_may_have_spaces(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    program = written(place, "from libevent_py import EventBase\nEventBase().close()\n")
    env = {**os.environ, "TMPDIR": str(place)}
    run("-o", str(place / "c d"), "-e", "event_base_free", program, env=env)
    assert (place / "c d").read_text() == "event_base_free(base#1)\n+++ exited with 0 +++\n"


def test_a_static_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "static.c"
    file.write_text("int main(void) { return 0; }\n")
    subprocess.run(
        ["gcc", "-static", "-o", tmp_path / "static", file], check=True, timeout=PATIENCE
    )
    done = run(str(tmp_path / "static"), status=2)
    assert "is linked statically, so nothing can be put before its libevent" in done.stderr


def test_a_program_without_libevent_is_run_all_the_same() -> None:
    done = run("true")
    assert "is not linked with libevent" in done.stderr


def test_faults_are_read() -> None:
    assert fault("event_add:error=-1:when=2..3") == ("event_add", -1, 0, 2, 3)


def test_every_public_function_that_has_a_body_is_traced() -> None:
    found = names()
    assert len(found) > 440
    assert {"event_add", "bufferevent_getcb", "evhttp_new", "evdns_base_new"} <= set(found)
    assert not [name for name in found if name.startswith("evpy_")]


@pytest.mark.more
def test_the_library_compiles_without_a_warning() -> None:
    code = "import build_trace; print(*build_trace.include_dirs(), sep='\\n')"
    command = [sys.executable, "-c", code]
    made = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    include = [f"-I{directory}" for directory in made.stdout.splitlines()]
    options = ["-S", "-o", os.devnull, "-Wall", "-Wextra", "-Werror"]
    options.append("-DLIBEVENT_PY_HAVE_OPENSSL=1")
    source = "libevent_py/_trace/preload.c"
    subprocess.run(["gcc", *options, *include, source], cwd=ROOT, check=True, timeout=PATIENCE)
