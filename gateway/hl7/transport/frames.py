"""MLLP frames (HL7 2.5.1 appendix C): VT message FS CR, cut from bytes before anything is decoded.

What stands between frames is skipped.  A VT inside a frame starts a new one: a message that was never finished was
never acknowledged.  FS ends a frame even where its CR is missing, since no message may hold one.
"""

from __future__ import annotations

VT = b"\x0b"
FS = b"\x1c"
FS_CR = FS + b"\r"
MAXIMUM_FRAME_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 8 * 1024  # of a frame that is too long: enough for its MSH


class FrameTooLong(Exception):
    """A frame passes the limit; `head` holds its first bytes, so that it can be answered."""

    def __init__(self, head: bytes) -> None:
        super().__init__("MLLP frame too long")
        self.head = head


class FrameParser:
    """Cuts frames out of a byte stream, however it is sliced."""

    def __init__(self, maximum_frame_bytes: int = MAXIMUM_FRAME_BYTES) -> None:
        self._maximum = maximum_frame_bytes
        self._buffer = bytearray()
        self._searched = 0  # of the buffer, known to hold no end of frame
        self.skipped_bytes = 0  # stood outside of complete frames, line ends aside

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun that has not ended."""
        return bool(self._buffer)

    @property
    def size(self) -> int:
        """How many bytes of the frame that has begun are here."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the messages they complete.

        Raises
        ------
        FrameTooLong
            A frame passes the limit; the stream cannot be followed any further.
        """
        self._buffer += data
        messages = []
        while (end := self._buffer.find(FS, self._searched)) >= 0:
            start = self._buffer.rfind(VT, 0, end)
            if end - start > self._maximum:
                raise FrameTooLong(bytes(self._buffer[start + 1 : start + _HEAD_BYTES]))
            if start >= 0:
                messages.append(bytes(self._buffer[start + 1 : end]))
            self._skip(start if start >= 0 else end)
            del self._buffer[: end + 1]
            self._searched = 0
        self._drop_garbage()
        if len(self._buffer) > self._maximum:
            raise FrameTooLong(bytes(self._buffer[1:_HEAD_BYTES]))
        return messages

    def _drop_garbage(self) -> None:
        """Keep of the unfinished rest only what a frame may still grow from."""
        start = self._buffer.rfind(VT, self._searched)
        if start < 0 and not self._buffer.startswith(VT):
            start = len(self._buffer)
        if start > 0:
            self._skip(start)
            del self._buffer[:start]
        self._searched = len(self._buffer)

    def _skip(self, count: int) -> None:
        self.skipped_bytes += len(bytes(self._buffer[:count]).strip(b"\r\n"))


def frame(message: bytes) -> bytes:
    """Return a message as an MLLP frame; raise ValueError if it holds a framing byte."""
    if VT in message or FS in message:
        raise ValueError("a message cannot hold VT (0x0B) or FS (0x1C)")
    return VT + message + FS_CR
