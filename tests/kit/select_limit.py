"""What programs that reach select's limit share; their first argument is the backend."""

PRELUDE = """
import contextlib, os, resource, socket, sys
from fcntl import F_DUPFD, fcntl
from libevent_py import *

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
method = sys.argv[1]
avoided = [name for name in EventBase.supported_methods() if name != method]

def base():
    with EventConfig(avoid=avoided) as config:
        return EventBase(config)

@contextlib.contextmanager
def no_low_descriptors():
    taken = [os.dup(0)]
    while taken[-1] < 1023:
        taken.append(os.dup(0))
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)

@contextlib.contextmanager
def refused(message):
    "Expect OSError from select, and that the others just do it."
    try:
        yield
    except OSError as error:
        assert method == "select", error
        assert message in str(error) and "Invalid argument" in str(error), error
    else:
        assert method != "select", message

def run(base, condition):
    base.loopexit(60)
    while not condition():
        base.loop(LoopFlag.ONCE)
        assert not base.got_exit
"""
