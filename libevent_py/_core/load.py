"""Check the library that the loader found against the headers, and switch libevent's locks on.

An object made without locks would never get any (A2). So locks are switched on when the package is
imported, before an object can be made. They work like those of `evthread_use_pthreads`, and also
survive a fork (``_c/thread.c``).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

INSTALL = (
    "install libevent 2.1's libraries and OpenSSL's, for instance by `apt-get install "
    "libevent-2.1-7 libevent-pthreads-2.1-7 libevent-openssl-2.1-7` on Debian and Ubuntu, "
    "`dnf install libevent` on Fedora, `apk add libevent` on Alpine, `brew install libevent` on "
    "macOS; LD_LIBRARY_PATH says where else to look for them. Or `pip install "
    "'libevent_py[binary]'`, which has them with it"
)

#: The libraries that `LIBEVENT_PY_LIBEVENT` may name the directory of.
PARTS = ("core", "extra", "pthreads", "openssl")
SONAME = "2.1.so.7"


def preload(directory: str) -> None:
    """Load libevent from *directory*, so that its functions are found before all others.

    LD_LIBRARY_PATH does the same for libraries that are looked for by name; those of
    libevent_py_binary are not.
    """
    import ctypes  # not whenever the package is imported

    for part in PARTS:
        path = os.path.join(directory, f"libevent_{part}-{SONAME}")
        if os.path.exists(path):
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)


def use_binary() -> bool:
    """Make the module of libevent_py_binary ours, if that is installed; tell whether it is."""
    try:
        binary = importlib.import_module("libevent_py_binary")
    except ModuleNotFoundError:
        return False
    package = sys.modules["libevent_py"]
    if binary.VERSION != package.__version__:
        raise ImportError(
            f"libevent_py is {package.__version__}, but libevent_py_binary is "
            f"{binary.VERSION}: install both of the same version"
        )
    name = "libevent_py._ffi"
    spec = importlib.util.spec_from_file_location(name, binary.MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    vars(package)["_ffi"] = module
    return True


def compiled() -> bool:
    """Import the compiled module; tell whether it is libevent_py_binary's.

    The environment variable LIBEVENT_PY_LIBEVENT names a directory of another build's libraries, or
    is "binary", which prefers libevent_py_binary to the system's libevent.
    """
    if not hasattr(sys, "getrefcount"):
        raise ImportError(
            "libevent_py needs CPython: what closes an object asks how many references there are "
            f"to it, and {sys.implementation.name} doesn't count them"
        )
    asked = os.environ.get("LIBEVENT_PY_LIBEVENT", "")
    if asked == "binary":
        if use_binary():
            return True
        raise ImportError(
            "LIBEVENT_PY_LIBEVENT is binary, but there is no libevent_py_binary: "
            "pip install 'libevent_py[binary]'"
        )
    if asked:
        if not os.path.exists(os.path.join(asked, f"libevent_core-{SONAME}")):
            raise ImportError(
                f"LIBEVENT_PY_LIBEVENT must be a directory with libevent_core-{SONAME} in it, or "
                f"binary, not {asked!r}"
            )
        preload(asked)
    try:
        importlib.import_module("libevent_py._ffi")
    except ImportError as error:
        if use_binary():
            return True
        if isinstance(error, ModuleNotFoundError):
            if error.name != "libevent_py._ffi":
                raise
            raise ModuleNotFoundError(
                "libevent_py has not been built here: there is no libevent_py._ffi. "
                "`pip install .` builds it, and `make run` in its source tree",
                name=error.name,
            ) from None
        raise ImportError(f"libevent_py can't be loaded: {error}; {INSTALL}") from None
    return False


#: Whether the compiled module is that of libevent_py_binary, which has libraries of its own.
is_binary = compiled()

from libevent_py._core import for_c  # noqa: E402
from libevent_py._ffi import ffi, lib  # noqa: E402

# C refers to the objects of one interpreter: another one's would take their place, and the first
# one's callbacks would no longer be called.
if for_c.functions(lib.evpy_python_functions)["interpreter"]():
    raise ImportError("libevent_py can be used in the main interpreter only, not in one made in it")

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
