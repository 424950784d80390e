"""Scanners of frames. The bytes of a socket become batches of server frames, or whole messages.

Theory of operation. Read bytes lie in a buffer that the next read overwrites, so a scanner copies out all it needs
(which unmasking does anyway). For itself it keeps only an incomplete head or control frame, under 140 bytes: its
`tail`, to be placed before the next read. The payload of a data frame is taken as it comes. A message grows in its
own bytearray, and a batch gets the part that is here as a fragment (clause C3.4).

Most frames are plain: each a whole message, and wholly here. Loops of a few instructions take those (`_take_small`,
`_take_larger`). The first frame that is anything else, or that may break a rule, is left to `_take_any`, which knows
everything. Small frames are looked at through a window of copied bytes: indexing and slicing bytes is cheaper than a
memoryview, by more than the copy costs.

A scan never raises. What came before an error is good and is given back; the error is left in `error`.
"""

from __future__ import annotations

import codecs
import functools
import struct
from abc import ABC, abstractmethod
from typing import Final, final

from ...errors import FrameError
from .batch import FrameBatch, message_batch
from .build import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_DATA,
    MAX_CONTROL,
    MESSAGE_TOO_BIG,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    Buffer,
    CloseFrame,
    ReservedOpcode,
    apply_mask,
    frame_head,
    is_utf8,
    parse_close,
)

_FIN: Final = 0x80
_MASKED: Final = 0x80
_WHOLE_TEXT: Final = _FIN | TEXT
_WHOLE_BINARY: Final = _FIN | BINARY
_WINDOW: Final = 8192
_HEAD: Final = struct.Struct("!BBH4s")  # of a frame of 126 to 65,535 bytes, with its key if it is masked
_LARGE: Final = 8192  # payloads from this size on are not copied again: they become parts of their own
_FEW: Final = 4  # frames; to look for more of them that are alike costs as much as they do
_MANY: Final = 256  # frames that are looked at together, so that looking never costs more than taking
_GROUP: Final = 65_536  # bytes of frames taken together: more would not stay in the processor's cache
_TEXT_HEADS: Final = [frame_head(TEXT, n) for n in range(126)]
_BINARY_HEADS: Final = [frame_head(BINARY, n) for n in range(126)]


@functools.lru_cache(maxsize=256)
def _keys_and_payloads(head_size: int, length: int) -> struct.Struct:
    """Return the layout of a masked frame, its key and its payload."""
    return struct.Struct(f"{head_size}x4s{length}s")


def split_controls(controls: bytes) -> list[bytes]:
    """Return the control frames that a scan has found, one by one."""
    frames = []
    at = 0
    while at < len(controls):
        second = controls[at + 1]
        end = at + 2 + (second & 127) + (4 if second >= _MASKED else 0)
        frames.append(controls[at:end])
        at = end
    return frames


