"""``struct evhttp_uri``: the parts of a URI, and encoding and decoding.

Text is passed to C as UTF-8. Bytes from C that are not valid UTF-8 become lone surrogates, as in
`os.fsdecode`; such text can be passed back.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, AnyStr, ClassVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import Octets
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned, owned, text_from
from libevent_py._ffi import ffi, lib
from libevent_py.enums import UriFlag
from libevent_py.http.headers import Text, uri_text

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Unpack

#: The longest text that libevent decodes, in bytes: it counts with an int.
LONGEST = 2**31 - 1

ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")


class Part:
    """A part of a URI that is text: its C functions, and what they allow in it."""

    __slots__ = ("allowed", "get", "name", "set", "setter")

    def __init__(self, name: str, allowed: str) -> None:
        self.name: str = name
        self.allowed: str = allowed
        self.get: CData = ffi.addressof(lib, f"evhttp_uri_get_{name}")
        self.set: CData = ffi.addressof(lib, f"evhttp_uri_set_{name}")
        self.setter: Any = getattr(lib, f"evhttp_uri_set_{name}")


SCHEME = Part("scheme", "letters, then letters, digits, +, - or .")
USERINFO = Part("userinfo", "characters without meaning in a URI, :, or percent escapes")
HOST = Part("host", "a name, an IPv4 address, or another address in brackets")
PATH = Part("path", "characters allowed in a path, or percent escapes")
QUERY = Part("query", "characters allowed in a query, or percent escapes")
FRAGMENT = Part("fragment", "characters allowed in a fragment, or percent escapes")


class Uri(Handle):
    """A URI in parts. Each part is percent-encoded text, or None if it is missing.

    ``Uri()`` has no parts. Setting a part raises `ValueError` for text that isn't allowed in it. A
    URI is freed with the last reference to it, and several threads may use it.
    """

    __slots__ = ("_flags",)

    def __init__(self) -> None:
        """Make a URI without any parts. Wraps ``evhttp_uri_new``."""
        self._check_unmade()
        self._flags = UriFlag(0)
        self.pointer: CData = new_owned(lib.evhttp_uri_free, lib.evhttp_uri_new)

    @classmethod
    def parse(cls, text: Text, flags: int = UriFlag(0)) -> Uri:
        """Make a URI from *text*, an absolute or relative URI as in RFC 3986.

        The flag NONCONFORMANT allows any characters in path, query and fragment, even control
        characters. Raises `ValueError` if *text* is no URI. Wraps ``evhttp_uri_parse_with_flags``.
        Stands for ``evhttp_uri_parse``.
        """
        source = uri_text(text, "text")
        flags = convert.flags(UriFlag, flags, "flags")
        uri = cls.__new__(cls)
        parse = lib.evhttp_uri_parse_with_flags
        pointer = owned(lib.evhttp_uri_free, parse, source, flags)
        if not pointer:
            raise _refused(parse, f"text must be a URI, not {text!r}")
        uri._flags, uri.pointer = flags, pointer
        return uri

    @classmethod
    def _copied(cls, pointer: CData, flags: int = UriFlag.NONCONFORMANT) -> Uri:
        """Make a URI with the same parts as C's *pointer*, which may be a request's."""
        uri = cls.__new__(cls)
        uri._flags = UriFlag.NONCONFORMANT
        uri.pointer = new_owned(lib.evhttp_uri_free, lib.evpy_uri_copy, pointer)
        uri.flags = UriFlag(flags)
        return uri

    def copy(self) -> Uri:
        """Return another URI with the same parts and flags."""
        return self._copied(self.pointer, self._flags)

    def close(self) -> None:
        """Free the URI; a second time does nothing. Wraps ``evhttp_uri_free``."""
        self._take()

    def _get(self, part: Part) -> str | None:
        octets = text_from(lib.evpy_uri_get, self.pointer, part.get)
        if octets is not None:
            return octets.decode("utf-8", "surrogateescape")
        if ffi.errno:
            raise errors.failed(lib.evpy_uri_get, part.name)
        return None

    def _set(self, part: Part, value: Text | None) -> None:
        text = ffi.NULL if value is None else uri_text(value, part.name)
        ffi.errno = 0
        if lib.evpy_uri_set(self.pointer, part.set, text):
            raise _refused(part.setter, f"{part.name} must be {part.allowed}, not {value!r}")

    @property
    def flags(self) -> UriFlag:
        """The flags of the URI: with NONCONFORMANT, path, query and fragment may be any text.

        Wraps ``evhttp_uri_set_flags``.
        """
        self._check_usable()  # a closed URI has none
        return self._flags

    @flags.setter
    def flags(self, flags: UriFlag) -> None:
        flags = convert.flags(UriFlag, flags, "flags")
        lib.evhttp_uri_set_flags(self.pointer, flags)
        self._flags = flags

    @property
    def scheme(self) -> str | None:
        """The part before the first colon, such as "http".

        Wraps ``evhttp_uri_get_scheme``, ``evhttp_uri_set_scheme``.
        """
        return self._get(SCHEME)

    @scheme.setter
    def scheme(self, value: Text | None) -> None:
        self._set(SCHEME, value)

    @property
    def userinfo(self) -> str | None:
        """The part before the host and an @, such as "user:password".

        Wraps ``evhttp_uri_get_userinfo``, ``evhttp_uri_set_userinfo``.
        """
        return self._get(USERINFO)

    @userinfo.setter
    def userinfo(self, value: Text | None) -> None:
        self._set(USERINFO, value)

    @property
    def host(self) -> str | None:
        """The host; an IPv6 address is in brackets. "" in ``file:///``, for instance.

        Wraps ``evhttp_uri_get_host``, ``evhttp_uri_set_host``.
        """
        return self._get(HOST)

    @host.setter
    def host(self, value: Text | None) -> None:
        self._set(HOST, value)

    @property
    def port(self) -> int | None:
        """The port, or None (in C, -1).

        Unlike in C, it can't be set to more than 65535, which could not be parsed again.
        Wraps ``evhttp_uri_get_port``, ``evhttp_uri_set_port``.
        """
        port = int(lib.evhttp_uri_get_port(self.pointer))
        return None if port < 0 else port

    @port.setter
    def port(self, value: int | None) -> None:
        number = -1 if value is None else convert.integer(value, "port", 0, 65535)
        errors.call(lib.evhttp_uri_set_port, self.pointer, number)

    @property
    def path(self) -> str | None:
        """The path; "" in a parsed URI that has none.

        Wraps ``evhttp_uri_get_path``, ``evhttp_uri_set_path``.
        """
        return self._get(PATH)

    @path.setter
    def path(self, value: Text | None) -> None:
        self._set(PATH, value)

    @property
    def query(self) -> str | None:
        """The part after the first question mark; `parse_query_str` takes it apart.

        Wraps ``evhttp_uri_get_query``, ``evhttp_uri_set_query``.
        """
        return self._get(QUERY)

    @query.setter
    def query(self, value: Text | None) -> None:
        self._set(QUERY, value)

    @property
    def fragment(self) -> str | None:
        """The part after the ``#``.

        Wraps ``evhttp_uri_get_fragment``, ``evhttp_uri_set_fragment``.
        """
        return self._get(FRAGMENT)

    @fragment.setter
    def fragment(self, value: Text | None) -> None:
        self._set(FRAGMENT, value)

    def __str__(self) -> str:
        """Return the whole URI; without a host, userinfo and port are left out.

        Raises `ValueError` when there is a host and the path doesn't begin with a slash.
        Wraps ``evhttp_uri_join``.
        """
        octets = text_from(lib.evpy_uri_join, self.pointer)
        if octets is None:
            if ffi.errno == errno.ENOMEM:
                raise errors.failed(lib.evhttp_uri_join)
            raise ValueError(f"path must begin with / if there is a host, not {self.path!r}")
        return octets.decode("utf-8", "surrogateescape")

    def _parts(self) -> dict[str, str | int | None]:
        parts: dict[str, str | int | None] = {
            part.name: self._get(part) for part in (SCHEME, USERINFO, HOST, PATH, QUERY, FRAGMENT)
        }
        parts["port"] = self.port
        return parts

    def __eq__(self, other: object) -> bool:
        """Tell whether *other* has the same parts, letter by letter."""
        return self._parts() == other._parts() if isinstance(other, Uri) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._why_absent() is not None:
            return super().__repr__()
        parts = (f"{name}={part!r}" for name, part in self._parts().items() if part is not None)
        return f"<{type(self).__name__} {', '.join(parts)}>"


def uriencode(data: str | Octets, *, space_to_plus: bool = False) -> str:
    """Percent-encode all of *data*, text or bytes, but ``A-Za-z0-9-._~``.

    With *space_to_plus* spaces become ``+``, as in forms. Wraps ``evhttp_uriencode``.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    octets, size = convert.octets(data)
    text = _text_from(lib.evpy_http_uriencode, octets, size, bool(space_to_plus))
    return text.decode("ascii")


