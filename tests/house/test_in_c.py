"""``python -m libevent_py c NAME``: from Python to C; and the index of several names at once."""

from __future__ import annotations

import pytest

from libevent_py.__main__ import main
from libevent_py._cli import in_c
from libevent_py._cli.find import constants, declared, places
from tests.kit.cdefs import cdef
from tests.kit.support import ROOT


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("EventBase", "struct event_base *event_base_new(void);"),
        ("Event.signal", "#define evsignal_new(b, x, cb, arg) event_new((b), (x), EV_SIGNAL|"),
        ("Event.timer", "#define evtimer_new(b, cb, arg) event_new((b), -1, 0, (cb), (arg))"),
        ("EventFlag.READ", "EV_READ"),
        ("EventFlag", "EV_CLOSED"),
        ("BufferEventFlag", "BEV_EVENT_EOF"),
        ("EolStyle.CRLF", "EVBUFFER_EOL_CRLF"),
        ("base.once", "int event_base_once(struct event_base *, "),
        ("bev.write", "int bufferevent_write(struct bufferevent *bufev, "),
        ("util.socketpair", "int evutil_socketpair(int d, int type, int protocol, "),
        ("BufferEvent.on_event", "typedef void (*bufferevent_event_cb)(struct bufferevent *bev, "),
        ("BufferEvent.setw*", "void bufferevent_setwatermark(struct bufferevent *bufev, "),
        ("BufferEvent.setwatermark", "void bufferevent_setwatermark(struct bufferevent *bufev, "),
        ("Listener", "struct evconnlistener *evconnlistener_new_bind(struct event_base *base, "),
        ("on_read", "typedef void (*bufferevent_data_cb)(struct bufferevent *bev, void *ctx);"),
        ("event_add", "int event_add(struct event *ev, const struct timeval *timeout);"),
        (
            "evbuffer_add*",
            "int evbuffer_add_buffer(struct evbuffer *outbuf, struct evbuffer ",
        ),
        ("HttpServer.bind_socket", "int evhttp_bind_socket("),
        ("EventBase.turn", "int event_base_loop(struct event_base *, int);"),
    ],
)
def test_a_name_of_python_s_is_told_in_c(
    name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["c", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = [n for n, line in enumerate(lines) if line.startswith(told)]
    assert lines[place - 1].startswith("#include <event2/")


def test_what_a_name_stands_for_comes_before_what_it_calls() -> None:
    assert in_c.functions_of("BufferEvent.read") == ["bufferevent_read", "evbuffer_remove"]
    assert in_c.functions_of("Buffer.add_file")[0] == "evbuffer_add_file"


def test_every_name_that_says_what_it_is_in_c_is_found() -> None:
    names = {*in_c.said(), *constants()}
    assert len(names) > 500
    assert [name for name in names if not in_c.lines_of(name, whole=True)] == []
    others = {one.text for one in in_c.prototypes().values() if not one.header.startswith("event2")}
    assert others == {f"TLS1{minor}_VERSION" for minor in ("", "_1", "_2", "_3")}


def test_what_a_macro_stands_for_is_what_the_header_has() -> None:
    header = ROOT.joinpath("vendor", "include", in_c.MACROS_HEADER).read_text().replace("\\\n", " ")
    lines = {" ".join(line.split()) for line in header.splitlines()}
    for name, text in in_c.MACROS.items():
        assert f"#define {name}{text}" in lines


def test_a_class_is_a_table_that_begins_with_what_makes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["c", "EventBase"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "#include <event2/event.h>",
        "struct event_base *event_base_new(void);",
        "    It returns NULL on failure. What it makes is yours: free it by event_base_free().",
    ]
    assert "event_base_once" in [line.split()[-1] for line in lines if "EventBase.once " in line]
    assert len(lines) < 40
    assert "c EventBase.METHOD" in lines[-1]
    assert main(["c", "--all", "EventBase"]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("\n".join(lines[:3]))
    assert "EventBase.once: Call ``callback(fd, what)`` once" in whole
    assert whole.count("EventBase: Make a base as *config* asks") == 1


@pytest.mark.parametrize("command", [["c"], ["find"], []])
def test_what_is_the_package_s_own_is_said_to_be(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EventBase.defer", "base.defer", "BufferEventOption.EAGER"):
        assert main([*command, name]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err) == (
            "",
            f"Nothing in C stands behind {name}: it is the package's own.\n",
        )
    assert main([*command, "EventBase.deffer"]) == 2


def test_a_name_of_python_s_alone_is_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("EventBase.once", "base.once", "on_read", "EventFlag.READ", "Listener"):
        assert main([name]) == 0
        told = capsys.readouterr().out
        assert main(["c", name]) == 0
        assert capsys.readouterr().out == told


def test_it_says_what_c_leaves_to_you(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["c", "evbuffer_new", "Event.add", "event_active"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "It returns NULL on failure. What it makes is yours: free it by evbuffer_free()." in said
    assert "Raises `OSError` when the backend refuses the descriptor" in said
    assert "(docs/lifetimes.md)" in said
    assert "Wraps" not in said


def test_an_unknown_name_is_told_with_what_may_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["c", "Listner"]) == 2
    assert "did you mean Listener" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["c"])
    assert ended.value.code == 2
    assert "NAME" in capsys.readouterr().err
    assert main(["evbufer_add"]) == 2
    assert "Did you mean evbuffer_add" in capsys.readouterr().err


def test_every_function_that_is_declared_has_a_prototype() -> None:
    known = set(in_c.callable_in_c())
    assert {name for name in places() if declared(name)} <= known
    assert len(known) > 450
    for name in known:
        text = in_c.prototypes()[name].text.removesuffix(";")
        header = in_c.prototypes()[name].header.removeprefix("event2/").removesuffix(".h")
        assert text in " ".join(in_c.COMMENT.sub("", cdef(header)).split())


def test_every_type_of_callback_is_one() -> None:
    for names in in_c.CALLBACKS.values():
        assert all(in_c.prototypes()[name].text.startswith("typedef ") for name in names)


def test_several_names_wildcards_and_all_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event_add", "EV_READ"]) == 0
    assert "Event.add" in capsys.readouterr().out
    assert main(["evbuffer_add_*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5 and all(line.startswith("evbuffer_add_") for line in lines)
    assert main(["no_such_*"]) == 2
    assert "no function like no_such_*" in capsys.readouterr().err
    assert main(["--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(in_c.callable_in_c())