class _Scanner(ABC):
    """The common part of both scanners. It has all rules, and the position in the frame and the message.

    `tail` is to be placed before the next read. `closed` is the peer's Close, `error` the rule that it broke; once
    there is either, nothing that comes counts.
    """

    def __init__(self, max_message: int, *, masked: bool, check_text: bool) -> None:
        self.tail = b""
        self.closed: CloseFrame | None = None
        self.error: FrameError | None = None
        self._max_message = max_message
        self._masked = masked
        self._key_size = 4 if masked else 0
        self._payload_at = 4 + self._key_size  # in a frame of 126 to 65,535 bytes
        self._no_bytes = _MASKED if masked else 0  # the second byte of a frame, but for its length
        self._two_bytes = 126 | self._no_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")() if check_text else None
        self._kind = CONTINUATION  # of the message that has begun and not ended, if there is one: TEXT or BINARY
        self._size = 0  # its payload bytes, by the heads of its frames so far
        self._left = 0  # payload bytes of the present frame that are not here yet
        self._fin = False  # whether the present frame is the message's last
        self._key = b""  # of the present frame, turned to its next byte
        self._controls: list[bytes] = []

    @property
    def within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._kind != CONTINUATION

    @abstractmethod
    def _take_small(self, data: memoryview, at: int) -> int:
        """Take plain frames of at most 125 bytes; give back where others begin."""

    @abstractmethod
    def _take_whole(self, messages: list[tuple[int, bytes]]) -> None:
        """Take whole messages."""

    @abstractmethod
    def _take_piece(self, piece: bytes, *, ends: bool) -> None:
        """Take a piece of the present message, or all of it. Not empty, unless it `ends` the message."""

    def _take_only(self, data: memoryview) -> tuple[int, bytes] | None:
        """Take a read that is one plain frame of at most 65,535 bytes. Take nothing of any other read, and return None."""
        begin = self._payload_at
        length = len(data) - begin
        if self.error or self.closed or self._kind != CONTINUATION:
            return None
        if length >= 126:
            first, second, said, key = _HEAD.unpack_from(data)
            if said != length or second != self._two_bytes:
                return None
        # The two bytes of a longer length are not there.
        else:
            begin -= 2
            length += 2
            # In the second byte, 126 and 127 are the marks of longer lengths: of a frame that is not wholly here.
            if not 1 <= length <= MAX_CONTROL or data[1] != self._no_bytes + length:
                return None
            first, key = data[0], bytes(data[2:begin])
        if length > self._max_message or (first != _WHOLE_TEXT and first != _WHOLE_BINARY):
            return None
        payload = apply_mask(data[begin:], key) if self._masked else bytes(data[begin:])
        # A frame that breaks a rule is left to the code that knows all rules.
        if first == _WHOLE_TEXT and self._utf8 is not None and not payload.isascii() and not is_utf8(payload):
            return None
        self.tail = b""
        return first - _FIN, payload

    def _scan(self, data: memoryview) -> bytes:
        """Take all there is; give back the control frames."""
        self.tail = b""
        at, size = 0, len(data)
        try:
            while at < size and self.error is None and self.closed is None:
                if self._kind == CONTINUATION:
                    at = self._take_plain(data, at)
                    if at == size:
                        break
                before = at
                at = self._take_payload(data, at) if self._left else self._take_any(data, at)
                if at == before:
                    self.tail = bytes(data[at:])
                    break
        except FrameError as error:
            self.error = error.with_traceback(None)  # which would hold on to the buffer
        controls = b"".join(self._controls)
        self._controls.clear()
        return controls

    def _take_plain(self, data: memoryview, at: int) -> int:
        """Between two messages: take whole ones as long as each comes in one frame; give back where others begin."""
        size = len(data)
        while True:
            # A Close or a ping is found here before any message is looked for.
            if data[at] & CLOSE:
                return at
            beyond = at
            # A message of a worker is longer as a rule, and looking for small ones would cost as much as reading it.
            if size - at < 2 or data[at + 1] & 127 <= MAX_CONTROL:
                beyond = self._take_small(data, at)
            if size - beyond > 126:
                beyond = self._take_larger(data, beyond)
            if beyond in (at, size):
                return beyond
            at = beyond

    def _take_larger(self, data: memoryview, at: int) -> int:
        """Plain frames of more than 125 bytes."""
        size, most, two_bytes, payload_at = len(data), self._max_message, self._two_bytes, self._payload_at
        masked, check_text, found = self._masked, self._utf8 is not None, []
        while size - at > 126:
            first, second, length, key = _HEAD.unpack_from(data, at)
            begin = at + payload_at
            # Nearly all have a length of two bytes.
            if second != two_bytes:
                if second != two_bytes + 1:
                    break
                length, begin, key = (
                    int.from_bytes(data[at + 2 : at + 10], "big"),
                    begin + 6,
                    bytes(data[at + 10 : at + 14]),
                )
                if length < 65_536:
                    break
            elif length < 126:
                break
            end = begin + length
            if length > most or end > size or (first != _WHOLE_TEXT and first != _WHOLE_BINARY):
                break
            payload = apply_mask(data[begin:end], key) if masked else bytes(data[begin:end])
            if check_text and first == _WHOLE_TEXT and not payload.isascii() and not is_utf8(payload):
                break
            found.append((first - _FIN, payload))
            at = end
        self._take_whole(found)
        return at

    def _take_any(self, data: memoryview, at: int) -> int:
        """Take one frame, or the part that is here. Returns where it ends, or `at` if even its head is not whole."""
        size = len(data)
        if size - at < 2:
            return at
        first, second = data[at], data[at + 1]
        opcode, length = first & 15, second & 127
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise ReservedOpcode(opcode)
        if (second >= _MASKED) != self._masked:
            raise FrameError(PROTOCOL_ERROR, "a frame is not masked" if self._masked else "a frame is masked")
        if opcode >= CLOSE:
            if first < _FIN:
                raise FrameError(PROTOCOL_ERROR, "a control frame is fragmented")
            if length > MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, f"a control frame is longer than {MAX_CONTROL} bytes")
            return self._take_control(data, at, opcode, length)
        if opcode == CONTINUATION and self._kind == CONTINUATION:
            raise FrameError(PROTOCOL_ERROR, "a continuation of nothing")
        if opcode != CONTINUATION and self._kind != CONTINUATION:
            raise FrameError(PROTOCOL_ERROR, "a message begins within another")
        extended = 8 if length == 127 else 2 if length == 126 else 0
        begin = at + 2 + extended + self._key_size
        if begin > size:
            return at
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            if length < (126 if extended == 2 else 65_536):
                raise FrameError(PROTOCOL_ERROR, "a length is not in its shortest form")
            if length >> 63:
                raise FrameError(PROTOCOL_ERROR, "a length has its first bit set")
        if self._size + length > self._max_message:
            raise FrameError(MESSAGE_TOO_BIG, f"a message is larger than {self._max_message} bytes")
        if opcode != CONTINUATION:
            self._kind = opcode
        self._size += length
        self._left = length
        self._fin = first >= _FIN
        self._key = bytes(data[begin - self._key_size : begin])
        return self._take_payload(data, begin)

    def _take_payload(self, data: memoryview, at: int) -> int:
        """Take the present part of the current frame's payload."""
        here = data[at : at + self._left]
        piece = apply_mask(here, self._key) if self._masked else bytes(here)
        taken = len(piece)
        self._left -= taken
        self._key = self._key[taken % 4 :] + self._key[: taken % 4]
        ends = self._fin and not self._left
        if self._kind == TEXT and self._utf8 is not None and not _may_follow(self._utf8, piece, ends=ends):
            raise FrameError(INVALID_DATA, "a text is not UTF-8")
        if piece or ends:
            self._take_piece(piece, ends=ends)
        if ends:
            self._kind = CONTINUATION
            self._size = 0
        return at + taken

    def _take_control(self, data: memoryview, at: int, opcode: int, length: int) -> int:
        begin = at + 2 + self._key_size
        end = begin + length
        if end > len(data):
            return at
        raw = bytes(data[at:end])
        if opcode == CLOSE:
            payload = raw[begin - at :]
            self.closed = parse_close(apply_mask(payload, raw[2:6]) if self._masked else payload)
        self._controls.append(raw)
        return end


