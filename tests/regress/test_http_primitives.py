"""Group ``http``, what needs no server: escaping, headers, queries and URIs."""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import (
    Headers,
    Uri,
    UriFlag,
    decode_uri,
    ffi,
    htmlescape,
    lib,
    parse_query,
    parse_query_str,
    uridecode,
    uriencode,
)

SITE = "http://www.test.com"
PARTS = ("scheme", "userinfo", "host", "port", "path", "query", "fragment")


def test_primitives_escaping() -> None:
    """What has a meaning in HTML becomes an entity."""
    assert htmlescape("<script>") == "&lt;script&gt;"
    assert htmlescape("\"'&") == "&quot;&#039;&amp;"


def test_bad_headers() -> None:
    """Line ends are refused in names and values; folded values too, unlike in older releases."""
    headers = Headers()
    headers.add("One", "Two")
    for name, value in [
        ("One", "Two\r\n Three"),
        ("One\r", "Two"),
        ("One\n", "Two"),
        ("One", "Two\r"),
        ("One", "Two\n"),
    ]:
        with pytest.raises(ValueError, match="must"):
            headers.add(name, value)
        if "Three" not in value:
            assert lib.evhttp_add_header(headers.pointer, name.encode(), value.encode()) == -1
    assert headers.items() == [("One", "Two")]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("q=test", [("q", "test")]),
        ("q=test&foo=bar", [("q", "test"), ("foo", "bar")]),
        ("q=test+foo", [("q", "test foo")]),
        ("q=test%0Afoo", [("q", "test\nfoo")]),
        ("q=test%0Dfoo", [("q", "test\rfoo")]),
        ("q=test&&q2", None),
        ("q=test+this", [("q", "test this")]),
        ("q=test&q2=foo", [("q", "test"), ("q2", "foo")]),
        ("q&q2=foo", None),
        ("q=foo&q2", None),
        ("q=foo&q2&q3=x", None),
        ("q=&q2=&q3=", [("q", ""), ("q2", ""), ("q3", "")]),
    ],
)
def test_parse_query(query: str, arguments: list[tuple[str, str]] | None) -> None:
    """The query of a URI is taken apart, or refused where a name has no value."""
    uri = f"{SITE}/?{query}"
    if arguments is None:
        with pytest.raises(ValueError, match="no arguments"):
            parse_query(uri)
    else:
        assert parse_query(uri).items() == arguments


def test_parse_query_str() -> None:
    """A query by itself is taken apart; a URI is none, and its first argument has another name."""
    assert "q" not in parse_query_str(f"{SITE}/?q=test")
    assert parse_query_str("q=test").items() == [("q", "test")]


#: URIs that only the nonconformant flag lets pass.
LAX = [
    f"{SITE}/ why hello",
    f"{SITE}/why-hello\x01",
    f"{SITE}/why-hello?\x01",
    f"{SITE}/why-hello#\x01",
    f"{SITE}/why-hell%7o",
    f"{SITE}/why-hello%7",
    f"{SITE}/foo?ba%r",
    f"{SITE}/foo#ba%r",
]

#: What is never a URI.
BAD = [
    "http://www.\x01.test.com/why-hello",
    "http://www.%7test.com/why-hello",
    "h%3ttp://www.test.com/why-hello",
    "99:99/foo",
    f"{SITE}:999x/",
    f"{SITE}:x/",
    "http://[hello-there]/",
    "http://[::1]]/",
    "http://[::1/",
    "http://[foob/",
    "http://[/",
    f"http://[{':'.join(['ffff'] * 14)}]/",
    "http://[vX.foo]/",
    "http://[v.foo]/",
    "http://[v5.fo%o]/",
    "http://[v5X]/",
    "http://[v5]/",
    "http://[]/",
    "http://f\x01red@www.example.com/",
    "http://f%0red@www.example.com/",
    f"http://www.example.com:{'9' * 37}/",
    "http://www.example.com:hihi/",
    "://www.example.com/",
]

