"""What tests of buffers share."""

from __future__ import annotations

from libevent_py import Buffer


def pulled(buffer: Buffer) -> bytes:
    """Return the whole content, which is one piece of memory from now on."""
    content = bytes(buffer.pullup())
    assert len(content) == len(buffer)
    assert content == bytes(buffer)
    return content
