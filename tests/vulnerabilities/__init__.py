"""The published holes of libevent."""
