"""The elements of a long JSON list, one by one, without holding the list or trusting what is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

__all__ = ["TooLong", "elements"]

PIECE_BYTES = 1 << 20
# JSON strings hold no line break: where one comes before the closing quote, the quote is what is missing
TOKEN = re.compile(rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"|["\[\]{},]')
STRING_END = re.compile(rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+\\?["\n]')
OPENING, CLOSING = b"[{", b"]}"


class TooLong(int):
    """Bytes of an element that was passed over because it is too long to hold."""


class _Element:
    """The bytes of the element being read, as long as they are few enough."""

    def __init__(self, limit: int) -> None:
        self._limit, self._parts, self._size = limit, [], 0  # type: ignore[var-annotated]
        self._is_blank = True

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._is_blank = self._is_blank and not piece.strip()
        if self._size <= self._limit:
            self._parts.append(piece)
        else:
            self._parts.clear()

    def take(self) -> bytes | TooLong | None:
        """The element, how long it was, or None where nothing but space stood."""
        data, size, is_blank = b"".join(self._parts), self._size, self._is_blank
        self._parts, self._size, self._is_blank = [], 0, True
        if size > self._limit:
            return TooLong(size)
        return None if is_blank else data


def elements(handle: IO[bytes], limit: int) -> Iterator[bytes | TooLong]:
    """The elements of a JSON list, or objects that follow each other, as they are written.

    They are told apart by brackets outside of strings and not parsed, so that one with a fault costs itself
    and no other, unless its brackets do not match, or a quote is missing in a list without line breaks: then
    what follows may go with it. A list that is cut off ends in an element that is cut off.

    Args:
        handle: Where the first bracket is next, but for space.
        limit: Longest element in bytes.
    """
    element, depth, in_string, is_list = _Element(limit), 0, False, False
    for piece in _pieces(handle):
        start = position = 0
        if in_string:
            end = STRING_END.match(piece)
            if end is None:
                element.add(piece)
                continue
            in_string, position = False, end.end()
        for token in TOKEN.finditer(piece, position):
            sign = token.group()
            if token.start() < position or len(sign) > 1:
                continue
            if sign == b'"':
                position = piece.find(b"\n", token.end()) + 1
                in_string = position == 0
                if in_string:
                    break
                continue
            opens, closes = sign in OPENING, sign in CLOSING
            if opens and depth == 0 and sign == b"[":
                is_list, start = True, token.end()
            depth += opens - closes
            at_end = depth < is_list if closes else sign == b"," and depth == is_list
            whole = closes and not is_list and depth == 0  # an object that stands alone
            if at_end or whole:
                element.add(piece[start : token.end() if whole else token.start()])
                start = token.end()
                if (found := element.take()) is not None:
                    yield found
                depth, is_list = max(depth, 0), is_list and depth > 0
        element.add(piece[start:])
    found = element.take()
    if found is not None and not (isinstance(found, bytes) and found.strip() == b";"):
        yield found


def _pieces(handle: IO[bytes]) -> Iterator[bytes]:
    """Pieces that never end within an escape."""
    carry = b""
    while piece := handle.read(PIECE_BYTES):
        piece = carry + piece
        odd = (len(piece) - len(piece.rstrip(b"\\"))) % 2
        carry = piece[-1:] if odd else b""
        yield piece[: len(piece) - odd]
    if carry:
        yield carry
