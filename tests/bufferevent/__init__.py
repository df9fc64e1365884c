"""Bufferevents: sockets, pairs, filters, TLS and limits."""