def _may_follow(decoder: codecs.IncrementalDecoder, piece: bytes, *, ends: bool) -> bool:
    """Whether a text may go on, or end, with `piece`."""
    try:
        decoder.decode(piece, ends)
    except UnicodeDecodeError:
        return False
    return True


@final
class BatchScanner(_Scanner):
    """Makes runs of server frames of the frames that a channel's writer sends."""

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message, masked=True, check_text=True)
        self._begun = False  # a piece of the present message has been passed on
        self._parts: list[Buffer] = []
        self._pieces: list[bytes] = []  # of the next part
        self._items = 0
        self._payload = 0

    def scan(self, data: memoryview) -> tuple[FrameBatch | None, bytes]:
        """Scan `tail` and the bytes behind it. Returns the data frames as one batch, and the control frames as they came."""
        # A lone message is one plain frame.
        if (only := self._take_only(data)) is not None:
            return message_batch(*only), b""
        controls = self._scan(data)
        self._end_part()
        if not self._parts:
            return None, controls
        batch = FrameBatch(self._parts, self._items, self._payload)
        self._parts, self._items, self._payload = [], 0, 0
        return batch, controls

    def _take_piece(self, piece: bytes, *, ends: bool) -> None:
        opcode = CONTINUATION if self._begun else self._kind
        self._put(frame_head(opcode, len(piece), fin=ends), piece)
        self._begun = not ends
        self._items += ends

    def _take_whole(self, messages: list[tuple[int, bytes]]) -> None:
        for opcode, payload in messages:
            self._put(frame_head(opcode, len(payload)), payload)
        self._items += len(messages)

    def _end_part(self) -> None:
        """Join the pieces to a part."""
        if self._pieces:
            self._parts.append(b"".join(self._pieces))
            self._pieces.clear()

    def _put(self, head: bytes, payload: bytes) -> None:
        self._payload += len(payload)
        self._pieces.append(head)
        if len(payload) < _LARGE:
            self._pieces.append(payload)
        else:
            self._end_part()
            self._parts.append(payload)

    def _take_alike(self, data: memoryview, at: int) -> int:
        """Take plain frames of one length, as records have, together: several times faster than one by one.

        Frames whose payload would be a part of its own are left, and give back where others begin.
        """
        size = len(data)
        while size - at > _FEW * 7:
            head = bytes(data[at : at + 4])
            length = head[1] - _MASKED
            if length == 126:
                length = int.from_bytes(head[2:], "big")
            else:
                head = head[:2]
            step = len(head) + 4 + length
            # A frame that is not plain is left to the code that knows all rules, and so is a text that breaks one.
            if (
                (head[0] != _WHOLE_BINARY and head[0] != _WHOLE_TEXT)
                or not (0 < length <= MAX_CONTROL if len(head) == 2 else 126 <= length < _LARGE)
                or length > self._max_message
                or data[at + _FEW * step : at + _FEW * step + len(head)] != head
            ):
                break
            end = min(size, at + min(_MANY, _GROUP // step) * step)
            count = (end - at) // step
            for place, byte in enumerate(head):
                column = bytes(data[at + place : end : step])
                count = min(count, len(column) - len(column.lstrip(bytes([byte]))))
            if count < _FEW:
                break
            frames = _keys_and_payloads(len(head), length).iter_unpack(data[at : at + count * step])
            payloads = [apply_mask(payload, key) for key, payload in frames]
            if head[0] == _WHOLE_TEXT and not (all(map(bytes.isascii, payloads)) or all(map(is_utf8, payloads))):
                break
            group = frame_head(head[0] - _FIN, length).join([b"", *payloads])
            if len(group) >= _LARGE:
                self._end_part()
                self._parts.append(group)
            else:
                self._pieces.append(group)
            self._items += count
            self._payload += count * length
            at += count * step
        return at

    def _take_larger(self, data: memoryview, at: int) -> int:
        return super()._take_larger(data, self._take_alike(data, at))

    def _take_small(self, data: memoryview, at: int) -> int:
        add = self._pieces.append
        most = _MASKED + min(MAX_CONTROL, self._max_message)
        while True:
            at = self._take_alike(data, at)
            window = bytes(data[at : at + _WINDOW])
            size = len(window)
            last = size - 6
            here = count = 0
            while here <= last:
                second = window[here + 1]
                begin = here + 6
                end = begin + second - _MASKED
                if not _MASKED <= second <= most or end > size:
                    break
                first = window[here]
                if first == _WHOLE_BINARY:
                    add(_BINARY_HEADS[second - _MASKED])
                    add(apply_mask(window[begin:end], window[here + 2 : begin]))
                elif first == _WHOLE_TEXT:
                    text = apply_mask(window[begin:end], window[here + 2 : begin])
                    if not text.isascii() and not is_utf8(text):
                        break
                    add(_TEXT_HEADS[second - _MASKED])
                    add(text)
                else:
                    break
                count += 1
                here = end
            self._items += count
            self._payload += here - 6 * count
            at += here
            if not count or size < _WINDOW:
                return at


@final
class MessageScanner(_Scanner):
    """Makes whole messages of a peer's frames, which are masked, as clients send them, or not.

    `check_text=False` leaves the check for UTF-8 to the decoder.
    """

    def __init__(self, max_message: int, *, masked: bool, check_text: bool = True) -> None:
        super().__init__(max_message, masked=masked, check_text=check_text)
        self._messages: list[tuple[int, bytes | bytearray]] = []
        self._message: bytearray | None = None  # what is here of the present one
        self._keeps = True

    @property
    def held_bytes(self) -> int:
        """The memory that an incomplete message takes.

        A bytearray that grows has an eighth in reserve, and as much is what the allocator cannot give back later.
        """
        return 0 if self._message is None else len(self._message) * 5 // 4

    def discard(self) -> None:
        """Release all kept bytes, and keep none from now on. Frames are still checked and control frames found."""
        self._keeps = False
        self._message = None
        self._messages.clear()

    def scan(self, data: memoryview) -> tuple[list[tuple[int, bytes | bytearray]], bytes]:
        """Scan `tail` and the bytes behind it. Returns messages (TEXT or BINARY, payload), and control frames."""
        # Most reads of a worker's link bring one message.
        if self._keeps and (only := self._take_only(data)) is not None:
            return [only], b""
        controls = self._scan(data)
        messages, self._messages = self._messages, []
        return (messages if self._keeps else []), controls

    def _take_whole(self, messages: list[tuple[int, bytes]]) -> None:
        self._messages += messages

    def _take_piece(self, piece: bytes, *, ends: bool) -> None:
        if not self._keeps:
            return
        if self._message is not None:
            self._message += piece
            if ends:
                self._messages.append((self._kind, self._message))
                self._message = None
        elif ends:
            self._messages.append((self._kind, piece))
        else:
            self._message = bytearray(piece)

    def _take_small(self, data: memoryview, at: int) -> int:
        add = self._messages.append
        masked = _MASKED if self._masked else 0
        most = masked + min(MAX_CONTROL, self._max_message)
        head = 2 + self._key_size
        while True:
            window = bytes(data[at : at + _WINDOW])
            size = len(window)
            last = size - head
            here = 0
            while here <= last:
                first, second = window[here], window[here + 1]
                begin = here + head
                end = begin + second - masked
                if not masked <= second <= most or end > size or (first != _WHOLE_TEXT and first != _WHOLE_BINARY):
                    break
                payload = window[begin:end]
                if masked:
                    payload = apply_mask(payload, window[here + 2 : begin])
                if first == _WHOLE_TEXT and self._utf8 is not None and not payload.isascii() and not is_utf8(payload):
                    break
                add((first - _FIN, payload))
                here = end
            at += here
            if not here or size < _WINDOW:
                return at
