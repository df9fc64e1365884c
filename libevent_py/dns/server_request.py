"""``struct evdns_server_request``: a query that a server has received, and the answer to it."""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex

from libevent_py import errors, log
from libevent_py._core import convert
from libevent_py._core.child import Child
from libevent_py._core.convert import Octets
from libevent_py._core.described import described
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import slot, without_pointer
from libevent_py._core.owner import getrefcount
from libevent_py._core.pointers import ALONE, copied
from libevent_py._ffi import ffi, lib
from libevent_py.enums import DnsClass, DnsFlag, DnsResult, DnsSection, DnsType

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Given
    from libevent_py.dns.server import DnsServer

#: Calling the enumeration takes ten times as long; and unknown numbers may come, too.
TYPES = {int(member): member for member in DnsType}
CLASSES = {int(member): member for member in DnsClass}

#: The flags of a query that libevent repeats in the answer: its RD and CD bits.
QUERY_FLAGS = 0x0110

#: How many bytes libevent has for an answer, before it truncates it to 512.
ROOM = 1500
#: How many names libevent remembers, to write a repeated one in two bytes.
REMEMBERED = 128

LABELS = re.compile(rb"(?:[^.\0]{1,63}\.)*[^.\0]{1,63}")

# Looked up once, for code that runs for nearly every query.
NONE = DnsResult.NONE
add_a: Final = lib.evdns_server_request_add_a_reply
respond: Final = lib.evpy_dns_respond

SERVERFAILED = int(DnsResult.SERVERFAILED)

DROPPED = "a DNS answer is dropped: %s"


@described(
    name='The name that the query asks for; the root is ".".',
    type="The type of the records, a `DnsType` or another number.",
    class_="The class of the records, a `DnsClass` or another number.",
)
class DnsQuestion(NamedTuple):
    """A question of a DNS query: a name as text, a type and a class of records.

    The root is ".". A byte that isn't ASCII is a surrogate in the name, as in `os.fsdecode`.
    """

    name: str
    type: int
    class_: int


