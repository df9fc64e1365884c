"""DNS lookups and DNS servers: ``evdns``."""

from libevent_py.dns import explain as explain  # registers what is said of them
from libevent_py.dns.base import DnsBase as DnsBase
from libevent_py.dns.base import err_to_string as err_to_string
from libevent_py.dns.lookup import AddrInfoLookup as AddrInfoLookup
from libevent_py.dns.lookup import DnsLookup as DnsLookup
from libevent_py.dns.server import DnsServer as DnsServer
from libevent_py.dns.server_request import DnsQuestion as DnsQuestion
from libevent_py.dns.server_request import DnsServerRequest as DnsServerRequest

__all__ = [
    "AddrInfoLookup",
    "DnsBase",
    "DnsLookup",
    "DnsQuestion",
    "DnsServer",
    "DnsServerRequest",
    "err_to_string",
]
