"""Messages of evrpc: what is in them, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import Buffer, Message, tag
from libevent_py.errors import TagError
from libevent_py.rpc.message import Array, Bytes, Int, Int64, String, Struct
from tests.kit.rpc_messages import Kill, Msg, Run


def test_a_field_that_is_not_set_is_none_and_an_array_is_empty() -> None:
    message = Msg()
    assert message.from_name is None
    assert message.attack is None
    assert message.run == []
    assert message == Msg()


def test_fields_are_set_unset_and_cleared() -> None:
    message = Msg(from_name="a", to_name="b")
    message.from_name = "c"
    del message.to_name
    assert (message.from_name, message.to_name) == ("c", None)
    message.from_name = None
    assert message == Msg()
    message.run.append(Run())
    message.clear()
    assert message == Msg()
    with pytest.raises(TypeError, match="Msg has no field 'form_name'"):
        Msg(form_name="a")


def test_a_message_shows_what_is_in_it() -> None:
    kill = Kill(weapon="feather", how_often=[1, 2])
    assert repr(kill) == "Kill(weapon='feather', how_often=[1, 2])"
    assert repr(Msg()) == "Msg()"


def test_messages_are_equal_by_class_and_contents() -> None:
    assert Kill(weapon="a") == Kill(weapon="a", how_often=[])
    assert Kill(weapon="a") != Kill(weapon="b")
    assert Kill() != Msg()
    with pytest.raises(TypeError, match="unhashable"):
        hash(Kill())


def test_what_is_missing_is_told_by_its_path() -> None:
    message = Msg(to_name="b", attack=Kill(weapon="a"))
    message.run.append(Run(how="so"))
    assert message.missing() == ["from_name", "attack.action", "run.fixed_bytes"]
    assert not message.complete
    buffer = Buffer(b"before")
    with pytest.raises(ValueError, match=r"Msg is incomplete: from_name, attack.action, run.fixed"):
        message.marshal(buffer)
    assert bytes(buffer) == b"before"


def test_a_message_comes_back_as_it_was() -> None:
    message = Msg(from_name="niels", to_name="", attack=Kill(weapon="\u00e6", action="b"))
    assert message.attack is not None
    message.attack.how_often += [0, 15, 16, 2**32 - 1]
    run = Run(how="fast", fixed_bytes=bytes(24), large_number=2**64 - 1, some_bytes=b"")
    message.run = [run, Run(how="", fixed_bytes=b"x" * 24, notes=["a", ""])]
    assert Msg.unmarshal(bytes(message)) == message
    buffer = Buffer()
    message.marshal(buffer)
    assert Msg.unmarshal(buffer) == message
    assert len(buffer) == 0


def test_text_that_is_not_utf_8_comes_back_as_it_was() -> None:
    with Buffer() as buffer:
        tag.marshal(buffer, 2, b"\xff")
        tag.marshal(buffer, 0x10121, b"w\0rest")
        message = Kill.unmarshal(buffer)
    assert message == Kill(weapon="w", action="\udcff")
    assert Kill.unmarshal(bytes(message)) == message


def items(*fields: tuple[int, bytes]) -> bytes:
    """Return items with tags, as a message has them."""
    with Buffer() as buffer:
        for number, data in fields:
            tag.marshal(buffer, number, data)
        return bytes(buffer)


GOOD = items((0x10121, b"w"), (2, b"a"))

MALFORMED = {
    "nothing": (b"", "incomplete: weapon, action not set"),
    "one is missing": (GOOD[:-3], "incomplete: action not set"),
    "a field twice": (GOOD + items((2, b"b")), "action comes twice"),
    "an unknown field": (GOOD + items((99, b"")), "no field with the tag 99"),
    "cut in a tag": (GOOD + b"\x81", "."),
    "cut in a length": (GOOD + b"\x03", "."),
    "cut in a payload": (GOOD[:-1], "."),
    "a length beyond the end": (GOOD + b"\x03\x70\xff\xff\xff\xff", "."),
    "a number of no bytes": (GOOD + items((3, b"")), "."),
    "a number that is cut": (GOOD + items((3, b"\x70\x01")), "."),
    "a number of 64 bits": (GOOD + items((3, b"\xf0" + bytes(8))), "."),
    "a tag of six bytes": (GOOD + b"\xff\xff\xff\xff\xff\x01\x00", "."),
    "text, not a message": (b"Some Nonsense", "."),
}


@pytest.mark.parametrize(("data", "why"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(TagError, match=why):
        Kill.unmarshal(data)


@pytest.mark.parametrize("length", [0, 23, 25])
def test_bytes_of_fixed_length_have_that_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"fixed_bytes must have 24 bytes, not {length}"):
        Run(fixed_bytes=bytes(length))
    with pytest.raises(TagError):
        Run.unmarshal(items((1, b""), (3, bytes(length))))


def test_what_is_wrong_within_a_struct_is_an_error_of_the_whole() -> None:
    with pytest.raises(TagError, match="Kill is incomplete"):
        Msg.unmarshal(items((1, b""), (2, b""), (3, b"")))


WRONG: list[tuple[type[Message], str, Any, type[Exception]]] = [
    (Msg, "from_name", b"bytes", TypeError),
    (Msg, "from_name", "a\0b", ValueError),
    (Msg, "from_name", "\ud800", ValueError),
    (Msg, "attack", Run(), TypeError),
    (Kill, "how_often", "12", TypeError),
    (Kill, "how_often", [2**32], ValueError),
    (Kill, "how_often", [-1], ValueError),
    (Run, "large_number", 2**64, ValueError),
    (Run, "large_number", 1.5, TypeError),
    (Run, "some_bytes", "text", TypeError),
]


@pytest.mark.parametrize(("kind", "name", "value", "error"), WRONG)
def test_a_wrong_value_is_refused_by_name(
    kind: type[Message], name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"^{name} "):
        kind(**{name: value})


def test_a_wrong_item_of_a_list_is_refused_when_it_is_written() -> None:
    kill = Kill(weapon="a", action="b")
    kill.how_often.append("often")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="how_often must be an integer"):
        bytes(kill)


def test_fields_of_a_class_have_tags_and_names_of_their_own() -> None:
    with pytest.raises(TypeError, match="one and two have the same tag, 1"):
        type("Twice", (Message,), {"one": Int(1), "two": String(1)})
    with pytest.raises(TypeError, match="can't be named 'marshal'"):
        type("Hiding", (Message,), {"marshal": Int(1)})
    field = Int(1)
    with pytest.raises((TypeError, RuntimeError)) as caught:  # Python 3.11 wraps it
        type("Shared", (Message,), {"one": field, "two": field})
    assert "can't be 'two', too" in str(caught.value) + str(caught.value.__cause__)


def test_a_subclass_has_the_fields_of_its_base_before_its_own() -> None:
    class More(Kill):
        when = Int64(7, optional=True)

    assert list(More.fields) == ["weapon", "action", "how_often", "when"]
    assert More.unmarshal(GOOD) == More(weapon="w", action="a")


@pytest.mark.parametrize("of", [Bytes(1), Bytes(1, 3), Array(Int(1)), Int(1, optional=True), 1])
def test_there_are_no_arrays_of_what_c_has_none_of(of: Any) -> None:
    with pytest.raises(TypeError, match="an array must be of"):
        Array(of)


def test_a_field_is_described_by_what_can_be() -> None:
    with pytest.raises(ValueError, match="tag must be from 0"):
        Int(-1)
    with pytest.raises(ValueError, match="length must be from 1"):
        Bytes(1, 0)
    with pytest.raises(TypeError, match="kind must be a subclass of Message"):
        Struct(1, int)  # type: ignore[type-var]
    assert repr(Kill.weapon) == "String(65825)"
