"""What targets make of their input: choices, pieces, and small changes at random."""

from __future__ import annotations

import random
from collections.abc import Sequence

#: The most pieces that an input is cut to: each costs some turns of the loop.
PIECES = 24

#: What has a meaning somewhere: numbers at their ends, and what separates things.
TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"=", b"&", b"%"),
    *(b"/", b"?", b"#", b"[", b"]", b"@", b".", b"..", b"-1", b"0", b"65535", b"65536", b"\xff"),
    *(b"4294967296", b"9223372036854775807", b"18446744073709551616", b"ffffffffffffffff"),
    *(b"\xc0\x0c", b"\xc0\x00", b"\xff\xff", b"\x00\x01", b"\x3f", b"\x40", b"\x80\x80", b"%00"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Host: a\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"0\r\n\r\n", b"1\r\na\r\n"),
]


class Choices:
    """Reads an input from its front."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def byte(self) -> int:
        """Take the next byte, or 0 when there is none."""
        first, self.left = self.left[:1], self.left[1:]
        return first[0] if first else 0

    def pieces(self) -> list[bytes]:
        """Take all that is left, cut as its first byte says.

        With 0 it is one piece; an odd number is where one cut is; an even one is twice the length
        of each piece.
        """
        cut, data = self.byte(), self.left
        self.left = b""
        if not cut:
            return [data]
        if cut & 1:
            at = len(data) * (cut >> 1) // 128
            return [data[:at], data[at:]]
        size = max(cut >> 1, -(-len(data) // PIECES))
        return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of *seeds* with a few changes, or with a part of another."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 2, 3, 6])):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at - 1] = chance.randrange(256)
        elif kind == 1 and data:
            data[at - 1] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[at : at + chance.choice([1, 2, 8, 64])]
        elif kind == 3:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at : at + chance.choice([1, 4, 32])] * chance.choice([1, 2, 9])
        elif kind == 5:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            token = chance.choice(TOKENS)
            data[at : at + len(token)] = token
    return bytes(data)
