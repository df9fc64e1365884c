"""``python -m libevent_py c NAME``: from Python to C; and the index of several names at once."""

from __future__ import annotations

import pytest

from libevent_py.__main__ import main
from libevent_py._cli import in_c
from libevent_py._cli.find import declared, places
from tests.kit.cdefs import cdef


@pytest.mark.parametrize(
    ("name", "told"),
    [
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
