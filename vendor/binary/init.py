"""The compiled module of libevent_py with libevent and OpenSSL in it, where the system has none.

It is not to be imported by itself: libevent_py finds it.
"""

from pathlib import Path

#: That of the libevent_py that it is made for.
VERSION = "0"

#: The module.
MODULE = next(Path(__file__).parent.glob("_ffi*.so"))
