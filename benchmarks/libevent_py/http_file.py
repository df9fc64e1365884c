"""A server of the files in a directory, which is the sample's: ``http_file DIRECTORY``."""

import sys

from benchmarks.libevent_py.http_server import listen
from libevent_py import EventBase
from samples.http_server import documents

base = EventBase()
server = listen(base, documents(sys.argv[1]))
base.dispatch()
