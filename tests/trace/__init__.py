"""``python -m libevent_py trace``: what programs call of libevent."""
