"""The cdef in libevent_py/_c says what libevent's headers say, all of it, and the library agrees.

cffi compiles what the cdef says; the compiler then converts a wrong integer width without a word.
So the declarations are compared as text, both sides run through the preprocessor."""

import ctypes
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from libevent_py import _ffi
from libevent_py._ffi import ffi, lib
from tests.kit.cdefs import C, cdef, declarations, function_name, not_declared, without_comments
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import ROOT, run_python

if sys.version_info >= (3, 11):
    pass
else:
    pass

INCLUDE = ROOT / "vendor" / "include"
NOUNS = [
    header.stem
    for header in sorted(C.glob("*.h"))
    if (INCLUDE / "event2" / header.name).exists()
    and (header.stem != "bufferevent_ssl" or lib.LIBEVENT_PY_HAVE_OPENSSL)
]
CONSTANT = re.compile(r"^(?:#define (\w+) \.\.\.|static char \*const (\w+);)$", re.MULTILINE)


def header(noun: str) -> str:
    return without_comments((INCLUDE / "event2" / f"{noun}.h").read_text())


@cache
def preprocessed() -> dict[str, str]:
    """The headers, and below them each noun's cdef, as the compiler sees them: by file name."""
    nouns = sorted(NOUNS, key=lambda noun: (noun == "bufferevent_struct", noun))
    text = ["#include <netdb.h>", *(f"#include <event2/{noun}.h>" for noun in nouns)]
    for noun in nouns:
        text += [f'#line 1 "_c/{noun}.h"', re.sub(CONSTANT, "", cdef(noun))]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    command = [*compiler, "-E", "-dD", "-D_GNU_SOURCE", "-I", str(INCLUDE), "-x", "c", "-"]
    output = subprocess.check_output(command, input="\n".join(text), text=True)
    files: dict[str, str] = {}
    name = ""
    for line in output.splitlines(keepends=True):
        if marker := re.match(r'# \d+ "(.*?)"', line):
            name = marker[1]
        else:
            files[name] = files.get(name, "") + line
    return files


def preprocessed_header(noun: str) -> str:
    return preprocessed()[str(INCLUDE / "event2" / f"{noun}.h")]


def functions(noun: str) -> Iterator[str]:
    return filter(None, map(function_name, declarations(preprocessed()[f"_c/{noun}.h"])))


@pytest.mark.parametrize("noun", NOUNS)
def test_every_declaration_equals_the_headers_token_by_token(noun: str) -> None:
    said = declarations(preprocessed_header(noun))
    said = [one for one in said if function_name(one) not in not_declared("functions")]
    assert declarations(preprocessed()[f"_c/{noun}.h"]) == said


@pytest.mark.parametrize("noun", NOUNS)
def test_every_function_of_the_header_is_declared_or_listed(noun: str) -> None:
    # On the bare text: what another platform's #if leaves out is looked at too.
    text = re.sub(r"#\s*define (?:.*\\\n)*.*", "", header(noun))
    exported = set(re.findall(r"EVENT2_EXPORT_SYMBOL[^;(]*?(\w+)\s*\(", text))
    assert exported - not_declared("functions") == set(functions(noun))


@pytest.mark.parametrize("noun", NOUNS)
def test_every_macro_of_the_header_is_a_constant_or_listed(noun: str) -> None:
    text = preprocessed_header(noun)
    valued = re.findall(r"^#define (\w+(?:\(.*?\))?) \S", text, re.MULTILINE)
    macros = {name.partition("(")[0] for name in valued} - not_declared("macros")
    declared = [number or text for number, text in CONSTANT.findall(cdef(noun))]
    assert sorted(declared) == sorted(macros)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_declared_function_can_be_called_and_is_exported_by_the_library(noun: str) -> None:
    built = ctypes.CDLL(_ffi.__file__)  # looks in the libraries that it is linked with, too
    for name in functions(noun):
        assert callable(getattr(lib, name)), name
        if name != "evutil_secure_rng_add_bytes" or lib.evpy_has_secure_rng_add_bytes():
            assert hasattr(built, name), name


#: How libevent was built: no program is to use any of it.
BUILT = {"event-config.h", "visibility.h"}


@pytest.mark.parametrize("name", sorted(not_declared("headers") - BUILT))
def test_every_macro_of_a_header_that_is_not_declared_is_listed(name: str) -> None:
    text = header(name.removesuffix(".h"))
    assert set(re.findall(r"^#define (\w+)(?:\(|[ \t]+\S)", text, re.MULTILINE)) <= not_declared(
        "macros"
    )
    assert "EVENT2_EXPORT_SYMBOL" not in text


def test_every_header_is_declared_or_listed() -> None:
    headers = {header.name for header in (INCLUDE / "event2").glob("*.h")}
    declared = {header.name for header in C.glob("*.h")}
    configs = {name for name in headers if name.startswith("event-config-")}
    assert headers - declared - configs == not_declared("headers")


def test_all_that_is_listed_as_not_declared_is_in_the_headers() -> None:
    nouns = [path.stem for path in (INCLUDE / "event2").glob("*.h")]
    text = "".join(header(noun) for noun in nouns if not noun.startswith("event-config"))
    for name in not_declared("functions") | not_declared("macros"):
        assert re.search(rf"\b{name}\b", text), name


