"""Headers keep order, duplicates and capitals, and nothing gets in that would split a message."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    EventBase,
    Headers,
    Query,
    ffi,
    lib,
    parse_query,
    parse_query_str,
)
from tests.kit.support import run_python

COOKIES = [("Host", "a"), ("Set-Cookie", "x=1"), ("set-cookie", "y=2")]


class Owner:
    """What headers are borrowed from: it has a list of its own, until it is closed."""

    def __init__(self, base: EventBase) -> None:
        self.base = base
        self.headers = Headers(COOKIES)
        self._why_absent, self._may_ask = self.headers._why_absent, self.headers._may_ask

    @property
    def pointer(self) -> Any:
        return self.headers.pointer

    @property
    def closed(self) -> bool:
        return self.headers.closed


def test_headers_keep_order_duplicates_and_capitals() -> None:
    headers = Headers(COOKIES)
    assert headers.items() == COOKIES
    assert headers.keys() == list(headers) == ["Host", "Set-Cookie", "set-cookie"]
    assert headers.values() == ["a", "x=1", "y=2"]
    assert len(headers) == 3
    assert repr(headers) == f"Headers({COOKIES})"


def test_a_name_is_found_however_it_is_capitalised_and_the_first_of_it_returned() -> None:
    headers = Headers(COOKIES)
    assert headers["SET-COOKIE"] == headers.get(b"Set-cookie") == "x=1"
    assert headers.get_all("set-Cookie") == ["x=1", "y=2"]
    assert "hOST" in headers and b"host" in headers
    assert "Hos" not in headers and 5 not in headers


def test_what_is_not_there_is_the_default_or_a_key_error() -> None:
    headers = Headers()
    assert not headers and headers.items() == []
    assert headers.get("a") is None
    assert headers.get("a", 7) == headers.pop("a", 7) == 7
    assert headers.get_all("a") == []
    with pytest.raises(KeyError, match="Gone"):
        headers["Gone"]
    with pytest.raises(KeyError, match="Gone"):
        del headers["Gone"]
    with pytest.raises(KeyError, match="Gone"):
        headers.pop("Gone")


@pytest.mark.parametrize("kind", [Headers, Query])
def test_what_is_neither_a_mapping_nor_pairs_is_told(kind: type[Headers]) -> None:
    wrong: list[tuple[Any, str]] = [
        ("a=b", "items must be a mapping or pairs of name and value, not 'a=b'"),
        (5, "items must be a mapping or pairs of name and value, not 5"),
        (["name"], "items must be pairs of name and value, not 'name'"),
        ([("a", "b", "c")], r"items must be pairs of name and value, not \('a', 'b', 'c'\)"),
        ([5], "items must be pairs of name and value, not 5"),
    ]
    headers = kind([("a", "b")])
    for items, said in wrong:
        for use in kind, headers.update:
            with pytest.raises(TypeError, match=said):
                use(items)
    assert headers.items() == [("a", "b")]


def test_adding_keeps_what_is_there_and_setting_replaces_all_of_the_name() -> None:
    headers = Headers(COOKIES)
    headers.add("Set-Cookie", "z=3")
    assert headers.get_all("Set-Cookie") == ["x=1", "y=2", "z=3"]
    headers["SET-COOKIE"] = "only"
    assert headers.items() == [("Host", "a"), ("SET-COOKIE", "only")]


def test_deleting_removes_all_of_the_name() -> None:
    headers = Headers(COOKIES)
    del headers["Set-cookie"]
    assert headers.items() == [("Host", "a")]
    assert headers.pop("HOST") == "a"
    assert not headers
    headers.clear()
    assert not headers


def test_update_puts_all_values_of_a_name_in_place_of_the_earlier_ones() -> None:
    headers = Headers(COOKIES)
    headers.update([("Set-Cookie", "1"), ("A", "b"), ("SET-COOKIE", "2")])
    assert headers.items() == [("Host", "a"), ("Set-Cookie", "1"), ("A", "b"), ("SET-COOKIE", "2")]
    headers.update(headers)
    assert len(headers) == 4
    headers.update({"A": "c"})
    assert headers["a"] == "c"


def test_an_update_with_something_wrong_in_it_changes_nothing() -> None:
    headers = Headers(COOKIES)
    with pytest.raises(ValueError, match="must not contain"):
        headers.update([("Host", "b"), ("A", "b\r\n")])
    assert headers.items() == COOKIES


def test_a_default_is_set_only_where_nothing_is() -> None:
    headers = Headers(COOKIES)
    assert headers.setdefault("host", "b") == "a"
    assert headers.setdefault("New", "c") == headers["new"] == "c"


def test_headers_made_of_headers_or_a_mapping_are_equal_but_others() -> None:
    headers = Headers(COOKIES)
    copied = Headers(headers)
    assert copied == headers == Headers([(name.upper(), value) for name, value in COOKIES])
    copied["Host"] = "b"
    assert headers["Host"] == "a"
    assert headers != copied
    assert Headers({"a": "b"}) == Headers([("A", "b")]) != {"a": "b"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(headers)
    with pytest.raises(TypeError, match="copied"):
        copy.copy(headers)


def test_values_are_latin_1_bytes_as_they_are_and_may_be_empty_or_have_spaces() -> None:
    headers = Headers([("a", "caf\xe9"), (b"b", b"\xff\x01\t"), ("c", ""), ("d", "  x ")])
    assert headers.values() == ["caf\xe9", "\xff\x01\t", "", "  x "]
    assert ffi.string(lib.evhttp_find_header(headers.pointer, b"A")) == b"caf\xe9"


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", "a\r", "a\n", "a\0", "\xe9", "\u20ac", b"(a)"]
)
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    headers = Headers()
    for change in (headers.add, headers.__setitem__, headers.setdefault):
        with pytest.raises(ValueError, match=r"^name must "):
            change(name, "x")
    assert not headers


@pytest.mark.parametrize(
    "value", ["a\r\nB: c", "a\r\n b", "\n", "a\r", b"a\nb", "a\0b", "\u20ac", "\ud800"]
)
def test_a_value_that_would_split_a_message_or_be_cut_is_refused(value: str) -> None:
    headers = Headers(COOKIES)
    for change in (headers.add, headers.__setitem__):
        with pytest.raises(ValueError, match=r"^value of 'Host' must "):
            change("Host", value)
    assert headers.items() == COOKIES


def test_the_error_says_where() -> None:
    with pytest.raises(ValueError, match=r"b'\\r', as at 3: 'abc\\rd'"):
        Headers({"a": "abc\rd"})


@pytest.mark.parametrize("thing", [None, 5, ("a",), bytearray(b"a")])
def test_what_is_no_text_is_refused(thing: Any) -> None:
    headers = Headers()
    for use in (
        lambda: headers.get(thing),
        lambda: headers.get_all(thing),
        lambda: headers.add(thing, "a"),
        lambda: headers.add("a", thing),
        lambda: headers.pop(thing),
    ):
        with pytest.raises(TypeError, match="must be str or bytes"):
            use()


def test_a_nul_does_not_make_another_name_of_it() -> None:
    headers = Headers({"a": "b"})
    for use in (headers.get, headers.get_all, headers.pop, headers.__getitem__):
        with pytest.raises(ValueError, match="name must not contain a NUL"):
            use("a\0c")
    assert headers["a"] == "b"


def test_closed_headers_say_so() -> None:
    with Headers(COOKIES) as headers:
        assert not headers.closed
    headers.close()
    assert headers.closed
    assert "closed" in repr(headers)
    for use in (
        headers.items,
        headers.clear,
        lambda: headers.get("a"),
        lambda: headers.add("a", "b"),
    ):
        with pytest.raises(ClosedError, match="this Headers is closed"):
            use()


def test_headers_can_not_be_made_twice() -> None:
    headers = Headers(COOKIES)
    with pytest.raises(RuntimeError, match="made already"):
        headers.__init__()  # type: ignore[misc]
    assert headers.items() == COOKIES


def test_borrowed_headers_are_their_owners_as_long_as_it_is_there(base: EventBase) -> None:
    owner = Owner(base)
    headers = Headers._borrowed(owner, lambda pointer: pointer)  # type: ignore[arg-type]
    assert isinstance(headers, Headers)
    assert headers == owner.headers
    headers["Host"] = "b"
    assert owner.headers["host"] == "b"
    with pytest.raises(ValueError, match="belong to a Owner"):
        headers.close()
    assert not headers.closed
    owner.headers.close()
    assert headers.closed
    assert "closed" in repr(headers)
    with pytest.raises(ClosedError):
        headers.get("host")


def test_several_threads_may_use_the_same_headers() -> None:
    headers = Headers()
    failed = []

    def use(name: str) -> None:
        try:
            for i in range(2000):
                headers[name] = str(i)
                assert headers[name] == str(i)
                assert len(headers.items()) <= 4
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(headers) == list("abcd")


def test_no_misuse_of_headers_reads_or_frees_what_is_not_there() -> None:
    run_python(
        """
        import gc, os
        from libevent_py import Headers, Query, parse_query_str

        for _ in range(3):
            headers = Headers([("a", "b" * 1000), ("A", "c")])
            headers.add("d", "e")
            headers["a"] = "f"
            headers.update(headers)
            del headers["d"]
            pointer = headers.pointer
            headers.close()
            headers.close()
            del pointer, headers
            try:
                Headers([("a", "b"), ("c", "\\n")])
            except ValueError:
                pass
            try:
                parse_query_str("a=1&b")
            except ValueError:
                pass
            parse_query_str("a=1&b=%41&a=2").items()
            cycle = Headers({"a": "b"})
            loop = [cycle]
            loop.append(loop)
            del cycle, loop
            gc.collect()
        kept = Headers({"a": "b"})
        child = os.fork()
        if not child:
            assert kept["a"] == "b"
            kept["c"] = "d"
            kept.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert kept.items() == [("a", "b")]
        """,
        valgrind=True,
    )


# Queries.


def test_a_query_is_parsed_in_order_with_its_values_decoded() -> None:
    query = parse_query_str("q=%C3%A9+x&a[]=1&q=2&e=&=".removesuffix("&="))
    assert query.items() == [("q", "\xe9 x"), ("a[]", "1"), ("q", "2"), ("e", "")]
    assert query.get_all("q") == ["\xe9 x", "2"]
    assert isinstance(query, Query) and isinstance(query, Headers)
    assert parse_query("http://h/p?a=1&b=2#c?d=e").items() == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("uri", ["", "/", "/a", "/a?", "http://h#?a=1", b"/%00?"])
def test_a_uri_without_a_query_has_no_arguments(uri: str) -> None:
    assert parse_query(uri).items() == []


def test_what_is_no_utf_8_in_a_query_comes_back_as_it_was() -> None:
    query = parse_query_str(b"a=%ff&\xfe=b")
    assert query.items() == [("a", "\udcff"), ("\udcfe", "b")]
    assert Query(query) == query
    assert query["\udcfe"] == "b"


@pytest.mark.parametrize("query", ["a", "a&b=1", "=1", "a=1&=2", "a=1&&b=2"])
def test_an_argument_without_a_name_or_a_value_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match="evhttp_parse_query_str found no arguments"):
        parse_query_str(query)
    with pytest.raises(ValueError, match="evhttp_parse_query found no arguments"):
        parse_query("/?" + query)


@pytest.mark.parametrize("query", ["a=%00", "b=1&a=x%00y", "a==%00", "a=%%00", "a=%0%00"])
def test_a_value_that_c_would_cut_at_a_nul_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match="no value in a query must contain %00"):
        parse_query_str(query)
    with pytest.raises(ValueError, match="no value in a query must contain %00"):
        parse_query("/?" + query + "#f")


def test_an_encoded_nul_elsewhere_than_in_a_value_stays_as_it_is() -> None:
    assert parse_query_str("%00=1").items() == [("%00", "1")]
    assert parse_query_str("a=%2500").items() == [("a", "%00")]
    assert parse_query("/%00?a=1#%00").items() == [("a", "1")]


def test_a_nul_itself_is_refused() -> None:
    for parse in (parse_query, parse_query_str):
        with pytest.raises(ValueError, match="must not contain a NUL"):
            parse("a=1\0")
        with pytest.raises(TypeError, match="must be str or bytes"):
            parse(None)  # type: ignore[arg-type]


def test_a_query_takes_names_that_a_header_does_not() -> None:
    query = Query({"a b": "\u20ac"})
    query.update({"c d": "e"})
    assert query.items() == [("a b", "\u20ac"), ("c d", "e")]
    with pytest.raises(ValueError, match="must not contain a NUL"):
        query.add("a\0", "b")