#: URIs with the parts that they have, and what they are when joined again if not the same.
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("mailto:foo@bar", {"scheme": "mailto", "path": "foo@bar"}),
    (
        "http://www.test.com/?q=t%33est",
        {"scheme": "http", "host": "www.test.com", "path": "/", "query": "q=t%33est"},
    ),
    ("http://%77ww.test.com", {"scheme": "http", "host": "%77ww.test.com", "path": ""}),
    (
        "http://www.test.com?q=test",
        {"scheme": "http", "host": "www.test.com", "path": "", "query": "q=test"},
    ),
    (
        "http://www.test.com#fragment",
        {"scheme": "http", "host": "www.test.com", "path": "", "fragment": "fragment"},
    ),
    ("http://8000/", {"scheme": "http", "host": "8000", "path": "/"}),
    ("http://:8000/", {"scheme": "http", "host": "", "port": 8000, "path": "/"}),
    (
        "http://www.test.com:/",
        {"scheme": "http", "host": "www.test.com", "path": "/", "joined": "http://www.test.com/"},
    ),
    (
        "http://www.test.com:",
        {"scheme": "http", "host": "www.test.com", "path": "", "joined": "http://www.test.com"},
    ),
    (
        "ftp://www.test.com/?q=test",
        {"scheme": "ftp", "host": "www.test.com", "path": "/", "query": "q=test"},
    ),
    (
        "ftp://[::1]:999/?q=test",
        {"scheme": "ftp", "host": "[::1]", "port": 999, "path": "/", "query": "q=test"},
    ),
    (
        "ftp://[ff00::127.0.0.1]/?q=t",
        {"scheme": "ftp", "host": "[ff00::127.0.0.1]", "path": "/", "query": "q=t"},
    ),
    (
        "ftp://[v99.not_(any:time)_soon]/",
        {"scheme": "ftp", "host": "[v99.not_(any:time)_soon]", "path": "/"},
    ),
    (
        "scheme://user:pass@foo.com:42/?q=test&s=some+thing#fragment",
        {
            "scheme": "scheme",
            "userinfo": "user:pass",
            "host": "foo.com",
            "port": 42,
            "path": "/",
            "query": "q=test&s=some+thing",
            "fragment": "fragment",
        },
    ),
    (
        "scheme://user@foo.com/#fragment",
        {
            "scheme": "scheme",
            "userinfo": "user",
            "host": "foo.com",
            "path": "/",
            "fragment": "fragment",
        },
    ),
    (
        "scheme://%75ser@foo.com/#frag@ment",
        {
            "scheme": "scheme",
            "userinfo": "%75ser",
            "host": "foo.com",
            "path": "/",
            "fragment": "frag@ment",
        },
    ),
    (
        "file:///some/path/to/the/file",
        {"scheme": "file", "host": "", "path": "/some/path/to/the/file"},
    ),
    ("///some/path/to/the-file", {"host": "", "path": "/some/path/to/the-file"}),
    (
        "/s:ome/path/to/the-file?q=99#fred",
        {"path": "/s:ome/path/to/the-file", "query": "q=99", "fragment": "fred"},
    ),
    ("relative/path/with/co:lon", {"path": "relative/path/with/co:lon"}),
    ("bob?q=99&q2=q?33#fr?ed", {"path": "bob", "query": "q=99&q2=q?33", "fragment": "fr?ed"}),
    ("#fr?ed", {"path": "", "fragment": "fr?ed"}),
]


def parse_uri(flags: UriFlag) -> None:
    for text, parts in GOOD:
        uri = Uri.parse(text, flags)
        assert str(uri) == parts.get("joined", text)
        for part in PARTS:
            assert getattr(uri, part) == parts.get(part), text
    for text in BAD:
        with pytest.raises(ValueError, match="text must be a URI"):
            Uri.parse(text, flags)
    for text in LAX:
        if flags:
            assert str(Uri.parse(text, flags)) == text
        else:
            with pytest.raises(ValueError, match="text must be a URI"):
                Uri.parse(text, flags)


