"""Buffers: ``evbuffer``."""

from libevent_py.buffer.buffer import Buffer as Buffer
from libevent_py.buffer.callbacks import BufferCallback as BufferCallback
from libevent_py.buffer.callbacks import BufferInfo as BufferInfo
from libevent_py.buffer.segment import FileSegment as FileSegment

__all__ = [
    "Buffer",
    "BufferCallback",
    "BufferInfo",
    "FileSegment",
]
