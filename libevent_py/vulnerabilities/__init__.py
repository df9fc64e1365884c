"""The published vulnerabilities of libevent, and which of them the library in use has."""

from libevent_py.vulnerabilities.known import Vulnerability as Vulnerability
from libevent_py.vulnerabilities.known import known_vulnerabilities as known_vulnerabilities

__all__ = [
    "Vulnerability",
    "known_vulnerabilities",
]
