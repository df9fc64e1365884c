"""No function of libevent's is forgotten, and the command line knows where each has gone."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py.__main__ import main
from libevent_py._cli import find
from libevent_py._cli.find import Place, absent, declared, places, stood_for, wrapped
from tests.kit.cdefs import cdef, declarations, function_name, not_declared
from tests.kit.support import PATIENCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(libevent_py.__file__).parent
HEADERS = PACKAGE.parent / "vendor" / "include"
NOT_WRAPPED = tomllib.loads((PACKAGE / "_c" / "not_wrapped.toml").read_text())


@cache
def functions(header: str) -> set[str]:
    """The functions that a header's cdef declares."""
    noun = header.removesuffix(".h")
    return {name for one in declarations(cdef(noun)) if (name := function_name(one))}


def not_wrapped() -> list[str]:
    return [name for group in NOT_WRAPPED["functions"] for name in group["names"]]


@pytest.mark.parametrize("header", NOT_WRAPPED["headers"])
def test_every_function_is_wrapped_or_listed_with_a_reason(header: str) -> None:
    listed = functions(header) & set(not_wrapped())
    assert functions(header) - places().keys() == listed, "see libevent_py/_c/not_wrapped.toml"


def test_the_headers_whose_functions_are_counted_declare_some() -> None:
    assert all(functions(header) for header in NOT_WRAPPED["headers"])


def test_what_is_listed_is_of_those_headers_and_listed_once() -> None:
    names = not_wrapped()
    assert len(names) == len(set(names))
    assert set(names) <= set().union(*map(functions, NOT_WRAPPED["headers"]))
    assert all(group["why"].strip() for group in NOT_WRAPPED["functions"])


def test_what_a_docstring_says_it_wraps_is_a_function_or_macro_of_libevents() -> None:
    known = {name for path in PACKAGE.glob("_c/*.h") for name in known_to(path.stem)}
    assert places().keys() <= known | not_declared("macros")


def known_to(noun: str) -> set[str]:
    return set() if noun in ("types", "log") else functions(f"{noun}.h")


def test_each_place_is_where_its_definition_begins() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): path.read_text().splitlines()
        for path in PACKAGE.rglob("*.py")
    }
    for found in places().values():
        for place in found:
            package, _, file = place.path.partition("/")
            assert package == "libevent_py"
            name = place.name.rpartition(".")[2]
            expected = (f"def {name}(", f"class {name}(", f"class {name}:", "def __init__(")
            assert lines[file][place.line - 1].strip().startswith(expected), place


def test_each_place_is_an_object_of_that_name() -> None:
    for found in places().values():
        for place in found:
            module = place.path.removesuffix(".py").replace("/", ".")
            head, *rest = place.name.split(".")
            holder: Any = vars(libevent_py).get(head)
            holder = holder or getattr(importlib.import_module(module), head)
            for name in rest:
                holder = getattr(holder, name)


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        ("Do it. Wraps ``event_add``.", ["event_add"]),
        ("Do it.\n\nWraps ``a_b``, ``c``,\n``d``.", ["a_b", "c", "d"]),
        ("Do it.\nWraps\n``event_add``.\n", ["event_add"]),
        ("Do it. Wraps ``a``. Also this. Wraps ``b``.", ["a", "b"]),
        ("Do it. Wraps ``a``. Stands for ``b``, ``c``.", ["a"]),
        ("Unwraps ``a``. Does what ``b`` does. Wraps nothing.", []),
        ("", []),
    ],
)
def test_a_docstring_says_what_it_wraps(docstring: str, names: list[str]) -> None:
    assert wrapped(docstring) == names


def test_a_docstring_says_what_it_stands_for() -> None:
    assert stood_for("Do it. Wraps ``a``. Stands for ``b``,\n``c``.") == ["b", "c"]
    assert stood_for("Do it. Stands\nfor ``a``.") == ["a"]
    assert stood_for("Wraps ``a``. It stands for ``b``.") == []


def test_each_place_has_the_name_of_the_class_that_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noun").mkdir()
    one = 'class One:\n    def __init__(self):\n        """Make. Wraps ``a_new``."""\n'
    close = '    def close(self):\n        """Close. Wraps ``a_free``."""\n'
    (tmp_path / "noun" / "one.py").write_text(one + close)
    two = 'def f():\n    """Do. Wraps ``a_do``, ``a_free``. Stands for ``a_dup``."""\n'
    (tmp_path / "two.py").write_text(two)
    monkeypatch.setattr(find, "PACKAGE", tmp_path)
    assert places() == {
        "a_new": [Place("One", f"{tmp_path.name}/noun/one.py", 2)],
        "a_free": [
            Place("One.close", f"{tmp_path.name}/noun/one.py", 4),
            Place("f", f"{tmp_path.name}/two.py", 1),
        ],
        "a_do": [Place("f", f"{tmp_path.name}/two.py", 1)],
        "a_dup": [Place("f", f"{tmp_path.name}/two.py", 1, True, ("a_do", "a_free"))],
    }


