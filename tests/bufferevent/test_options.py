"""The options of bufferevents, in each combination, for each kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial, reduce
from operator import or_

import pytest

from libevent_py import BufferEvent, BufferEventFlag, BufferEventOption, EventBase, EventFlag
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import DEFER, UNLOCK
from tests.kit.peers import Pair, run_until, settle
from tests.kit.tls_peers import client_context, server_context

NONE = BufferEventOption(0)
ALL = [
    reduce(or_, options, NONE)
    for number in range(6)
    for options in itertools.combinations(BufferEventOption, number)
]
ILLEGAL = [options for options in ALL if options & UNLOCK and not options & DEFER]
LEGAL = [options for options in ALL if options not in ILLEGAL]

Both = tuple[BufferEvent, BufferEvent]
Make = Callable[[EventBase, Pair, BufferEventOption, Authority], Both]


def sockets(base: EventBase, pair: Pair, options: BufferEventOption, _: Authority) -> Both:
    return BufferEvent(base, pair[0], options), BufferEvent(base, pair[1], options)


def pairs(base: EventBase, _: Pair, options: BufferEventOption, __: Authority) -> Both:
    return BufferEvent.pair(base, options)


def filters(base: EventBase, pair: Pair, options: BufferEventOption, _: Authority) -> Both:
    one, other = (BufferEvent(base, sock) for sock in pair)
    make = partial(BufferEvent.filter, input_filter=None, output_filter=None, options=options)
    return make(one), make(other)


def tls(base: EventBase, pair: Pair, options: BufferEventOption, authority: Authority) -> Both:
    make = partial(BufferEvent.tls, base, options=options)
    client = make(pair[0], client_context(authority), server_hostname=HOST)
    return client, make(pair[1], server_context(authority))


def tls_filters(
    base: EventBase, pair: Pair, options: BufferEventOption, authority: Authority
) -> Both:
    one, other = BufferEvent.pair(base, options & BufferEventOption.THREADSAFE)
    make = partial(BufferEvent.tls_filter, options=options)
    client = make(one, client_context(authority), server_hostname=HOST)
    return client, make(other, server_context(authority))


KINDS = [sockets, pairs, filters, tls, tls_filters]
each_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def test_all_options_are_tried() -> None:
    assert (len(ALL), len(ILLEGAL), len(LEGAL)) == (32, 8, 24)


@each_kind
@pytest.mark.parametrize("options", LEGAL, ids=str)
def test_data_and_the_end_come_with_each_legal_combination(
    base: EventBase, make: Make, options: BufferEventOption, authority: Authority, pair: Pair
) -> None:
    one, other = make(base, pair, options, authority)
    happened: list[BufferEventFlag] = []
    answers: list[bytes] = []
    other.on_read = lambda bev: bev.write(bev.read().upper())
    one.on_read = lambda bev: answers.append(bev.read())
    one.on_event = lambda bev, what: happened.append(what)
    for bev in one, other:
        bev.enable(EventFlag.READ)
    one.write(b"hello")
    run_until(base, lambda: b"".join(answers) == b"HELLO")
    one.write(b", again")
    run_until(base, lambda: b"".join(answers) == b"HELLO, AGAIN")
    happened.clear()
    other.close(flush=True)
    if options & BufferEventOption.CLOSE_ON_FREE or make not in (sockets, filters):
        run_until(base, lambda: happened)
        end = BufferEventFlag.EOF | BufferEventFlag.READING
        assert happened[0] & end == end  # TLS's filter adds an ERROR for the end below it
        assert happened[0] == end or make is tls_filters
    one.close()
    settle(base)


@pytest.mark.parametrize("make", [kind for kind in KINDS if kind is not pairs])
@pytest.mark.parametrize("options", ILLEGAL, ids=str)
def test_what_libevent_can_not_do_is_refused_before_it_comes_to_that(
    base: EventBase, make: Make, options: BufferEventOption, authority: Authority, pair: Pair
) -> None:
    with pytest.raises(ValueError, match="UNLOCK_CALLBACKS only with DEFER_CALLBACKS"):
        make(base, pair, options, authority)
    if make is not filters:
        pair[0].send(b"still open")
        assert pair[1].recv(100) == b"still open"


@pytest.mark.parametrize("options", ILLEGAL, ids=str)
def test_pairs_are_always_deferred(base: EventBase, options: BufferEventOption) -> None:
    one, other = BufferEvent.pair(base, options)
    told: list[bytes] = []
    other.on_read = lambda bev: told.append(bev.read())
    other.enable(EventFlag.READ)
    one.write(b"hello")
    assert told == []
    run_until(base, lambda: told == [b"hello"])
