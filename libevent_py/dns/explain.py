"""What there is to say of resolvers and DNS servers in `EventBase.explain`.

libevent doesn't tell which `DnsBase` the events of its name servers and lookups belong to: they go
to the first one on the base, which says so if there are others.
"""

from __future__ import annotations

from collections.abc import Iterator

from libevent_py._ffi import lib
from libevent_py.dns.base import DnsBase
from libevent_py.dns.lookup import Lookup
from libevent_py.dns.server import DnsServer
from libevent_py.event.descriptor import address_text, own_address
from libevent_py.event.explain import Holder, Sight, callback_text, counted, explains


@explains(DnsBase)
def resolver(dns: DnsBase) -> Iterator[Holder]:
    """Yield *dns* with its name servers and the lookups that are under way."""
    others = [child for child in dns.base._children() if isinstance(child, DnsBase)]
    others.sort(key=lambda other: other._key)
    count = int(lib.evdns_base_count_nameservers(dns.pointer))
    servers = ", ".join(address_text(address) for address in dns.nameservers)
    told = counted(count, "name server") + (f": {servers}" if servers else "")
    name = f"DnsBase #{dns._key}, {told}"
    notes = [
        f"lookup {lookup!r}, calls {callback_text(lookup.callback)}" for lookup in _lookups(dns)
    ]
    if len(others) > 1 and others[0] is dns:
        which = ", ".join(f"#{other._key}" for other in others[1:])
        notes.append(f"some of these events may be those of DnsBase {which}")

    def claims(sight: Sight) -> Holder | None:
        return holder if others[:1] == [dns] and sight.kind == lib.EVPY_OF_EXTRA else None

    holder = Holder(
        "DnsBase",
        f"{name}, {counted(len(dns._lookups), 'lookup')} pending",
        notes=notes,
        timer="timer for an answer, or to try a name server that is down",
        claims=claims,
    )
    yield holder


def _lookups(dns: DnsBase) -> list[Lookup]:
    return [lookup for _, lookup in sorted(dns._lookups.items())]


@explains(DnsServer)
def server(server: DnsServer) -> Iterator[Holder]:
    """Yield *server* with its address."""
    yield Holder(
        "DNS server",
        f"DnsServer #{server._key} on {own_address(server._fd)}",
        places=(server.pointer, server._c),
        notes=[f"calls {callback_text(server._callback)}"],
        timer="queries wait to be passed on",
    )
