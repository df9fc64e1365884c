"""URIs come apart and together again, and nothing gets into a part that would end it."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Uri,
    UriFlag,
    decode_uri,
    encode_uri,
    ffi,
    htmlescape,
    lib,
    uridecode,
    uriencode,
)
from tests.kit.support import run_python

WHOLE = "http://me:secret@example.com:8080/a/b;c?d=e&f#g"
PARTS = ["scheme", "userinfo", "host", "path", "query", "fragment"]


def test_a_uri_is_taken_apart_and_put_together_again() -> None:
    uri = Uri.parse(WHOLE)
    assert [getattr(uri, part) for part in PARTS] == [
        "http",
        "me:secret",
        "example.com",
        "/a/b;c",
        "d=e&f",
        "g",
    ]
    assert uri.port == 8080
    assert str(uri) == WHOLE
    assert repr(uri).startswith("<Uri scheme='http', userinfo='me:secret', host='example.com',")
    assert repr(uri).endswith("fragment='g', port=8080>")


def test_a_new_uri_has_nothing_and_can_be_given_each_part() -> None:
    uri = Uri()
    assert [getattr(uri, part) for part in PARTS] == [None] * 6
    assert uri.port is None
    assert str(uri) == ""
    for part in PARTS:
        setattr(uri, part, getattr(Uri.parse(WHOLE), part))
    uri.port = 8080
    assert str(uri) == WHOLE
    assert uri == Uri.parse(WHOLE)


def test_a_part_can_be_taken_away_again() -> None:
    uri = Uri.parse(WHOLE)
    uri.port = uri.userinfo = uri.query = uri.fragment = None
    assert str(uri) == "http://example.com/a/b;c"
    uri.scheme = uri.host = uri.path = None
    assert uri == Uri()


def test_a_part_can_be_set_to_what_it_was() -> None:
    uri = Uri.parse(WHOLE)
    for part in PARTS:
        setattr(uri, part, getattr(uri, part))
    assert str(uri) == WHOLE


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("scheme", ""),
        ("scheme", "1a"),
        ("scheme", "a:"),
        ("userinfo", "a@b"),
        ("userinfo", "%4"),
        ("host", "a/b"),
        ("host", "a b"),
        ("host", "[::g]"),
        ("host", "["),
        ("host", "\xe9"),
        ("path", "/a?b"),
        ("path", "/a b"),
        ("path", "/%zz"),
        ("path", "/\r\nHost: b"),
        ("query", "a#b"),
        ("query", "a\r\nb"),
        ("fragment", "a#b"),
        ("fragment", b"\xff"),
    ],
)
def test_what_would_end_a_part_is_refused_and_changes_nothing(part: str, value: Any) -> None:
    uri = Uri.parse(WHOLE)
    with pytest.raises(ValueError, match=f"^{part} must be "):
        setattr(uri, part, value)
    assert str(uri) == WHOLE


@pytest.mark.parametrize("part", PARTS)
def test_a_nul_and_what_is_no_text_are_refused_by_name(part: str) -> None:
    uri = Uri.parse(WHOLE)
    with pytest.raises(ValueError, match=f"^{part} must not contain a NUL"):
        setattr(uri, part, "a\0b")
    with pytest.raises(ValueError, match=f"^{part} must be text that UTF-8 can encode"):
        setattr(uri, part, "\ud800")
    with pytest.raises(TypeError, match=f"^{part} must be str or bytes"):
        setattr(uri, part, 5)
    assert str(uri) == WHOLE


@pytest.mark.parametrize("port", [-1, 65536, 2**31, 2**40])
def test_a_port_is_from_0_to_65535(port: int) -> None:
    uri = Uri.parse(WHOLE)
    with pytest.raises(ValueError, match="port must be from 0 to 65535"):
        uri.port = port
    with pytest.raises(TypeError, match="port must be an integer"):
        uri.port = "80"  # type: ignore[assignment]
    assert uri.port == 8080
    uri.port = 0
    assert str(uri) == WHOLE.replace("8080", "0")


def test_a_host_wants_a_path_that_begins_with_a_slash() -> None:
    uri = Uri()
    uri.host, uri.path = "a", "b"
    with pytest.raises(ValueError, match="path must begin with / if there is a host, not 'b'"):
        str(uri)
    uri.path = "/b"
    assert str(uri) == "//a/b"


def test_without_a_host_userinfo_and_port_are_left_out() -> None:
    uri = Uri.parse("/a")
    uri.userinfo, uri.port = "b", 80
    assert str(uri) == "/a"


def test_a_long_uri_is_joined_whole() -> None:
    text = "http://" + "h" * 100_000 + ":1/" + "p" * 100_000 + "?" + "q" * 100_000
    assert str(Uri.parse(text)) == text


def test_nonconformant_uris_take_anything_after_the_host() -> None:
    text = "/a b\xe9?c\x01d#\ue000#"
    with pytest.raises(ValueError, match="text must be a URI"):
        Uri.parse(text)
    uri = Uri.parse(text, UriFlag.NONCONFORMANT)
    assert (uri.path, uri.query, uri.fragment) == ("/a b\xe9", "c\x01d", "\ue000#")
    assert str(uri) == text
    assert uri.flags == UriFlag.NONCONFORMANT
    uri.flags = UriFlag(0)
    with pytest.raises(ValueError, match="path must be"):
        uri.path = "/a b"
    uri.flags = UriFlag.NONCONFORMANT
    uri.path = "/a b"


def test_bytes_that_are_no_utf_8_come_back_as_they_were() -> None:
    uri = Uri.parse(b"/\xff", UriFlag.NONCONFORMANT)
    assert uri.path == "/\udcff"
    uri.path = uri.path
    assert Uri.parse(str(uri), UriFlag.NONCONFORMANT) == uri
    assert ffi.string(lib.evhttp_uri_get_path(uri.pointer)) == b"/\xff"


def test_flags_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="flags has bits"):
        Uri.parse("/", 64)
    with pytest.raises(TypeError, match="flags must be of UriFlag"):
        Uri().flags = None  # type: ignore[assignment]


def test_a_copy_is_equal_and_another() -> None:
    for text in (WHOLE, "", "/a b", "//[::1]", "//u@:1?", "file:///x#"):
        uri = Uri.parse(text, UriFlag.NONCONFORMANT)
        other = uri.copy()
        assert other == uri
        assert other.flags == uri.flags
        assert str(other) == text
        other.path = "/other"
        assert other != uri
        assert str(uri) == text
    assert Uri.parse(WHOLE).copy().flags == 0
    assert Uri._copied(Uri.parse(WHOLE).pointer).flags == UriFlag.NONCONFORMANT


def test_a_uri_is_no_key_and_equals_nothing_but_uris() -> None:
    uri = Uri.parse(WHOLE)
    assert uri != WHOLE
    with pytest.raises(TypeError, match="unhashable"):
        hash(uri)
    with pytest.raises(TypeError, match="copied"):
        copy.copy(uri)


def test_a_closed_uri_says_so() -> None:
    with Uri.parse(WHOLE) as uri:
        pass
    uri.close()
    assert uri.closed and "closed" in repr(uri)
    for part in [*PARTS, "port", "flags"]:
        with pytest.raises(ClosedError, match="this Uri is closed"):
            getattr(uri, part)
    for part in PARTS:
        with pytest.raises(ClosedError):
            setattr(uri, part, "a")
    for use in (uri.copy, uri.__str__, lambda: uri == uri):
        with pytest.raises(ClosedError):
            use()


def test_a_uri_can_not_be_made_twice() -> None:
    uri = Uri.parse(WHOLE)
    with pytest.raises(RuntimeError, match="made already"):
        uri.__init__()  # type: ignore[misc]
    assert str(uri) == WHOLE


def test_several_threads_may_use_the_same_uri() -> None:
    uri = Uri.parse(WHOLE)
    failed = []

    def use(path: str) -> None:
        try:
            for _ in range(2000):
                uri.path = path
                assert uri.path in ("/a" * 100, "/b" * 100)
                assert str(uri).startswith("http://me")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(path * 100,)) for path in ("/a", "/b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_no_misuse_of_uris_reads_or_frees_what_is_not_there() -> None:
    run_python(
        f"""
        from libevent_py import Uri, decode_uri, htmlescape, uridecode, uriencode

        for _ in range(3):
            uri = Uri.parse({WHOLE!r})
            copy = uri.copy()
            uri.path = uri.path
            uri.path = None
            pointer = uri.pointer
            uri.close()
            del pointer
            str(copy)
            repr(copy)
            del copy
            for text in ("http://[", "//a%", "//a:1x", "%", "//u%4@h", "//[v1", "//[v]", "/%4"):
                try:
                    Uri.parse(text)
                except ValueError:
                    pass
            for text in ("%", "%4", "a%", "%41", "%00", "", "?+%2"):
                uridecode(text)
                decode_uri(text)
                uriencode(text)
                htmlescape(text)
        """,
        valgrind=True,
    )


# Encoding.


def test_encoding_leaves_only_what_has_no_meaning_anywhere() -> None:
    everything = bytes(range(256))
    encoded = uriencode(everything)
    assert uridecode(encoded) == everything
    assert len(encoded) == 66 + 190 * 3
    assert uriencode("a b+\xe9") == "a%20b%2B%C3%A9"
    assert uriencode(b"a b+", space_to_plus=True) == "a+b%2B"
    assert uriencode(memoryview(b"\0~")) == "%00~"
    assert uriencode("\udcff") == "%FF"
    assert encode_uri("a b\xe9") == "a%20b%C3%A9"


def test_decoding_keeps_nuls_and_what_is_no_escape() -> None:
    assert uridecode("%00a%41%7e") == b"\0aA~"
    assert uridecode("%4%zz%+%%41") == b"%4%zz%+%A"
    assert uridecode("a+b%2B", decode_plus=True) == b"a b+"
    assert uridecode(b"\xff%") == b"\xff%"


def test_the_old_decoding_has_plus_as_space_after_a_question_mark() -> None:
    assert decode_uri("+%00%%41?+%2B%4") == b"+\0%A? +%4"


def test_html_is_escaped_in_text_and_bytes() -> None:
    assert htmlescape("<a href='b'>\xe9 & \"") == "&lt;a href=&#039;b&#039;&gt;\xe9 &amp; &quot;"
    assert htmlescape(b"<\xff>") == b"&lt;\xff&gt;"
    assert htmlescape("") == ""


def test_what_c_would_cut_or_can_not_read_is_refused() -> None:
    for function in (uridecode, decode_uri, encode_uri, htmlescape):
        with pytest.raises(ValueError, match="text must not contain a NUL"):
            function("a\0b")
        with pytest.raises(TypeError, match="text must be str or bytes"):
            function(None)  # type: ignore[arg-type,type-var]
    with pytest.raises(TypeError, match="data must be bytes or have the buffer protocol"):
        uriencode(5)  # type: ignore[arg-type]
