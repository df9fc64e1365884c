"""`libevent_py.testing` and the pytest plugin."""
