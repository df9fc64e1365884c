"""Malformed URIs, queries, headers and escapes: each is refused by name, or read without harm."""

from __future__ import annotations

import pytest

from libevent_py import (
    Headers,
    Uri,
    UriFlag,
    decode_uri,
    htmlescape,
    parse_query,
    parse_query_str,
    uridecode,
    uriencode,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python

SITE = b"http://example.com"
LONG = 100_000

#: No URI, whatever the flags.
BAD: dict[str, bytes] = {
    "a NUL": b"\0",
    "a NUL in the host": b"http://exa\0mple.com/",
    "a NUL at the end": SITE + b"/\0",
    "a NUL before another host": b"http://example.com\0@evil/",
    "a line end in the host": b"http://example.com\r\nHost: evil/",
    "a tab in the host": b"http://exam\tple.com/",
    "a space in the host": b"http://exam ple.com/",
    "a delete in the host": b"http://exam\x7fple.com/",
    "a backslash in the host": b"http://example.com\\@evil/",
    "bytes of UTF-8 in the host": b"http://ex\xc3\xa4mple.com/",
    "a half percent in the host": b"http://exam%4/",
    "a percent at the host's end": b"http://example%/",
    "a percent and no digits in the host": b"http://exam%zzple.com/",
    "a percent across host and port": b"http://example%4:1/",
    "a percent across host and path": b"http://example%/41",
    "a bracket": b"http://[/",
    "two brackets": b"http://[]/",
    "a closing bracket": b"http://]/",
    "a bracket within a name": b"http://a[b]c/",
    "brackets around a name": b"http://[example.com]/",
    "brackets around IPv4": b"http://[1.2.3.4]/",
    "brackets within brackets": b"http://[[::1]]/",
    "a bracket too many": b"http://[::1]]/",
    "something between bracket and port": b"http://[::1]x:80/",
    "IPv6 of nine groups": b"http://[1:2:3:4:5:6:7:8:9]/",
    "IPv6 with a scope": b"http://[fe80::1%25eth0]/",
    "IPv6 with a NUL": b"http://[::1\0]/",
    "IPv6 of 63 characters": b"http://[" + b"1" * 63 + b"]/",
    "IPv6 of 64 characters": b"http://[" + b"1" * 64 + b"]/",
    "IPv6 of very many characters": b"http://[" + b"1:" * LONG + b"]/",
    "a future address without a version": b"http://[v.a]/",
    "a future address without a dot": b"http://[v1]/",
    "a future address that stops": b"http://[v",
    "a future address with an at": b"http://[v1.a@b]/",
    "a port of 65536": SITE + b":65536/",
    "a port of a billion": SITE + b":1000000000/",
    "a port that an int would turn to 80": SITE + b":4294967376/",
    "a port of very many digits": SITE + b":" + b"9" * LONG + b"/",
    "a negative port": SITE + b":-1/",
    "a port with a sign": SITE + b":+80/",
    "a port with a space": SITE + b": 80/",
    "a port in hexadecimal": SITE + b":0x50/",
    "two ports": SITE + b":80:80/",
    "two ats": b"http://a@b@c/",
    "userinfo with a half percent": b"http://a%4@c/",
    "userinfo with a bracket": b"http://[@c/",
    "userinfo with a line end": b"http://a\n@c/",
    "no scheme before a colon": b":/a",
    "a number as the scheme": b"1:/a:",
    "a scheme with a percent": b"ht%74p://a/",
    "a scheme with a NUL": b"ht\0tp://a/",
}

#: What only NONCONFORMANT takes, and then takes as it is.
LAX: dict[str, bytes] = {
    "a line end in the path": b"/a\r\nHost: evil",
    "a line end in the query": b"/?a\r\nHost: evil",
    "a line end in the fragment": b"/#a\r\nHost: evil",
    "a space and a version": b"/a HTTP/1.1",
    "each control character": bytes(range(1, 32)).join([b"/", b""]),
    "bytes that are no UTF-8": b"/\xff\xfe\x80",
    "an overlong slash": b"/..\xc0\xaf",
    "a half percent": b"/%4",
    "a percent": b"/%",
    "a percent and no digits": b"/%zz",
    "a percent at the query's end": b"/?a=%",
    "a percent at the fragment's end": b"/#%",
    "two fragments": b"/#a#b",
    "a bracket in the path": b"/[a]",
    "a caret, a brace and a bar": b"/^{|}",
    "quotes and angles": b"/<script>\"'",
    "a backslash": b"/\\..\\",
}

#: What is a URI, however it looks.
ODD: dict[str, bytes] = {
    "nothing": b"",
    "a question mark": b"?",
    "a hash": b"#",
    "slashes": b"//",
    "a slash too many": b"///",
    "dots": b"/../../../etc/passwd",
    "an encoded NUL": b"/%00",
    "encoded line ends": b"/%0d%0aHost:%20evil",
    "encoded percents": b"/%2525252e",
    "a port of nothing but zeros": b"http://a:" + b"0" * LONG + b"80/",
    "userinfo that looks like a host": b"http://example.com@evil/",
    "userinfo of nothing": b"http://@evil/",
    "a password of colons": b"http://:::@evil/",
    "a host of dots": b"http://..../",
    "a very long path": b"/" + b"a" * LONG,
    "a very long host": b"http://" + b"a" * LONG,
    "very many escapes": b"/" + b"%41" * LONG,
    "very many parameters": b"/?" + b"a=b&" * LONG,
    "javascript": b"javascript:alert(1)",
}


def given_back(uri: Uri) -> bytes:
    return str(uri).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("flags", [UriFlag(0), UriFlag.NONCONFORMANT])
def test_what_is_no_uri_is_refused(name: str, flags: UriFlag) -> None:
    with pytest.raises(ValueError, match=r"^text must "):
        Uri.parse(BAD[name], flags)
    with pytest.raises(ValueError, match=r"^evhttp_parse_query found|^uri must not contain a NUL"):
        parse_query(BAD[name])
    assert Uri.parse(SITE).host == "example.com"


@pytest.mark.parametrize("name", LAX)
def test_what_only_the_nonconformant_flag_takes_is_taken_as_it_is(name: str) -> None:
    with pytest.raises(ValueError, match="text must be a URI"):
        Uri.parse(LAX[name])
    uri = Uri.parse(LAX[name], UriFlag.NONCONFORMANT)
    assert given_back(uri) == LAX[name]
    assert uri.copy() == uri
    assert uri.host is None


@pytest.mark.parametrize("name", ODD)
def test_what_only_looks_odd_comes_apart_and_together_the_same(name: str) -> None:
    for flags in (UriFlag(0), UriFlag.NONCONFORMANT):
        uri = Uri.parse(ODD[name], flags)
        again = Uri.parse(str(uri), flags)
        assert again == uri.copy() == uri
    if "port" not in name:
        assert given_back(uri) == ODD[name]


def test_userinfo_is_not_taken_for_the_host() -> None:
    for text in ("http://example.com@evil/", "http://example.com:80@evil/", "http://a%40b@evil/"):
        assert Uri.parse(text).host == "evil"
    assert Uri.parse("http://evil#@example.com/").host == "evil"
    assert Uri.parse("http://evil?@example.com/").host == "evil"


QUERIES: dict[str, bytes] = {
    "a NUL": b"a=\0",
    "an encoded NUL": b"a=%00",
    "an encoded NUL after a value": b"a=b%00c",
    "an encoded NUL in the last of many": b"a=b&" * 1000 + b"c=%00",
    "an encoded NUL behind a percent": b"a=%%00",
    "no value": b"a",
    "no name": b"=b",
    "no name in the middle": b"a=b&=c&d=e",
    "nothing between two": b"a=b&&c=d",
    "nothing before the first": b"&a=b",
    "very many names without values": b"a&" * LONG,
    "equals signs": b"===",
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_that_c_would_cut_or_drop_is_refused(name: str) -> None:
    query = QUERIES[name]
    with pytest.raises(ValueError, match=r"NUL|%00|found no arguments"):
        parse_query_str(query)
    with pytest.raises(ValueError, match=r"NUL|%00|found no arguments"):
        parse_query(b"/?" + query)


def test_odd_queries_keep_what_they_say() -> None:
    assert parse_query_str(b"a=%&b=%4&c=%zz&d=%2").values() == ["%", "%4", "%zz", "%2"]
    assert parse_query_str("a==b=c").items() == [("a", "=b=c")]
    assert parse_query_str("a=b&").items() == [("a", "b")]
    assert parse_query_str("a=%26b%3Dc").items() == [("a", "&b=c")]
    assert parse_query_str("a=%0d%0aHost:%20evil").items() == [("a", "\r\nHost: evil")]
    assert parse_query_str("A=1&a=2").get_all("a") == ["1", "2"]
    assert len(parse_query_str("a=b&" * 5000)) == 5000
    assert len(parse_query_str("a=" + "%41" * LONG)["a"]) == LONG


NAMES: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "a space behind": b"Host ",
    "a space before": b" Host",
    "a tab": b"Ho\tst",
    "a colon": b"Host:",
    "a whole header": b"Host: evil",
    "a line end": b"Host\r\nEvil",
    "a carriage return": b"\rHost",
    "a line feed": b"Host\n",
    "a NUL": b"Host\0",
    "a control character": b"Ho\x01st",
    "a delete": b"Host\x7f",
    "a separator": b"Host;",
    "brackets": b"[Host]",
    "quotes": b'"Host"',
    "a slash": b"Ho/st",
    "an at": b"Ho@st",
    "a byte beyond ASCII": b"Host\xe9",
}

VALUES: dict[str, bytes] = {
    "another header": b"a\r\nEvil: b",
    "a body": b"a\r\n\r\n<html>",
    "a folded line": b"a\r\n b",
    "a line folded by a tab": b"a\r\n\tb",
    "a line feed": b"a\nEvil: b",
    "a carriage return": b"a\rEvil: b",
    "a line end at the end": b"a\r\n",
    "a line end at the front": b"\r\na",
    "nothing but a line feed": b"\n",
    "a NUL": b"a\0b",
    "a NUL before a line end": b"a\0\r\nEvil: b",
    "a NUL at the end": b"a\0",
    "a line end far behind": b"a" * LONG + b"\r\nEvil: b",
    "a line end behind a byte beyond ASCII": b"\xff\r\nEvil: b",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    headers = Headers({"Host": "a"})
    for add in (headers.add, headers.__setitem__, headers.setdefault):
        with pytest.raises(ValueError, match=r"^name must "):
            add(NAMES[name], "b")
        with pytest.raises(ValueError, match=r"^name must "):
            add(NAMES[name].decode("latin-1"), "b")
    assert headers.items() == [("Host", "a")]


@pytest.mark.parametrize("name", VALUES)
def test_a_header_value_that_would_end_early_is_refused(name: str) -> None:
    headers = Headers({"Host": "a"})
    for add in (headers.add, headers.__setitem__):
        with pytest.raises(ValueError, match=r"^value of 'Host' must not contain"):
            add("Host", VALUES[name])
        with pytest.raises(ValueError, match=r"^value of 'Host' must not contain"):
            add("Host", VALUES[name].decode("latin-1"))
    assert headers.items() == [("Host", "a")]


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        (b"%", b"%"),
        (b"%%", b"%%"),
        (b"%4", b"%4"),
        (b"%4%41", b"%4A"),
        (b"%g1", b"%g1"),
        (b"%1g", b"%1g"),
        (b"%-1", b"%-1"),
        (b"%0x41", b"%0x41"),
        (b"% 1", b"% 1"),
        (b"%u0041", b"%u0041"),
        (b"%00", b"\0"),
        (b"%ff%FE", b"\xff\xfe"),
        (b"%2541", b"%41"),
        (b"\xff%80", b"\xff\x80"),
        (b"%41" * LONG, b"A" * LONG),
        (b"%" * LONG, b"%" * LONG),
    ],
)
def test_escapes_that_are_none_stay(text: bytes, decoded: bytes) -> None:
    assert uridecode(text) == decode_uri(text) == decoded
    assert uridecode(uriencode(decoded)) == decoded


def test_html_of_nothing_but_what_is_escaped_has_room() -> None:
    assert htmlescape("'" * LONG) == "&#039;" * LONG


@VALGRIND_TAKES_LONG
def test_none_of_them_reads_what_is_not_there(valgrind: bool) -> None:
    seen = run_python(
        """
        from libevent_py import Uri, UriFlag, decode_uri, parse_query, parse_query_str, uridecode
        from tests.hostile.test_uris import BAD, LAX, LONG, ODD, QUERIES

        seen = 0
        for text in [*BAD.values(), *LAX.values(), *ODD.values(), *QUERIES.values()]:
            for use in (
                Uri.parse,
                lambda text: repr(Uri.parse(text, UriFlag.NONCONFORMANT).copy()),
                lambda text: str(Uri.parse(text, UriFlag.NONCONFORMANT)),
                parse_query,
                parse_query_str,
                uridecode,
                decode_uri,
            ):
                if len(text) >= LONG:
                    text = text[:500] + text[-500:]
                seen += 1
                try:
                    use(text)
                except ValueError:
                    pass
        print(seen)
        """,
        valgrind=valgrind,
    )
    assert int(seen) == 7 * sum(map(len, (BAD, LAX, ODD, QUERIES)))