#: Where a C programmer looks for a function, by its prefix: the longest that fits.
FILES = {
    "evbuffer_": "buffer/buffer.py",
    "evbuffer_cb_": "buffer/callbacks.py",
    "evbuffer_file_segment_": "buffer/segment.py",
    "bufferevent_": "bufferevent/bufferevent.py",
    "bufferevent_rate_limit_group_": "bufferevent/limits.py",
    "evhttp_": "http/server.py",
    "evhttp_connection_": "http/client.py http/server_connection.py",
    "evhttp_request_": "http/request.py http/server_request.py",
    "evhttp_send_": "http/server_request.py",
    "evhttp_bound_socket_": "http/bound_socket.py",
    "evhttp_uri": "http/uri.py",
    "evhttp_find_header": "http/headers.py",
    "evhttp_add_header": "http/headers.py",
    "evhttp_remove_header": "http/headers.py",
    "evhttp_clear_headers": "http/headers.py",
    "evhttp_parse_query": "http/headers.py",
}


@pytest.mark.parametrize("noun", ["evbuffer_", "bufferevent_", "evhttp_"])
def test_nine_in_ten_functions_are_where_their_prefix_says(noun: str) -> None:
    elsewhere = []
    found = [(name, place) for name, known in places().items() for place in known]
    found = [(name, place) for name, place in found if name.startswith(noun)]
    for name, place in found:
        prefix = max((known for known in FILES if name.startswith(known)), key=len)
        if place.path.removeprefix("libevent_py/") not in FILES[prefix].split():
            elsewhere.append((name, place.path))
    assert len(elsewhere) <= len(found) / 10, elsewhere


def test_functions_of_ours_and_constants_are_not_libevents_functions() -> None:
    assert declared("event_add")
    assert declared("bufferevent_new") is hasattr(libevent_py.lib, "bufferevent_new")
    assert declared("libevent_global_shutdown")
    for name in ("evpy_event_new", "free", "EV_READ", "event_", "", "LIBEVENT_VERSION"):
        assert not declared(name)


# The command line.


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    output = capsys.readouterr()
    return status, output.out, output.err


def test_the_command_line_says_where_a_function_is_wrapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place,) = places()["event_add"]
    expected = f"Event.add  libevent_py/event/event.py:{place.line}\n"
    assert run(capsys, "event_add") == (0, expected, "")


def test_it_says_so_of_each_place_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "event_pending")
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == ["Event.pending", "Event.expires"]


def test_it_knows_what_a_macro_has_become(capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = places()["evsignal_new"]
    where = f"libevent_py/event/event.py:{place.line}"
    expected = f"Event.signal stands for it, and calls event_new  {where}\n"
    assert run(capsys, "evsignal_new") == (0, expected, "")


def test_it_says_how_to_call_a_function_that_something_else_stands_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place,) = places()["evbuffer_readln"]
    assert run(capsys, "evbuffer_readln") == (
        0,
        "Buffer.readln stands for it, and calls evbuffer_search_eol, evbuffer_copyout, "
        f"evbuffer_drain  libevent_py/buffer/buffer.py:{place.line}\n"
        "libevent's own can be called as libevent_py.lib.evbuffer_readln.\n",
        "",
    )


def test_it_says_why_a_function_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "evutil_strtoll") == (
        1,
        "",
        "evutil_strtoll is not wrapped: int() does it.\n"
        "It can be called as libevent_py.lib.evutil_strtoll.\n",
    )


def test_it_says_why_a_function_can_not_even_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, complaint = run(capsys, "evutil_vsnprintf")
    assert (status, output) == (1, "")
    assert complaint.startswith("evutil_vsnprintf is not declared: takes a va_list")


def test_it_does_without_a_reason_where_the_tables_are_not_installed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "PACKAGE", tmp_path)
    assert absent("event_base_set") is None
    assert run(capsys, "event_base_set") == (
        1,
        "",
        "event_base_set is not wrapped.\nIt can be called as libevent_py.lib.event_base_set.\n",
    )


COMPAT = sorted(name for path in PACKAGE.glob("_c/*_compat.h") for name in functions(path.name))


def test_the_functions_of_libevent_1_are_35() -> None:
    assert len(COMPAT) == len(set(COMPAT)) == 35
    assert {"event_init", "evdns_init", "evhttp_start", "evbuffer_readline"} <= set(COMPAT)