def test_parse_uri() -> None:
    """URIs have the parts that they should have, and what is none is refused."""
    parse_uri(UriFlag(0))


def test_parse_uri_nc() -> None:
    """The same, but that any characters may be in path, query and fragment."""
    parse_uri(UriFlag.NONCONFORMANT)


def test_parse_uri_joins() -> None:
    """What has no room, or no path that fits its host, is not joined."""
    uri = Uri()
    uri.host = "www.example.com"
    assert str(uri) == "//www.example.com"
    room = ffi.new("char[64]")
    for buffer, size in ((room, 3), (room, 0), (ffi.NULL, 64)):
        assert lib.evhttp_uri_join(uri.pointer, buffer, size) == ffi.NULL
    assert lib.evhttp_uri_join(ffi.NULL, room, 64) == ffi.NULL
    uri.path = "hi_mom"
    with pytest.raises(ValueError, match="path must begin with /"):
        str(uri)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("scheme", ""),
        ("scheme", "33"),
        ("scheme", "hi!"),
        ("userinfo", "hello@"),
        ("host", "[1.2.3.4]"),
        ("host", "["),
        ("host", "www.[foo].com"),
        ("port", -3),
        ("path", "hello?world"),
        ("query", "hello#world"),
        ("fragment", "hello#world"),
    ],
)
def test_parse_uri_refuses_parts(part: str, value: Any) -> None:
    """A part can't be set to what could not stand there."""
    with pytest.raises(ValueError, match=f"{part} must be"):
        setattr(Uri(), part, value)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("scheme", ["http", None]),
        ("userinfo", ["username:pass", None]),
        ("host", ["www.example.com", "1.2.3.4", "[1:2:3:4::]", "[v7.wobblewobble]", None, ""]),
        ("port", [None, 80, 65535]),
        ("path", ["", "/documents/public/index.html", None]),
        ("query", ["key=val&key2=val2", "keyvalblarg", "", None]),
        ("fragment", ["", "here?i?am", None]),
    ],
)
def test_parse_uri_takes_parts(part: str, values: list[Any]) -> None:
    """A part can be set to whatever could, and to nothing."""
    uri = Uri()
    for value in values:
        setattr(uri, part, value)
        assert getattr(uri, part) == value


UNRESERVED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ123456789-.~_"


@pytest.mark.parametrize(
    ("data", "encoded", "plus"),
    [
        (b"Hello", "Hello", False),
        (b"99", "99", False),
        (b"", "", False),
        (UNRESERVED.encode(), UNRESERVED, False),
        (b" ", "%20", False),
        (b" ", "+", True),
        (b"\xff\xf0\xe0", "%FF%F0%E0", False),
        (b"\x01\x19", "%01%19", True),
        (b"http://www.ietf.org/rfc/", "http%3A%2F%2Fwww.ietf.org%2Frfc%2F", True),
        (b"1+2=3", "1%2B2%3D3", True),
        (b"1+2=3", "1%2B2%3D3", False),
        (b"hello\0world", "hello%00world", False),
    ],
)
def test_uriencode(data: bytes, encoded: str, plus: bool) -> None:
    """What is encoded decodes to what it was."""
    assert uriencode(data, space_to_plus=plus) == encoded
    assert uridecode(encoded, decode_plus=plus) == data


def test_uriencode_decodes() -> None:
    """What nobody would have encoded so is decoded, too."""
    assert uridecode(b"%%xhello th+ere \xff") == b"%%xhello th+ere \xff"
    assert uridecode("plus+should%20work+", decode_plus=True) == b"plus should work "
    assert uridecode("%f0%a0%b0", decode_plus=True) == b"\xf0\xa0\xb0"
    assert uridecode("%00%00x%00%00", decode_plus=True) == b"\0\0x\0\0"
    old = b"http://example.com/normal+path/?key=val with spaces"
    assert decode_uri(old.replace(b" ", b"+")) == old