def uridecode(text: Text, *, decode_plus: bool = False) -> bytes:
    """Decode the percent escapes in *text*, and leave everything else unchanged.

    With *decode_plus* ``+`` becomes a space. Wraps ``evhttp_uridecode``.
    """
    source = _decodable(text)
    size = ffi.new("size_t *")
    return _text_from(lib.evhttp_uridecode, source, bool(decode_plus), size, size=size)


def encode_uri(text: Text) -> str:
    """Percent-encode *text* as `uriencode` does; raise `ValueError` for a NUL in it.

    Wraps ``evhttp_uriencode``. Stands for ``evhttp_encode_uri``.
    """
    source = uri_text(text, "text")
    return _text_from(lib.evpy_http_uriencode, source, -1, False).decode("ascii")


def decode_uri(text: Text) -> bytes:
    """Decode *text* as `uridecode` does; after the first question mark ``+`` becomes a space.

    It exists for old programs. Wraps ``evhttp_decode_uri``.
    """
    source = _decodable(text)
    # C doesn't return the length, and a decoded ``%00`` doesn't end the text.
    size = len(source) - 2 * len(ESCAPE.findall(source))
    return _text_from(lib.evhttp_decode_uri, source, size=[size])


def htmlescape(text: AnyStr) -> AnyStr:
    """Escape *text* for use in HTML: replace ``< > & " '`` by entities.

    Wraps ``evhttp_htmlescape``.
    """
    escaped = _text_from(lib.evhttp_htmlescape, uri_text(text, "text"))
    return escaped if isinstance(text, bytes) else escaped.decode("utf-8", "surrogateescape")


def _decodable(text: Text) -> bytes:
    source = uri_text(text, "text")
    if len(source) > LONGEST:
        raise ValueError(f"text must not be longer than {LONGEST} bytes")
    return source


def _text_from(
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
    size: CData | list[int] | None = None,
) -> bytes:
    """Do as `text_from` does, but instead of NULL raise why there is no text."""
    octets = text_from(function, *arguments, size=size)
    if octets is None:
        raise errors.failed(function)
    return octets


def _refused(function: Callable[..., object], why: str) -> Exception:
    return errors.failed(function) if ffi.errno == errno.ENOMEM else ValueError(why)
