"""Buffers, and parts of files."""
