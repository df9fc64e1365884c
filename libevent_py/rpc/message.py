"""Messages of evrpc, each described by a class, in the format of libevent's ``event_rpcgen.py``.

An ``.rpc`` file's ``struct weather { string city = 1; optional int64 when = 2; array int
degrees = 3; }`` is written here as::

    class Weather(Message):
        city = String(1)
        when = Int64(2, optional=True)
        degrees = Array(Int(3))

The numbers are the tags by which the other side identifies the fields.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, TypeVar, overload

from libevent_py import tag
from libevent_py._core import convert
from libevent_py._core.convert import Octets
from libevent_py._core.described import described
from libevent_py.buffer.buffer import Buffer
from libevent_py.errors import TagError

F = TypeVar("F", bound="Field[Any]")
M = TypeVar("M", bound="Message")
V = TypeVar("V")


@described(
    name="The field's name in its message.",
    optional="Whether a message is complete without the field.",
    tag="The field's number on the wire.",
)
class Field(Generic[V]):
    """A field of a message: reading it gives its value, or None while it is not set.

    Setting it checks the value. ``del`` unsets it, and so does None. The class attribute
    ``repeats`` says whether such a field may occur several times in a message.
    """

    __slots__ = ("name", "optional", "tag")

    repeats = False

    def __init__(self, tag: int, *, optional: bool = False) -> None:
        """Describe the field that the other side identifies by *tag*."""
        self.tag: int = convert.integer(tag, "tag", 0, 2**32 - 1)
        self.optional: bool = bool(optional)
        self.name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            raise TypeError(f"the field {self.name!r} can't be {name!r}, too: make another one")
        self.name = name

    @overload
    def __get__(self: F, message: None, owner: type) -> F: ...

    @overload
    def __get__(self, message: Message, owner: type) -> V | None: ...

    def __get__(self: F, message: Message | None, owner: type) -> F | V | None:
        return self if message is None else message.values.get(self.name)

    def __set__(self, message: Message, value: V | None) -> None:
        if value is None:
            message.values.pop(self.name, None)
        else:
            message.values[self.name] = self.checked(value)

    def __delete__(self, message: Message) -> None:
        message.values.pop(self.name, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tag})"

    def checked(self, value: V) -> V:
        """Return *value*, converted, or raise an error that names the field."""
        raise NotImplementedError

    def missing(self, value: V) -> list[str]:
        """Return the names of the fields that are missing in *value*."""
        return []

    def marshal(self, buffer: Buffer, value: V) -> None:
        """Append *value* with its tag to *buffer*."""
        raise NotImplementedError

    def unmarshal(self, buffer: Buffer) -> V:
        """Remove a value with its tag from the front of *buffer*, and return it."""
        raise NotImplementedError


class Int(Field[int]):
    """An ``int`` of an ``.rpc`` file: from 0 to 2**32 - 1."""

    __slots__ = ()

    def checked(self, value: int) -> int:
        """Return *value* as an int in range."""
        return convert.integer(value, self.name, 0, 2**32 - 1)

    def marshal(self, buffer: Buffer, value: int) -> None:
        """Append the number."""
        tag.marshal_int(buffer, self.tag, value)

    def unmarshal(self, buffer: Buffer) -> int:
        """Remove and return a number."""
        return tag.unmarshal_int(buffer, self.tag)


class Int64(Field[int]):
    """An ``int64`` of an ``.rpc`` file: from 0 to 2**64 - 1."""

    __slots__ = ()

    def checked(self, value: int) -> int:
        """Return *value* as an int in range."""
        return convert.integer(value, self.name, 0, 2**64 - 1)

    def marshal(self, buffer: Buffer, value: int) -> None:
        """Append the number."""
        tag.marshal_int64(buffer, self.tag, value)

    def unmarshal(self, buffer: Buffer) -> int:
        """Remove and return a number."""
        return tag.unmarshal_int64(buffer, self.tag)


class String(Field[str]):
    """A ``string`` of an ``.rpc`` file: text in UTF-8 without NUL, at which C would end it.

    Received bytes that are not valid UTF-8 become lone surrogates, as in `os.fsdecode`.
    """

    __slots__ = ()

    def checked(self, value: str) -> str:
        """Return *value* if it is text that C can hold."""
        if not isinstance(value, str):
            raise TypeError(f"{self.name} must be str, not {value!r}")
        if "\0" in value:
            raise ValueError(f"{self.name} must not contain a NUL: {value!r}")
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"{self.name} must be text for UTF-8, not {value!r}") from None
        return value

    def marshal(self, buffer: Buffer, value: str) -> None:
        """Append the text."""
        tag.marshal_string(buffer, self.tag, value)

    def unmarshal(self, buffer: Buffer) -> str:
        """Remove and return text, up to a NUL."""
        return tag.unmarshal_string(buffer, self.tag).partition("\0")[0]


@described(
    length="The number of bytes of a value, or None for any number.",
)
class Bytes(Field[bytes]):
    """A ``bytes`` of an ``.rpc`` file: with *length*, as in ``bytes key[16]``, always that many."""

    __slots__ = ("length",)

    def __init__(self, tag: int, length: int | None = None, *, optional: bool = False) -> None:
        """Describe the field that the other side identifies by *tag*."""
        super().__init__(tag, optional=optional)
        self.length: int | None = (
            None if length is None else convert.integer(length, "length", 1, 2**31 - 1)
        )

    def checked(self, value: Octets) -> bytes:
        """Return *value* as bytes, or raise an error for the wrong number of them."""
        octets = bytes(convert.octets(value, self.name)[0])
        if self.length is not None and len(octets) != self.length:
            raise ValueError(f"{self.name} must have {self.length} bytes, not {len(octets)}")
        return octets

    def marshal(self, buffer: Buffer, value: bytes) -> None:
        """Append the bytes."""
        tag.marshal(buffer, self.tag, value)

    def unmarshal(self, buffer: Buffer) -> bytes:
        """Remove and return bytes."""
        if self.length is None:
            return tag.unmarshal(buffer)[1]
        return tag.unmarshal_fixed(buffer, self.tag, self.length)


@described(
    kind="The class of the field's messages.",
)
class Struct(Field[M]):
    """A ``struct[kind]`` of an ``.rpc`` file: another message inside the message.

    Unlike in C, reading the field while it isn't set doesn't make a message.
    """

    __slots__ = ("kind",)

    def __init__(self, tag: int, kind: type[M], *, optional: bool = False) -> None:
        """Describe the field, with messages of *kind*, that the other side identifies by *tag*."""
        super().__init__(tag, optional=optional)
        if not isinstance(kind, type) or not issubclass(kind, Message):
            raise TypeError(f"kind must be a subclass of Message, not {kind!r}")
        self.kind: type[M] = kind

    def checked(self, value: M) -> M:
        """Return *value*, not a copy, if it is of the right class."""
        if not isinstance(value, self.kind):
            raise TypeError(f"{self.name} must be a {self.kind.__name__}, not {value!r}")
        return value

    def missing(self, value: M) -> list[str]:
        """Return the names of the fields that are missing in the message."""
        return [f"{self.name}.{name}" for name in value.missing()]

    def marshal(self, buffer: Buffer, value: M) -> None:
        """Append the message."""
        tag.marshal(buffer, self.tag, bytes(value))

    def unmarshal(self, buffer: Buffer) -> M:
        """Remove and return a message."""
        return self.kind.unmarshal(tag.unmarshal(buffer)[1])


@described(
    of="The field that describes each of the values.",
)
class Array(Field[list[V]]):
    """An ``array`` of an ``.rpc`` file: any number of values of the field *of*, none at first.

    Reading it gives a list, which you may change; setting it takes any iterable. An empty list is
    the same as none.
    """

    __slots__ = ("of",)

    repeats = True

    def __init__(self, of: Field[V]) -> None:
        """Describe an array of values of the field *of*, with its tag.

        Raises `TypeError` for fields of which ``event_rpcgen.py`` has no arrays: `Bytes`, `Array`,
        and optional ones.
        """
        if not isinstance(of, (Int, Int64, String, Struct)) or of.optional:
            raise TypeError(f"an array must be of Int, Int64, String or Struct, not {of!r}")
        super().__init__(of.tag, optional=True)
        self.of: Field[V] = of

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self.of.__set_name__(owner, name)

    @overload
    def __get__(self: F, message: None, owner: type) -> F: ...

    @overload
    def __get__(self, message: Message, owner: type) -> list[V]: ...

    def __get__(self: F, message: Message | None, owner: type) -> F | list[V]:
        return self if message is None else message.values.setdefault(self.name, [])

    def checked(self, value: Iterable[V]) -> list[V]:
        """Return a list of the values, each of them checked."""
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{self.name} must be a list, not {value!r}")
        return [self.of.checked(item) for item in value]

    def missing(self, value: list[V]) -> list[str]:
        """Return the names of the fields that are missing in the values."""
        return [name for item in value for name in self.of.missing(item)]

    def marshal(self, buffer: Buffer, value: list[V]) -> None:
        """Append the values, each with the tag."""
        for item in self.checked(value):  # the user may have changed the list
            self.of.marshal(buffer, item)

    def unmarshal(self, buffer: Buffer) -> V:  # type: ignore[override]  # one of its values
        """Remove and return one value."""
        return self.of.unmarshal(buffer)


@described(
    values="The values of the fields that are set, by name.",
)
class Message:
    """A message of evrpc; a subclass describes its content by fields.

    ``Weather(city="Oslo")`` sets fields. ``bytes(message)`` is the encoding that is sent. Messages
    are equal when their classes and their values are. ``fields`` has the class's fields by name, in
    the order in which they stand in the class, which is also their order on the wire.
    """

    __slots__ = ("values",)

    fields: ClassVar[dict[str, Field[Any]]] = {}
    _by_tag: ClassVar[dict[int, Field[Any]]] = {}

    values: dict[str, Any]

    def __init_subclass__(cls) -> None:
        own = {name: thing for name, thing in vars(cls).items() if isinstance(thing, Field)}
        for name in own.keys() & (set(dir(Message)) | cls.fields.keys()):
            raise TypeError(f"a field can't be named {name!r}: messages have that name already")
        cls.fields = {**cls.fields, **own}
        for one, other in itertools.combinations(cls.fields.values(), 2):
            if one.tag == other.tag:
                raise TypeError(f"{one.name} and {other.name} have the same tag, {one.tag}")
        cls._by_tag = {field.tag: field for field in cls.fields.values()}

    def __init__(self, **values: Any) -> None:
        """Make a message with *values*; raises `TypeError` for a name that is no field."""
        self.values = {}
        for name, value in values.items():
            if name not in self.fields:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)

    def missing(self) -> list[str]:
        """Return the names of fields that must be set and are not, such as ``attack.weapon``."""
        found = []
        for name, field in self.fields.items():
            value = self.values.get(name)
            if value is not None:
                found += field.missing(value)
            elif not field.optional:
                found.append(name)
        return found

    @property
    def complete(self) -> bool:
        """Whether all fields that must be set are set."""
        return not self.missing()

    def clear(self) -> None:
        """Unset every field."""
        self.values.clear()

    def marshal(self, buffer: Buffer) -> None:
        """Append the message to *buffer*.

        Raises `ValueError`, and appends nothing, when a field is missing; C would crash.
        """
        if missing := self.missing():
            raise ValueError(f"{type(self).__name__} is incomplete: {', '.join(missing)} not set")
        with Buffer() as written:
            for name, field in self.fields.items():
                value = self.values.get(name)
                if value is not None:
                    field.marshal(written, value)
            buffer.add_buffer(written)

    def __bytes__(self) -> bytes:
        with Buffer() as buffer:
            self.marshal(buffer)
            return bytes(buffer)

    @classmethod
    def unmarshal(cls: type[M], data: Octets | Buffer) -> M:
        """Return the message in *data*, all of it: a `Buffer`, which is drained, or bytes.

        As in C, fields may come in any order. Raises `TagError` when *data* is malformed, or a
        field is unknown, repeated or missing; then the rest of a `Buffer` is of no use.
        """
        if not isinstance(data, Buffer):
            with Buffer(data) as buffer:
                return cls.unmarshal(buffer)
        message = cls()
        values = message.values
        while data:
            number = tag.peek(data)
            field = cls._by_tag.get(number)
            if field is None:
                raise TagError(f"{cls.__name__} has no field with the tag {number}")
            if field.repeats:
                values.setdefault(field.name, []).append(field.unmarshal(data))
            elif field.name in values:
                raise TagError(f"{field.name} comes twice")
            else:
                values[field.name] = field.unmarshal(data)
        if missing := message.missing():
            raise TagError(f"{cls.__name__} is incomplete: {', '.join(missing)} not set")
        return message

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._set() == other._set()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def _set(self) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if value != []}

    def __repr__(self) -> str:
        inside = (f"{name}={self.values[name]!r}" for name in self.fields if name in self._set())
        return f"{type(self).__name__}({', '.join(inside)})"