@described(
    questions="The query's questions: a list of `DnsQuestion`, nearly always of one.",
    server="The `DnsServer` that has received the query.",
)
class DnsServerRequest(Child):
    """A query that a `DnsServer` has received; answered once, now or later.

    If you drop a request without answering it, it is answered with SERVERFAILED.
    """

    __slots__ = ("_asked", "_free", "_names", "_size", "questions", "server")

    _free: Callable[[CData], object]

    def __init__(self) -> None:
        """Raise `TypeError`: only a `DnsServer` makes requests."""
        raise TypeError("a DnsServer makes its requests, and calls its callback with each")

    def _begin(
        self, server: DnsServer, pointer: CData, count: int, name: bytes, type: int, dns_class: int
    ) -> None:
        """Become the object for C's request *pointer* of *count* questions."""
        self.server: DnsServer = server
        self._free = server._abandon
        #: The length of the answer with all names written out, and these names.
        self._size = 18 + len(name)
        self._names: tuple[bytes, ...] = (name,)
        self.questions: list[DnsQuestion] = [_question(name, type, dns_class)]
        self._asked = self.questions[0].name
        for number in range(1, count):
            more = pointer.questions[number]
            name = bytes(ffi.string(ffi.cast("char *", more.name)))
            self._take_room(4, name)
            self.questions.append(_question(name, more.type, more.dns_question_class))
        # Last: with it, the request is whole. C's own reference to *pointer* would look like a use.
        super().__init__(server.base, next_key(), copied(pointer))

    def _end_word(self) -> str:
        return "closed, answered or dropped"

    def _facts(self, ask: bool) -> Iterator[str]:
        for question in self.questions:
            type = question.type
            yield f"{question.name!r} {type.name if isinstance(type, DnsType) else type}"
        if ask:
            yield f"from {self.address!r}"

    @property
    def flags(self) -> DnsFlag:
        """The flags of the answer: those that were set, and those repeated from the query.

        0x0100 (recursion desired) and 0x0010 (checking disabled) are repeated. You can set AA
        (authoritative answer), and what libevent calls RD (0x0080, recursion available).
        Wraps ``evdns_server_request_set_flags``.
        """
        return DnsFlag(self._pointer_here().flags)

    @flags.setter
    def flags(self, flags: int) -> None:
        self.base._check_thread()
        if isinstance(flags, int):
            flags &= ~QUERY_FLAGS  # so that flags |= AA works
        number = convert.flags(DnsFlag, flags, "flags")
        errors.call(lib.evdns_server_request_set_flags, self.pointer, number)

    @property
    def address(self) -> Any:
        """The client's address; "" for a UNIX socket without one.

        Wraps ``evdns_server_request_get_requesting_addr``.
        """
        self.base._check_thread()
        storage = ffi.new("struct sockaddr_storage *")
        pointer = ffi.cast("struct sockaddr *", storage)
        get = lib.evdns_server_request_get_requesting_addr
        length = errors.call(get, self.pointer, pointer, ffi.sizeof(storage[0]))
        return convert.unpack_address(pointer, length) if length else ""

    def add_reply(
        self,
        section: DnsSection,
        name: str | bytes,
        type: int,
        dns_class: int,
        ttl: int,
        data: Octets | str,
        is_name: bool = False,
    ) -> None:
        """Add a record to *section* that others may cache for *ttl* seconds.

        *data* is the record's bytes: 4 for the type A, 16 for AAAA; with *is_name* it is a name.
        Names outside ASCII are encoded by IDNA; "." is the root. Raises `ValueError` for a wrong
        name, and for a record that makes the answer 1500 bytes or longer. Of an answer of more than
        512 bytes, only 512 are sent, marked as truncated.
        Wraps ``evdns_server_request_add_reply``.
        """
        section = DnsSection(convert.integer(section, "section", 0, 2))
        owner = _name(name, "name")
        type = convert.integer(type, "type", 0, 65535)
        dns_class = convert.integer(dns_class, "dns_class", 0, 65535)
        seconds = _ttl(ttl)
        if is_name:
            target = _name(data, "data")
            pointer = self._reserve(0, owner, target=target)
            self._add(pointer, section, owner, type, dns_class, seconds, -1, True, target)
            return
        octets, length = convert.octets(data)
        expected = {DnsType.A: 4, DnsType.AAAA: 16}.get(type, length)  # type: ignore[call-overload]
        if length != expected:
            raise ValueError(f"data must be {expected} bytes for type {type}, not {length}")
        pointer = self._reserve(length, owner)
        octets = octets if length else ffi.NULL  # libevent can't copy 0 bytes
        self._add(pointer, section, owner, type, dns_class, seconds, length, False, octets)

    @staticmethod
    def _add(
        pointer: CData,
        section: int,
        owner: bytes,
        type: int,
        dns_class: int,
        ttl: int,
        length: int,
        is_name: bool,
        data: Given,
    ) -> None:
        add = lib.evdns_server_request_add_reply
        errors.call(add, pointer, section, owner, type, dns_class, ttl, length, is_name, data)

    def add_a_reply(self, name: str | bytes, addresses: str | Iterable[str], ttl: int) -> None:
        """Add the IPv4 address or *addresses* of *name*, which others may cache for *ttl* seconds.

        Unlike in C, each gets its own record: only libevent understands several in one. Raises the
        errors of `add_reply`. Wraps ``evdns_server_request_add_a_reply``.
        """
        self._add_addresses(add_a, socket.AF_INET, name, addresses, ttl)

    def add_aaaa_reply(self, name: str | bytes, addresses: str | Iterable[str], ttl: int) -> None:
        """Add the IPv6 address or *addresses* of *name*, which others may cache for *ttl* seconds.

        Unlike in C, each gets its own record: only libevent understands several in one. Raises the
        errors of `add_reply`. Wraps ``evdns_server_request_add_aaaa_reply``.
        """
        add = lib.evdns_server_request_add_aaaa_reply
        self._add_addresses(add, socket.AF_INET6, name, addresses, ttl)

    def _add_addresses(
        self,
        add: Callable[[Given, Given, int, Given, int], int],
        family: int,
        name: str | bytes,
        addresses: str | Iterable[str],
        ttl: int,
    ) -> None:
        # Nearly always the name of the question, which C has checked.
        owner = self._names[0] if name is self._asked else _name(name, "name")
        seconds = _ttl(ttl)
        if isinstance(addresses, str):
            packed = packed_text(family, addresses)
            if add(self._reserve(len(packed), owner), owner, 1, packed, seconds):
                raise errors.failed(add)  # it never calls back
            return
        all_packed = [_packed(family, address) for address in addresses]
        if not all_packed:
            raise ValueError("addresses must not be empty")
        pointer = self._reserve(sum(map(len, all_packed)), *[owner] * len(all_packed))
        for packed in all_packed:
            errors.call(add, pointer, owner, 1, packed, seconds)

    def add_ptr_reply(self, address: str | bytes, hostname: str | bytes, ttl: int) -> None:
        """Add the name *hostname* of *address*, which others may cache for *ttl* seconds.

        *address* is an IPv4 or IPv6 address, or a name such as 1.0.0.127.in-addr.arpa. Raises the
        errors of `add_reply`. Wraps ``evdns_server_request_add_ptr_reply``.
        """
        owner = _name(_reversed(address), "address")
        target, seconds = _name(hostname, "hostname"), _ttl(ttl)
        pointer = self._reserve(0, owner, target=target)
        add = lib.evdns_server_request_add_ptr_reply
        errors.call(add, pointer, ffi.NULL, owner, target, seconds)

    def add_cname_reply(self, name: str | bytes, cname: str | bytes, ttl: int) -> None:
        """Add that *name* is an alias of *cname*, which others may cache for *ttl* seconds.

        Raises the errors of `add_reply`. Wraps ``evdns_server_request_add_cname_reply``.
        """
        owner, target, seconds = _name(name, "name"), _name(cname, "cname"), _ttl(ttl)
        pointer = self._reserve(0, owner, target=target)
        errors.call(lib.evdns_server_request_add_cname_reply, pointer, owner, target, seconds)

    def _reserve(self, size: int, *owners: bytes, target: bytes | None = None) -> CData:
        """Check that there is room for records of *owners*, and return the pointer to add them."""
        self.base._check_thread()
        pointer = self.pointer
        names = owners if target is None else (*owners, target)
        self._take_room(10 * len(owners) + size, *names)
        return pointer

    def _take_room(self, size: int, *names: bytes) -> None:
        # libevent writes one byte too far when a name ends with the last byte of the room.
        size += self._size
        for name in names:
            size += len(name) + 2
        names = self._names + names
        if size >= ROOM and size - _saved(names) >= ROOM:
            raise ValueError(f"the answer must stay below {ROOM} bytes: there is no room for more")
        self._size, self._names = size, names

    def respond(self, err: int = DnsResult.NONE) -> None:
        """Send the answer, with the code *err*, 0 to 15, and all records that have been added.

        The request can't be used afterwards. Raises `BlockingIOError` when the socket's buffer is
        full. If the network doesn't take the answer, that is only logged, as in C. In both cases
        the query stays unanswered. Called in the middle of another method of the request, as by the
        handler of a signal, it answers when that method returns, and both are only logged.
        Wraps ``evdns_server_request_respond``.
        """
        self.base._check_thread()
        self.pointer  # noqa: B018  (hot: raises if it has been answered)
        if err is not NONE:
            err = convert.integer(err, "err", 0, 15)
        if getrefcount(self.pointer) > ALONE and self._is_in_use():
            self._answer_later(int(err))
            return
        result = self._answer(int(err))
        if result:
            failure = errors.failed(lib.evdns_server_request_respond)
            if result < 0:
                raise failure
            log.logger.warning(DROPPED, failure)

    def drop(self) -> None:
        """Leave the query unanswered. Wraps ``evdns_server_request_drop``."""
        self._check_usable()  # raises if it has been answered
        self.close()

    def close(self) -> None:
        """Drop the query, unless it has been answered; a second time does nothing."""
        if not self.closed:
            self.base._check_thread()
            self._free = functools.partial(lib.evpy_dns_drop, self.server._c)
            super().close()

    def _answer(self, err: int) -> int:
        """Answer with *err* by C's function, which never calls back; return its result."""
        server = self.server  # named here, so that nobody frees its port meanwhile
        port = server.pointer  # kept open: C looks at it once more
        kind = type(self)
        try:
            slot(self)
            bare = without_pointer(kind)
            pointer = slot(self)
            del self.pointer  # no call from here to C's: nobody interrupts
            self.__class__ = bare
            return int(respond(server._c, pointer, err))
        except AttributeError:  # other code has ended it
            raise self._unusable() from None
        finally:
            del port
            if self.__class__ is not kind:  # else an interrupt came before
                try:
                    self.base._forget(self._key)
                except BaseException:  # one that comes now: a base that is dropped waits for it
                    self.base._forget(self._key)
                    raise

    def _answer_later(self, err: int) -> None:
        """Answer with *err* once the method is done in whose middle this comes."""
        self._free = functools.partial(_answer_late, self.server, err)
        super().close()

    def _fail(self) -> None:
        """Answer SERVERFAILED, unless it has been answered."""
        if not self.closed and not self.base._forked:
            super().close()  # answers by `_free`

    def _unusable(self) -> Exception:
        why = super()._unusable()
        if isinstance(why, errors.ClosedError) and not self.server.closed:
            return errors.ClosedError("this DnsServerRequest has been answered or dropped")
        return why


