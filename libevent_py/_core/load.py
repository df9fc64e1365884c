"""Check the library that the loader found against the headers, and switch libevent's locks on.

An object made without locks would never get any (A2). So locks are switched on when the package is
imported, before an object can be made. They work like those of `evthread_use_pthreads`, and also
survive a fork (``_c/thread.c``).
"""

from __future__ import annotations

import os

INSTALL = (
    "install libevent 2.1's libraries and OpenSSL's, for instance by `apt-get install "
    "libevent-2.1-7 libevent-pthreads-2.1-7 libevent-openssl-2.1-7` on Debian and Ubuntu, "
    "`dnf install libevent` on Fedora, `apk add libevent` on Alpine, `brew install libevent` on "
    "macOS; LD_LIBRARY_PATH says where else to look for them"
)

try:
    from libevent_py._ffi import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "libevent_py._ffi":
        raise
    raise ModuleNotFoundError(
        "libevent_py has not been built here: there is no libevent_py._ffi. `pip install .` builds "
        "it, and `make run` in its source tree",
        name=error.name,
    ) from None
except ImportError as error:  # what the loader of shared libraries says
    raise ImportError(f"libevent_py can't be loaded: {error}; {INSTALL}") from None

#: The version of the library in use, which may differ from the one compiled against.
libevent_version: str = ffi.string(lib.event_get_version()).decode()
libevent_version_number: int = lib.event_get_version_number()


def check(library: int, headers: int) -> None:
    """Raise `ImportError` unless the version numbers of *library* and *headers* fit together."""
    if library >> 16 != headers >> 16:
        raise ImportError(
            f"libevent_py was compiled against libevent {dotted(headers)}, but the loader found "
            f"libevent {dotted(library)}: a library of the same 2.1 series is needed "
            "(LD_LIBRARY_PATH says where to look first)"
        )


def dotted(number: int) -> str:
    """Return a version number such as 0x02010c00 as text such as ``2.1.12``."""
    return f"{number >> 24}.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}"


check(libevent_version_number, lib.LIBEVENT_VERSION_NUMBER)
if lib.evpy_use_threads() != 0:
    raise ImportError("evthread_set_lock_callbacks failed: libevent's locks can't be switched on")
lib.evpy_lookup_init()  # before the first evdns_base, which would set evdns's own function for good

# Python's hooks, not C's, because other threads may need the GIL to leave libevent.
os.register_at_fork(before=lib.evpy_fork_soon, after_in_parent=lib.evpy_fork_done)
