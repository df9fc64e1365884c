"""``struct evkeyvalq``: the headers of a request or a reply, and the arguments of a query.

In HTTP, names and values consist of octets. Here they are text in Latin-1, as in `http.client` and
WSGI; those of a query are text in UTF-8. Bytes are taken unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import known_as
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Given
    from libevent_py.http.request import Request

Default = TypeVar("Default")
Text: TypeAlias = str | bytes

#: What a name consists of in RFC 9110.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FORBIDDEN = re.compile(rb"[\0\r\n]")

# Looked up once: an attribute of lib costs as much as a short call.
find: Final = lib.evpy_headers_find
string: Final = ffi.string
#: Up to how long values come as a whole.
ROOM: Final = ffi.sizeof(ffi.typeof("struct evpy_header").fields[1][1].type)
free: Final = lib.free


class Headers(Handle):
    """Names and values in order. A name may occur several times; its case makes no difference.

    ``Headers(items)`` adds *items*, a mapping or pairs. The headers of a request belong to it, and
    raise `ClosedError` once it has ended. Your own are freed with the last reference to them, and
    several threads may use them. As in `email.message.Message`, ``len`` and iteration count a name
    as often as it occurs.

    Spaces around a value are kept, but a receiver of HTTP drops them.
    """

    __slots__ = ()

    _charset = "latin-1"
    _errors = "strict"

    def __init__(self, items: Pairs = ()) -> None:
        self._check_unmade()
        super().__init__(new_owned(lib.evpy_headers_free, lib.evpy_headers_new))
        for name, value in checked_pairs(items, "items"):
            self.add(name, value)

    @classmethod
    def _borrowed(cls, owner: Request, get: Callable[[CData], CData]) -> Headers:
        """Make the object for what *get* returns for *owner*'s pointer; *owner* frees it."""
        headers = BorrowedHeaders.__new__(BorrowedHeaders)
        headers._owner = owner
        headers._get = get
        return headers

    @classmethod
    def _received(cls, others: Headers) -> Headers:
        """Return a copy of what a peer has sent, whose names need not be tokens.

        A carriage return, which only a continued line can have, becomes a space (RFC 9110, 5.5).
        """
        headers = cls()
        for name, value in others.items():
            octets = value.encode(cls._charset).replace(b"\r", b" ")
            errors.call(lib.evpy_headers_add, headers.pointer, name.encode(cls._charset), octets)
        return headers

    def close(self) -> None:
        """Free the headers; a second time does nothing.

        Raises `ValueError` when they belong to a request, which frees them.
        """
        self._take()

    # Reading.

    def get(self, name: Text, default: Default | None = None) -> str | Default | None:
        """Return the first value of *name*, or *default*. Wraps ``evhttp_find_header``."""
        key = self._key(name)
        found = find(self.pointer, key)
        size = found.size
        if size < 0:
            return default
        if size < ROOM:
            return str(string(found.text), self._charset, self._errors)
        values = self._packed(key)  # other code may have removed it since
        return values[0] if values else default

    def get_all(self, name: Text) -> list[str]:
        """Return all values of *name* in order, for instance of ``Set-Cookie``."""
        return self._packed(self._key(name))

    def items(self) -> list[tuple[str, str]]:
        """Return every name with its value, in order."""
        both = iter(self._packed(ffi.NULL))
        return list(zip(both, both, strict=True))

    def keys(self) -> list[str]:
        """Return every name in order, as often as it occurs."""
        return self._packed(ffi.NULL)[::2]

    def values(self) -> list[str]:
        """Return every value, in order."""
        return self._packed(ffi.NULL)[1::2]

    def __getitem__(self, name: Text) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, (str, bytes)) and self.get(name) is not None

    def __len__(self) -> int:
        return len(self._packed(ffi.NULL)) // 2

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __eq__(self, other: object) -> bool:
        """Tell whether *other* has the same names and values in this order; ignore names' case."""
        if not isinstance(other, Headers):
            return NotImplemented
        return _folded(self) == _folded(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._why_absent() is not None or not self._may_ask():
            return super().__repr__()
        return f"{type(self).__name__}({self.items()!r})"

    # Changing.

    def add(self, name: Text, value: Text) -> None:
        """Add *name* with *value*; values that the name has already stay.

        Unlike in C, raises `ValueError` for any name that is no token of RFC 9110, and for a value
        with a carriage return, line feed or NUL, which would end it.
        Wraps ``evhttp_add_header``.
        """
        pointer = self.pointer  # the two are checked here because C accepts too much (Q4)
        errors.call(lib.evpy_headers_add, pointer, self._name(name), self._value(name, value))

    def __setitem__(self, name: Text, value: Text) -> None:
        """Replace all values of *name* by *value*; raises the errors of `add`."""
        pointer = self.pointer
        errors.call(lib.evpy_headers_set, pointer, self._name(name), self._value(name, value))

    def __delitem__(self, name: Text) -> None:
        """Remove all values of *name*, or raise `KeyError`. Wraps ``evhttp_remove_header``."""
        if not lib.evpy_headers_remove(self.pointer, self._key(name)):
            raise KeyError(name)

    def update(self, items: Pairs) -> None:
        """Replace all values of the names in *items*, a mapping or pairs.

        A name that occurs several times in *items* gets all of these values.
        """
        new = Query(items) if isinstance(self, Query) else Headers(items)
        for name in new:
            lib.evpy_headers_remove(self.pointer, self._key(name))
        for name, value in new.items():
            self.add(name, value)

    def setdefault(self, name: Text, default: Text) -> str:
        """Return the first value of *name*, after adding *default* if there is none."""
        if name not in self:
            self.add(name, default)
        return self[name]

    def pop(self, name: Text, *default: Default) -> str | Default:
        """Remove all values of *name*, and return the first.

        If there is none, return *default*; without a *default*, raise `KeyError`.
        """
        value = self.get(name)
        if value is None:
            if default:
                return default[0]
            raise KeyError(name)
        del self[name]
        return value

    def clear(self) -> None:
        """Remove all names and values. Wraps ``evhttp_clear_headers``."""
        lib.evpy_headers_clear(self.pointer)

    # Text as C reads it.

    def _encoded(self, text: Text, what: str) -> bytes:
        if isinstance(text, bytes):
            return text
        if not isinstance(text, str):
            raise TypeError(f"{what} must be str or bytes, not {text!r}")
        try:
            return text.encode(self._charset, self._errors)
        except UnicodeEncodeError:
            raise ValueError(
                f"{what} must be text that {self._charset} can encode, not {text!r}"
            ) from None

    def _key(self, name: Text) -> bytes:
        """Return *name*, encoded, to look it up."""
        key = self._encoded(name, "name")
        if b"\0" in key:
            raise ValueError(f"name must not contain a NUL: {name!r}")
        return key

    def _name(self, name: Text) -> bytes:
        """Return *name*, checked and encoded, to add it."""
        key = self._encoded(name, "name")
        if not TOKEN.fullmatch(key):
            raise ValueError(
                f"name must consist of letters, digits and !#$%&'*+-.^_`|~, not {name!r}"
            )
        return key

    def _value(self, name: Text, value: Text) -> bytes:
        """Return *value* of *name*, checked and encoded, to add it."""
        octets = self._encoded(value, f"value of {name!r}")
        found = FORBIDDEN.search(octets)
        if found:
            raise ValueError(
                f"value of {name!r} must not contain {found[0]!r}, as at {found.start()}: {value!r}"
            )
        return octets

    def _packed(self, name: bytes | CData) -> list[str]:
        """Return all names and values or, with a *name*, its values."""
        size = ffi.new("size_t *")
        packed = new_owned(free, lib.evpy_headers_pack, self.pointer, name, size)
        octets = bytes(ffi.buffer(packed, size[0]))
        return octets.decode(self._charset, self._errors).split("\0")[:-1]


#: What headers are made of.
Pairs: TypeAlias = Headers | Mapping[str, Text] | Mapping[bytes, Text] | Iterable[tuple[Text, Text]]


@known_as("Headers")
class BorrowedHeaders(Headers):
    """The headers of a request, which end with it."""

    __slots__ = ("_get", "_kept", "_owner")

    _owner: Request
    _get: Callable[[CData], CData]
    #: The owner's pointer, kept alive while a method calls C with the headers' own.
    _kept: CData

    def _why_absent(self) -> str | None:
        return self._owner._why_absent()

    def _may_ask(self) -> bool:
        return bool(self._owner._may_ask())

    @property
    def pointer(self) -> CData:  # type: ignore[override]  # nobody sets it
        """The C object; raises the errors of its owner's pointer."""
        self._owner.base._check_thread()
        self._kept = pointer = self._owner.pointer
        return self._get(pointer)

    @property
    def closed(self) -> bool:
        """Whether the request is closed."""
        return bool(self._owner.closed)

    def close(self) -> None:
        raise ValueError(
            f"these headers belong to a {type(self._owner).__name__}, which frees them"
        )


class Query(Headers):
    """The arguments of a query in order, as text in UTF-8.

    Bytes that are not valid UTF-8 become lone surrogates, as in `os.fsdecode`. Unlike the name of a
    header, a name may contain any character but NUL.
    """

    __slots__ = ()

    _charset = "utf-8"
    _errors = "surrogateescape"

    _name = Headers._key


def uri_text(value: Text, name: str) -> bytes:
    """Return *value*, a part of a URI, as C reads it: in UTF-8, without NUL."""
    if isinstance(value, str):
        with contextlib.suppress(UnicodeEncodeError):  # `string` below says what is wrong
            value = value.encode("utf-8", "surrogateescape")
    return convert.string(value, name)


def parse_query_str(query: Text) -> Query:
    """Return the arguments of *query*, such as ``a=1&b=2``, with decoded values.

    As in C, names are not decoded. Raises `ValueError` when an argument has no name or no ``=``,
    and for ``%00`` in a value, where C would cut it. Wraps ``evhttp_parse_query_str``.
    """
    text = uri_text(query, "query")
    return _parse(lib.evhttp_parse_query_str, query, text, text)


def parse_query(uri: Text) -> Query:
    """Return the arguments of the query in *uri*, as `parse_query_str` does.

    Raises `ValueError` for text that is no URI, too. Wraps ``evhttp_parse_query``.
    """
    text = uri_text(uri, "uri")
    query = text.partition(b"#")[0].partition(b"?")[2]
    return _parse(lib.evhttp_parse_query, uri, text, query)


def _parse(
    function: Callable[[Given, Given], int], given: Text, text: bytes, query: bytes
) -> Query:
    if b"%00" in query and any(b"%00" in pair.partition(b"=")[2] for pair in query.split(b"&")):
        raise ValueError(f"no value in a query must contain %00: {given!r}")
    arguments = Query()
    ffi.errno = 0
    if function(text, arguments.pointer):
        if ffi.errno == errno.ENOMEM:
            raise errors.failed(function)
        raise ValueError(f"{errors.name_of(function)} found no arguments name=value in {given!r}")
    return arguments


def pairs_of(items: Pairs) -> Iterable[tuple[Text, Text]]:
    """Return the names and values of *items*."""
    return items.items() if isinstance(items, (Mapping, Headers)) else items


def checked_pairs(items: Pairs, name: str) -> Iterator[tuple[Text, Text]]:
    """Yield the names and values of *items*, or raise an error that names the argument."""
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise TypeError(f"{name} must be a mapping or pairs of name and value, not {items!r}")
    for pair in pairs_of(items):
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be pairs of name and value, not {pair!r}") from None
        yield key, value


def _folded(headers: Headers) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]
