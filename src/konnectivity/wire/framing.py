"""Cuts the bytes of an HTTP/2 peer into frames, whatever way they arrive (RFC 9113, 3.4 and 4).

`receiving.py` gives the frames their meaning.
"""

from __future__ import annotations

from konnectivity.errors import ConnectionFault
from konnectivity.wire import frames
from konnectivity.wire.foreign import describe


class FrameReader:
    """Checks the preface and the size of each frame, and calls `_read_frame` with whole ones.

    `preface` is what the peer must send before its first frame. Payloads look into the bytes that
    arrived. A DATA frame that was cut off comes in parts, as so many frames; only the last has
    END_STREAM. Others that were cut off are copied, once.
    """

    def __init__(self, *, preface: bytes, max_frame_size: int) -> None:
        self._preface_left = preface
        self._max_frame_size = max_frame_size
        self._begun = False
        self._cut_off = bytearray()
        self._wanted = 0
        self._data_left = 0
        self._data_flags = 0
        self._data_stream = 0

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        raise NotImplementedError

    def _parse(self, data: bytes) -> None:
        at = self._read_preface(data) if self._preface_left else 0
        while self._cut_off or self._data_left:
            if self._data_left:
                if at == len(data):
                    return
                at = self._continue_data(data, at)
                continue
            end = at + self._wanted - len(self._cut_off)
            self._cut_off += data[at:end]
            if end > len(data):
                return
            frame, self._cut_off, at = self._cut_off, bytearray(), end
            self._read_frames(frame, 0)
        self._read_frames(data, at)

    def _continue_data(self, data: bytes, at: int) -> int:
        end = min(at + self._data_left, len(data))
        self._data_left -= end - at
        self._read_part(memoryview(data)[at:end])
        return end

    def _read_part(self, part: memoryview) -> None:
        flags = self._data_flags if not self._data_left else self._data_flags & ~frames.END_STREAM
        self._read_frame(frames.DATA, flags, self._data_stream, part)

    def _read_frames(self, data: bytes | bytearray, at: int) -> None:
        view = memoryview(data)
        end = len(data)
        wanted = frames.HEADER_SIZE
        unpack = frames.HEADER.unpack_from
        largest = self._max_frame_size
        while end - at >= frames.HEADER_SIZE:
            high, low, kind, flags, stream_id = unpack(data, at)
            size = high << 8 | low
            if size > largest or not self._begun:
                self._check_header(size, kind, flags, bytes(view[at : at + 16]))
            start = at + frames.HEADER_SIZE
            if end - start < size:
                if kind == frames.DATA and not flags & frames.PADDED:
                    self._data_left = size - (end - start)
                    self._data_flags = flags
                    self._data_stream = stream_id & frames.MAX_STREAM_ID
                    if start < end:
                        self._read_part(view[start:])
                    return
                wanted += size
                break
            at = start + size
            self._read_frame(kind, flags, stream_id & frames.MAX_STREAM_ID, view[start:at])
        if at < end:
            self._cut_off += view[at:]
            self._wanted = wanted

    def _read_preface(self, data: bytes) -> int:
        wanted = self._preface_left
        part = data[: len(wanted)]
        if not wanted.startswith(part):
            raise _not_http2(frames.PREFACE[: -len(wanted)] + part)
        self._preface_left = wanted[len(part) :]
        return len(part)

    def _check_header(self, size: int, kind: int, flags: int, first: bytes) -> None:
        """Refuse a frame that is too large, or a first one that is not SETTINGS (3.4)."""
        if size > self._max_frame_size:
            if not self._begun:
                raise _not_http2(first)
            raise ConnectionFault(
                frames.FRAME_SIZE_ERROR,
                f"a frame of {size} bytes, the limit is {self._max_frame_size}",
            )
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame is not SETTINGS (3.4)")
        self._begun = True


def _not_http2(first: bytes) -> ConnectionFault:
    return ConnectionFault(frames.PROTOCOL_ERROR, f"not HTTP/2: {describe(first)}")
