"""What libevent_py costs beside C and its peers: ``python -m benchmarks``."""

import sys

if not sys.platform.startswith("linux"):
    raise ImportError("the benchmarks need Linux: its /proc, its pinning, its process clocks")