def test_every_constant_is_an_integer_that_C_supplied() -> None:
    for noun in NOUNS:
        names = [number for number, _ in CONSTANT.findall(cdef(noun)) if number]
        for body in re.findall(r"enum \w+ \{(.*?)\}", cdef(noun), re.DOTALL):
            names += re.findall(r"\w+", body)
        assert all(isinstance(getattr(lib, name), int) for name in names)
    assert (lib.EV_UINT64_MAX, lib.EV_INT64_MIN) == (2**64 - 1, -(2**63))
    assert (lib.EV_READ, lib.EVHTTP_REQ_PATCH, lib.EVRPC_TERMINATE) == (2, 256, -1)


def test_the_headers_version_is_text_and_number() -> None:
    version = ffi.string(lib.LIBEVENT_VERSION).decode()
    numbers = lib.LIBEVENT_VERSION_NUMBER.to_bytes(4, "big")[:3]
    assert version == "{}.{}.{}-stable".format(*numbers)


def test_getaddrinfos_errors_are_those_of_the_library_which_sees_gnus() -> None:
    assert lib.EVUTIL_EAI_NODATA == getattr(socket, "EAI_NODATA", -907)
    assert lib.EVUTIL_EAI_ADDRFAMILY == getattr(socket, "EAI_ADDRFAMILY", -901)


def test_opaque_structs_stay_opaque_and_public_ones_have_libevents_size() -> None:
    for name in ("event_base", "evbuffer", "evconnlistener", "evhttp", "evdns_base"):
        with pytest.raises(ffi.error):
            ffi.sizeof(f"struct {name}")
    assert ffi.sizeof("struct event") == lib.event_get_struct_event_size()


def test_a_variadic_function_can_be_called() -> None:
    buffer = ffi.gc(lib.evbuffer_new(), lib.evbuffer_free)
    seven, x = ffi.cast("int", 7), ffi.new("char[]", b"x")
    assert lib.evbuffer_add_printf(buffer, b"%d %s", seven, x) == 3
    out = ffi.new("char[8]")
    assert lib.evbuffer_remove(buffer, out, 8) == 3
    assert ffi.string(out) == b"7 x"


def test_openssls_part_is_there_when_the_build_found_it() -> None:
    assert hasattr(lib, "bufferevent_openssl_socket_new") == bool(lib.LIBEVENT_PY_HAVE_OPENSSL)


def loaded_libraries() -> list[Path]:
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "/libevent" in line}
    return [Path(path) for path in paths if ".so" in path]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, ELF files")


@linux
def test_the_split_libraries_are_linked_and_never_the_monolithic_one() -> None:
    names = {path.name.partition("-")[0] for path in loaded_libraries()}
    assert names >= {"libevent_core", "libevent_extra", "libevent_pthreads"}
    assert "libevent" not in names


@linux
def test_a_libevent_without_secure_rng_add_bytes_can_take_the_place_of_one_with(
    tmp_path: Path,
) -> None:
    (core,) = (path for path in loaded_libraries() if path.name.startswith("libevent_core"))
    soname = core.name if core.name.endswith(".7") else f"{core.name.partition('.so')[0]}.so.7"
    name = b"evutil_secure_rng_add_bytes"
    (tmp_path / soname).write_bytes(core.read_bytes().replace(name, name.upper()))
    script = (
        "from libevent_py._ffi import ffi, lib\n"
        "assert not lib.evpy_has_secure_rng_add_bytes()\n"
        "lib.evutil_secure_rng_add_bytes(b'seed', 4)\n"
        "import errno; assert ffi.errno == errno.ENOSYS\n"
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=True, timeout=60)


@VALGRIND_TAKES_LONG
def test_a_program_of_libevent_1_can_be_written_with_its_functions(valgrind: bool) -> None:
    """They are for one event base, that of event_init, and one evdns base, that of evdns_init."""
    run_python(
        """
        from libevent_py import ffi, lib

        calls = []

        @ffi.callback("void(evutil_socket_t, short, void *)")
        def on_timeout(fd, what, arg):
            calls.append(what)

        base = lib.event_init()
        assert base and lib.event_priority_init(2) == 0
        assert ffi.string(lib.event_get_method()) == ffi.string(lib.event_base_get_method(base))
        now = ffi.new("struct timeval *")
        event = ffi.new("struct event *")
        lib.event_set(event, -1, 0, on_timeout, ffi.NULL)
        assert lib.event_add(event, now) == 0
        assert lib.event_once(-1, lib.EV_TIMEOUT, on_timeout, ffi.NULL, now) == 0
        assert lib.event_dispatch() == 1
        assert calls == [lib.EV_TIMEOUT] * 2
        assert lib.event_loop(lib.EVLOOP_NONBLOCK) == 1

        buffer = lib.evbuffer_new()
        lib.evbuffer_add(buffer, b"one\\ntwo", 7)
        found = lib.evbuffer_find(buffer, b"two", 3)
        assert ffi.string(found, 3) == b"two"
        line = lib.evbuffer_readline(buffer)
        assert ffi.string(line) == b"one"
        lib.free(line)
        lib.evbuffer_free(buffer)
        bev = lib.bufferevent_new(-1, ffi.NULL, ffi.NULL, ffi.NULL, ffi.NULL)
        lib.bufferevent_settimeout(bev, 1, 1)
        lib.bufferevent_free(bev)
        assert lib.evdns_nameserver_ip_add(b"127.0.0.1:9") == 0
        lib.evdns_search_add(b"example")  # which crashes where there is no evdns base yet
        assert lib.evdns_count_nameservers() == 1
        lib.evdns_shutdown(0)
        http = lib.evhttp_start(b"127.0.0.1", 0)
        assert http
        lib.evhttp_free(http)
        lib.event_base_free(base)
        assert lib.EVBUFFER_EOF == lib.BEV_EVENT_EOF
        """,
        valgrind=valgrind,
    )
