"""Malicious input: all of it is refused, and does no harm."""