@pytest.mark.parametrize("name", COMPAT)
def test_it_says_of_a_function_of_libevent_1_what_to_use_instead(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, complaint = run(capsys, name)
    why, *instead, callable_ = complaint.splitlines()
    assert (status, output) == (1, "")
    assert why.startswith(f"{name} is not wrapped: of libevent 1.x: it ")
    assert callable_ == f"It can be called as libevent_py.lib.{name}."
    assert (instead and instead[0].startswith("Use ev")) or instead[0].startswith(
        "Use bufferevent_"
    )
    known = absent(name)
    assert known is not None
    expected = []
    for other in known.instead:
        expected.append(f"Use {other} instead:")
        expected += [f"{place.name}  {place.path}:{place.line}" for place in places()[other]]
    assert instead == expected


def test_it_says_what_an_old_name_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = places()["event_base_new"]
    assert run(capsys, "event_init")[2].splitlines()[1:3] == [
        "Use event_base_new instead:",
        f"EventBase  libevent_py/event/base.py:{place.line}",
    ]


def function_like_macros() -> set[str]:
    """The macros of all headers that are called as functions are."""
    headers = (HEADERS / "event2").glob("*.h")
    texts = [path.read_text() for path in headers if not path.name.startswith("event-config")]
    return {name for text in texts for name in re.findall(r"^#define (\w+)\(", text, re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(function_like_macros()))
def test_it_knows_every_macro_and_what_to_use_instead(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, complaint = run(capsys, name)
    if name in places():
        assert status == 0 and output
        return
    known = absent(name)
    assert known is not None and known.kind in ("macro", "function")
    assert (status, output) == (1, "")
    assert complaint.startswith(f"{name} is {'a macro' if known.kind == 'macro' else 'not '}")
    # Where a macro does nothing but C's own business, the reason says what Python has.
    alone = "Python has operators|ffi.errno|makes a struct|fields? of its own|only Windows|only for"
    assert known.instead or re.search(alone, known.why), known


def test_what_is_to_be_used_instead_is_there() -> None:
    for table in ("not_wrapped", "not_declared"):
        read = tomllib.loads((PACKAGE / "_c" / f"{table}.toml").read_text())
        listed = {
            name
            for kind in ("functions", "macros")
            for group in read.get(kind, ())
            for name in group["names"]
        }
        assert read["instead"].keys() <= listed
        for names in read["instead"].values():
            for name in names:
                holder: Any = libevent_py
                if name not in places():
                    for part in name.split("."):
                        holder = getattr(holder, part)


def test_it_says_what_a_macro_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = places()["event_add"]
    assert run(capsys, "evtimer_add") == (
        1,
        "",
        "evtimer_add is a macro: an event_ function with some arguments filled in.\n"
        "Use event_add instead:\n"
        f"Event.add  libevent_py/event/event.py:{place.line}\n",
    )
    assert run(capsys, "EVRPC_STRUCT")[2].endswith("Use rpc_message.Message instead.\n")


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("EV_READ", "EventFlag.READ\n"),
        ("BEV_OPT_CLOSE_ON_FREE", "BufferEventOption.CLOSE_ON_FREE\n"),
        ("BUFFEREVENT_SSL_OPEN", "TlsState.OPEN\n"),
    ],
)
def test_it_says_which_member_a_constant_is(
    name: str, members: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, name) == (0, members, "")


def test_a_constant_of_no_enumeration_is_to_be_had_from_lib(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "EV_RATE_LIMIT_MAX"
    told = f"{name} is in no enumeration. It can be read as libevent_py.lib.{name}.\n"
    assert run(capsys, name) == (1, "", told)


def test_what_several_classes_have_from_one_that_is_not_public_has_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, output, _ = run(capsys, "evhttp_request_get_uri")
    assert status == 0
    assert output.startswith("HttpRequest.uri, HttpServerRequest.uri  libevent_py/http/request.py:")


@pytest.mark.parametrize("name", ["free", "evpy_event_new", "EVPY_BEYOND", ""])
def test_it_says_when_libevent_has_no_such_function(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, name) == (2, "", f"libevent has no function, macro or constant {name}.\n")


@pytest.mark.slow
def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "libevent_py"]
    for name, status in {"event_add": 0, "event_base_set": 1, "event_ad": 2}.items():
        done = subprocess.run(
            [*command, name], capture_output=True, text=True, timeout=PATIENCE, cwd=PACKAGE.parent
        )
        assert done.returncode == status, done.stderr
        assert bool(done.stdout) == (status == 0) != bool(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reads"),
    [("doctor", 1), ("doctor", 0), ("event_add", 0), ("", 0), ("--help", 0), ("event_init", 0)],
)
def test_it_ends_quietly_where_nobody_reads_on(arguments: str, reads: int) -> None:
    """As in ``doctor | head -1``: with the status of a program that SIGPIPE ends."""
    read, write = os.pipe()
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "libevent_py", *arguments.split()]
    stream = "stderr" if arguments == "event_init" else "stdout"
    other = "stdout" if stream == "stderr" else "stderr"
    options: dict[str, Any] = {stream: write, other: subprocess.PIPE}
    with subprocess.Popen(command, cwd=PACKAGE.parent, text=True, **options) as program:
        os.close(write)
        with os.fdopen(read) as pipe:
            for _ in range(reads):
                assert pipe.readline().startswith("libevent_py ")
        said = program.communicate(timeout=5 * PATIENCE)
    ended = {128 + signal.SIGPIPE, 0} if reads else {128 + signal.SIGPIPE}
    assert program.returncode in ended  # all may have been written before reading ended
    assert [text for text in said if text] == []


@pytest.mark.slow
def test_it_ends_well_where_there_is_no_output_at_all() -> None:
    command = f"{shlex.quote(sys.executable)} -m libevent_py event_add >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=PACKAGE.parent, timeout=PATIENCE).returncode == 0