def _answer_late(server: DnsServer, err: int, pointer: CData) -> None:
    """Answer *err* to the request *pointer*, and log it if the answer can't be sent."""
    if server._abandon(pointer, err):
        log.logger.warning(DROPPED, errors.failed(lib.evdns_server_request_respond))


def _saved(names: tuple[bytes, ...]) -> int:
    """Return how many bytes libevent saves by writing repeated names in two bytes."""
    saved, known = 0, set()
    for name in names:
        rest = name
        while rest and rest not in known:
            known.add(rest)
            rest = rest.partition(b".")[2]
        saved += len(rest)
    return saved if len(known) < REMEMBERED else 0


@functools.lru_cache(maxsize=1024)  # clients ask for the same names again and again
def _question(name: bytes, type: int, dns_class: int) -> DnsQuestion:
    text = name.decode("ascii", "surrogateescape") or "."
    return DnsQuestion(text, TYPES.get(type, type), CLASSES.get(dns_class, dns_class))


def _name(value: object, argument: str) -> bytes:
    """Return the name *value* for C: its labels separated by dots; b"" for the root."""
    if isinstance(value, str):
        try:
            name = value.encode("ascii", "surrogateescape")
        except UnicodeEncodeError:
            try:
                name = value.encode("idna")
            except UnicodeError as error:
                raise ValueError(f"{argument} must be a name for IDNA: {error}") from None
    else:
        name = convert.string(value, argument)
    name = name[:-1] if name[-1:] == b"." else name or b"."
    if len(name) > 253 or (name and not LABELS.fullmatch(name)):
        raise ValueError(
            f"{argument} must be at most 253 bytes, in labels of 1 to 63 without a NUL, "
            f"not {value!r}"
        )
    return name


def _packed(family: int, address: str) -> bytes:
    try:
        return socket.inet_pton(family, address)
    except (OSError, TypeError, ValueError):
        kind = "IPv4" if family == socket.AF_INET else "IPv6"
        raise ValueError(f"addresses must be {kind} addresses, not {address!r}") from None


#: The same, cached, for text: servers give the same answers again and again.
packed_text: Final = functools.lru_cache(maxsize=1024)(_packed)


def _reversed(address: str | bytes) -> str | bytes:
    """Return the name under which *address* is looked up; return any other text unchanged."""
    if isinstance(address, str):
        for family, suffix in ((socket.AF_INET, "in-addr"), (socket.AF_INET6, "ip6")):
            try:
                packed = socket.inet_pton(family, address)
            except (OSError, ValueError):
                continue
            parts = map(str, packed) if family == socket.AF_INET else packed.hex()
            return ".".join([*reversed(list(parts)), suffix, "arpa"])
    return address


def _ttl(value: SupportsIndex) -> int:
    if type(value) is int and 0 <= value < 2**31:  # faster than the general check below
        return value
    return convert.integer(value, "ttl", 0, 2**31 - 1)
