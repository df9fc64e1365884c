"""The subcommands of ``python -m libevent_py``."""
