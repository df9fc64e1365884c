"""Flags and enumerations: what they print, and that each member says what it means."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import pydoc
from typing import Any

import pytest

import libevent_py
from libevent_py import (
    BufferEventFlag,
    DnsOption,
    DnsResult,
    EventFlag,
    HttpStatus,
    LoopFlag,
    enums,
    lib,
)
from tests.kit.flags import PERSIST, READ, TIMEOUT, WRITE
from tests.kit.words import is_sentence

KINDS: list[Any] = [
    kind
    for kind in vars(enums).values()
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and kind.__members__
]


def test_every_enumeration_is_given_out_and_is_of_one_of_two_kinds() -> None:
    assert len(KINDS) > 30
    for kind in KINDS:
        assert getattr(libevent_py, kind.__name__) is kind
        assert issubclass(kind, enums.Flag) != issubclass(kind, enums.Number)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_member_has_a_docstring_of_its_own_and_help_shows_it(kind: Any) -> None:
    shown = pydoc.plain(pydoc.render_doc(kind))
    docs = []
    for name, member in kind.__members__.items():
        assert is_sentence(member.__doc__), name
        assert member.__doc__ != kind.__doc__, name
        docs.append(member.__doc__)
        if name in dir(kind):  # not what stands for several members
            assert member.__doc__ in shown
    assert len(set(docs)) == len(docs)


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        (READ, "READ"),
        (TIMEOUT | READ, "TIMEOUT|READ"),
        (READ | TIMEOUT, "TIMEOUT|READ"),
        (READ | PERSIST | EventFlag.ET, "READ|PERSIST|ET"),
        (EventFlag(0), "0"),
        (EventFlag(READ | 1 << 12), "READ|0x1000"),
        (EventFlag(1 << 12), "0x1000"),
        (DnsOption.ALL, "ALL"),
        (DnsOption.SEARCH | DnsOption.MISC, "SEARCH|MISC"),
        (DnsOption.ALL | DnsOption.NAMESERVERS_NO_DEFAULT, None),
        (~LoopFlag.ONCE, "NONBLOCK|NO_EXIT_ON_EMPTY"),
    ],
)
def test_a_flag_prints_its_names_on_every_python(flag: enums.Flag, names: str | None) -> None:
    names = names or "SEARCH|NAMESERVERS|MISC|HOSTSFILE|NAMESERVERS_NO_DEFAULT"
    kind = type(flag).__name__
    text = f"{kind}({names})" if names[0] == "0" else f"{kind}.{names}"
    assert flag.names == names
    assert str(flag) == f"{flag}" == "%s" % flag == format(flag) == text  # noqa: UP031
    assert repr(flag) == f"{flag!r}" == f"<{text}: {int(flag)}>"


def test_an_enumeration_prints_its_name_on_every_python() -> None:
    assert f"{DnsResult.TIMEOUT}" == str(DnsResult.TIMEOUT) == "DnsResult.TIMEOUT"
    assert repr(DnsResult.TIMEOUT) == f"<DnsResult.TIMEOUT: {lib.DNS_ERR_TIMEOUT}>"
    assert f"{HttpStatus.NOTFOUND}" == "HttpStatus.NOTFOUND"


def test_a_format_for_numbers_prints_the_number() -> None:
    both = READ | WRITE
    assert f"{both:d} {both:#x} {both:03d}" == f"{int(both)} {int(both):#x} {int(both):03d}"
    assert f"{HttpStatus.OK:d}" == "%d" % HttpStatus.OK == "200"  # noqa: UP031
    assert f"{both:>25}|" == "     EventFlag.READ|WRITE|"
    assert json.dumps([READ, HttpStatus.OK]) == "[2, 200]"


def test_what_on_event_is_told_prints_its_names() -> None:
    what = BufferEventFlag.READING | BufferEventFlag.EOF
    assert f"{what}" == "BufferEventFlag.READING|EOF"


def test_members_are_integers_of_c_and_survive_copying_and_pickling() -> None:
    assert READ == lib.EV_READ and type(READ.value) is int
    for value in (READ, READ | PERSIST, DnsResult.NODATA, EventFlag(0)):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.copy(value) == value and type(copy.copy(value)) is type(value)
    assert EventFlag(lib.EV_READ) is READ
    assert DnsResult(lib.DNS_ERR_NODATA) is DnsResult.NODATA
    assert type(READ | PERSIST) is EventFlag
