"""Frames of RFC 6455."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final, TypeAlias, final

import attrs

from ..errors import FrameError

try:
    from websockets.speedups import apply_mask

    HAS_C_MASK = True
except ImportError:  # pragma: no cover - wheels for most platforms have the C routine; CI asserts that it is there
    from websockets.utils import apply_mask

    HAS_C_MASK = False

Buffer: TypeAlias = bytes | bytearray | memoryview

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_SMALL: Final = 4096  # payloads up to this are gathered into one piece; larger ones are not copied again
_LONGEST_CONTROL: Final = 125
_NO_CODE: Final = 1005
_VALID_CLOSES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class ReservedOpcode(FrameError):
    """A frame with an opcode that RFC 6455 section 5.2 reserves: how our engine cuts streams for SDKs (clause C6.2)."""


@attrs.frozen
class CloseFrame:
    """A Close: its code (1005 if it had none) and reason."""

    code: int
    reason: str = ""


# --- making frames


def frame_head(opcode: int, length: int, *, fin: bool = True, mask: Buffer | None = None) -> bytes:
    """The head of a frame, with the length in its shortest form; the masking key, if any, ends it."""
    first = opcode | 0x80 if fin else opcode
    masked = 0 if mask is None else 0x80
    if length < 126:
        head = bytes((first, masked | length))
    elif length < 65536:
        head = bytes((first, masked | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    return head if mask is None else head + mask


def frame(opcode: int, payload: Buffer, *, fin: bool = True, mask: Buffer | None = None) -> bytes:
    """A whole frame, masked if a key is given."""
    head = frame_head(opcode, len(payload), fin=fin, mask=mask)
    return head + (payload if mask is None else apply_mask(payload, mask))


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a Close; a reason that is too long is cut between two characters."""
    return code.to_bytes(2, "big") + fitting_reason(reason).encode()


def fitting_reason(reason: str) -> str:
    """As much of a reason as a Close frame has room for."""
    return reason.encode()[: _LONGEST_CONTROL - 2].decode(errors="ignore")


# --- runs of ready-made frames


@final
class Run:
    """Ready-made server frames, many in one piece. Every part begins at a frame, or is the payload of the head before.

    `items` is how many messages end in it, `payload` how many bytes of payload it has, `size` how many bytes in all.
    """

    __slots__ = ("items", "parts", "payload", "size")

    def __init__(self, parts: list[Buffer], *, items: int, payload: int) -> None:
        self.parts = parts
        self.items = items
        self.payload = payload
        self.size = sum(map(len, parts))

    def cut(self, items: int, payload: int) -> tuple[Run | None, Run | None]:
        """The frames up to the one at which either bound is reached, and the rest. A bound of 0 takes nothing."""
        if items <= 0 or payload <= 0:
            return None, self
        if self.items < items and self.payload < payload:
            return self, None
        at = ended = bytes_ = 0
        for start, length, head, fin in _boundaries(self.parts):
            at = start + head + length
            ended += fin
            bytes_ += length
            if ended >= items or bytes_ >= payload:
                break
        return self._split(at, ended, bytes_)

    def sent(self, n: int) -> tuple[list[Buffer], Run | None]:
        """After `n` bytes of it were written: the rest of the frame that was torn, and the frames not begun."""
        at = ended = bytes_ = 0
        for start, length, head, fin in _boundaries(self.parts):
            if start >= n:
                break
            at = start + head + length
            ended += fin
            bytes_ += length
        _, rest = self._split(at, ended, bytes_)
        return _slice(self.parts, n, at), rest

    def _split(self, at: int, items: int, payload: int) -> tuple[Run, Run | None]:
        if at >= self.size:
            return self, None
        before = Run(_slice(self.parts, 0, at), items=items, payload=payload)
        after = Run(_slice(self.parts, at, self.size), items=self.items - items, payload=self.payload - payload)
        return before, after


def frames_of(run: Run) -> Iterator[tuple[int, bool, memoryview]]:
    """Each frame of a run: opcode, FIN, payload."""
    whole = memoryview(b"".join(run.parts))
    for start, length, head, fin in _boundaries(run.parts):
        yield whole[start] & 15, fin, whole[start + head : start + head + length]


def _boundaries(parts: list[Buffer]) -> Iterator[tuple[int, int, int, bool]]:
    """Where each frame of a run begins, its payload's and its head's length, and whether it has FIN."""
    before = 0  # bytes in the parts before
    skip = 0  # bytes of a payload that go on in the next part
    for part in parts:
        at, size = skip, len(part)
        while at < size:
            length, head = part[at + 1], 2
            if length == 126:
                length, head = (part[at + 2] << 8) | part[at + 3], 4
            elif length == 127:
                length, head = int.from_bytes(part[at + 2 : at + 10], "big"), 10
            yield before + at, length, head, part[at] >= 0x80
            at += head + length
        skip = at - size
        before += size


def _slice(parts: list[Buffer], start: int, end: int) -> list[Buffer]:
    taken: list[Buffer] = []
    before = 0
    for part in parts:
        size = len(part)
        low, high = max(start - before, 0), min(end - before, size)
        if low < high:
            taken.append(part if low == 0 and high == size else memoryview(part)[low:high])
        before += size
        if before >= end:
            break
    return taken


def split_controls(controls: bytes) -> Iterator[bytes]:
    """The single frames of a scan's control frames."""
    at = 0
    while at < len(controls):
        end = at + 2 + (controls[at + 1] & 127) + (4 if controls[at + 1] & 128 else 0)
        yield controls[at:end]
        at = end


# --- scanning


class _Scanner:
    """What both scanners share: heads, rules, control frames, the state between two reads."""

    def __init__(self, max_message: int, *, masked: bool = True, check_text: bool = True) -> None:
        self.tail = b""
        self.error: FrameError | None = None
        self.closed: CloseFrame | None = None
        self._max_message = max_message
        self._masked = masked
        self._check_text = check_text
        self._kind = 0  # of the message under way: TEXT or BINARY; 0 between messages
        self._size = 0  # of the message under way, as far as its heads have told
        self._left = 0  # payload bytes of the frame under way that are not here yet
        self._fin = False  # of the frame under way
        self._key = b""
        self._utf8: codecs.IncrementalDecoder | None = None

    @property
    def within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._kind != 0

    def _piece(self, payload: bytes, last: bool) -> None:
        """A part of the payload of the message under way."""
        raise NotImplementedError

    def _walk(self, data: memoryview, at: int, controls: list[bytes]) -> int:
        """Take one head, or one part of a payload; the position behind it, or -1 if the rest is not enough for that."""
        size = len(data)
        if self._left:
            n = min(self._left, size - at)
            if not n:
                return -1
            self._take(data[at : at + n])
            return at + n
        if size - at < 2:
            return -1
        first, second = data[at], data[at + 1]
        opcode, length, start = first & 15, second & 127, at + 2
        if first & 0x70:
            raise FrameError(1002, "a reserved bit is set")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ReservedOpcode(1002, f"the opcode {opcode} is reserved")
        if (second >= 0x80) is not self._masked:
            raise FrameError(1002, "a client's frame must be masked" if self._masked else "a server's frame was masked")
        if opcode >= CLOSE:
            if first < 0x80:
                raise FrameError(1002, "a control frame was fragmented")
            if length > _LONGEST_CONTROL:
                raise FrameError(1002, "a control frame is longer than 125 bytes")
        elif length == 126:
            if size < start + 2:
                return -1
            length = (data[start] << 8) | data[start + 1]
            start += 2
            if length < 126:
                raise FrameError(1002, "a length is not in its shortest form")
        elif length == 127:
            if size < start + 8:
                return -1
            length = int.from_bytes(data[start : start + 8], "big")
            start += 8
            if length < 65536:
                raise FrameError(1002, "a length is not in its shortest form")
            if length >> 63:
                raise FrameError(1002, "a length has its first bit set")
        if self._masked:
            start += 4
            if size < start:
                return -1
        if opcode >= CLOSE:
            end = start + length
            if size < end:
                return -1
            if opcode == CLOSE:
                payload = data[start:end]
                self.closed = _read_close(
                    apply_mask(payload, data[start - 4 : start]) if self._masked else bytes(payload)
                )
            controls.append(bytes(data[at:end]))
            return end
        self._begin(opcode, length, first >= 0x80)
        if self._masked:
            self._key = bytes(data[start - 4 : start])
        if not length:
            self._take(data[start:start])
        return start

    def _begin(self, opcode: int, length: int, fin: bool) -> None:
        if opcode == CONTINUATION:
            if not self._kind:
                raise FrameError(1002, "a continuation of nothing")
        elif self._kind:
            raise FrameError(1002, "a message began within another")
        if self._size + length > self._max_message:
            raise FrameError(1009, f"a message is larger than {self._max_message} bytes")
        if opcode != CONTINUATION:
            self._kind = opcode
            self._utf8 = _new_utf8() if opcode == TEXT and self._check_text else None
        self._size += length
        self._left = length
        self._fin = fin

    def _take(self, masked: memoryview) -> None:
        n = len(masked)
        if self._masked:
            payload = apply_mask(masked, self._key)
            if n & 3:
                self._key = self._key[n & 3 :] + self._key[: n & 3]
        else:
            payload = bytes(masked)
        self._left -= n
        last = self._fin and not self._left
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, last)
            except UnicodeDecodeError:
                raise FrameError(1007, "a text is not UTF-8") from None
        self._piece(payload, last)
        if last:
            self._kind = self._size = 0


_new_utf8: Final = codecs.getincrementaldecoder("utf-8")


@final
class MessageScanner(_Scanner):
    """Whole messages: for sessions, for a client's connections, and for reading runs in process (`masked=False`).

    `check_text=False` leaves the check for UTF-8 to whoever decodes.
    """

    def __init__(self, max_message: int, *, masked: bool, check_text: bool = True) -> None:
        super().__init__(max_message, masked=masked, check_text=check_text)
        self._message: bytes | bytearray = b""
        self._whole: list[tuple[int, bytes | bytearray]] = []

    def scan(self, data: memoryview) -> tuple[list[tuple[int, bytes | bytearray]], bytes]:
        """The messages that end in `data`, as (TEXT or BINARY, payload), and the control frames as they came."""
        controls: list[bytes] = []
        at = 0
        while self.error is None and self.closed is None:
            try:
                behind = self._walk(data, at, controls)
            except FrameError as error:
                self.error = error
                break
            if behind < 0:
                self.tail = bytes(data[at:])
                break
            at = behind
        whole, self._whole = self._whole, []
        return whole, b"".join(controls)

    def _piece(self, payload: bytes, last: bool) -> None:
        if last and not self._message:
            self._whole.append((self._kind, payload))
            return
        if not isinstance(self._message, bytearray):
            self._message = bytearray(self._message)
        self._message += payload
        if last:
            self._whole.append((self._kind, self._message))
            self._message = b""


@final
class RunScanner(_Scanner):
    """A channel writer's masked frames in, runs of ready-made server frames out."""

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        self._begun = False  # a part of the message under way has been passed on
        self._parts: list[Buffer] = []
        self._small = bytearray()
        self._items = 0
        self._payload = 0
        self._fast = max_message >= 65535

    def scan(self, data: memoryview) -> tuple[Run | None, bytes]:
        """What `data` has of data frames, as one run, and the control frames as they came."""
        controls: list[bytes] = []
        at = 0
        while self.error is None and self.closed is None:
            if not self._kind and self._fast:
                at = self._take_whole_frames(data, at)
            try:
                behind = self._walk(data, at, controls)
            except FrameError as error:
                self.error = error
                break
            if behind < 0:
                self.tail = bytes(data[at:])
                break
            at = behind
        return self._take_run(), b"".join(controls)

    def _take_whole_frames(self, data: memoryview, at: int) -> int:
        """The fast way, for what most frames are: whole, unfragmented, valid. Leaves everything else to `_walk`."""
        size, small, items, payload = len(data), self._small, 0, 0
        while size - at >= 8:
            first = data[at]
            if first != 0x82 and first != 0x81:
                break
            length = data[at + 1] - 128
            if 0 <= length < 126:
                start = at + 6
                end = start + length
                if end > size:
                    break
                unmasked = apply_mask(data[start:end], data[at + 2 : start])
                if first == 0x81 and not _is_text(unmasked):
                    break
                small.append(first)
                small.append(length)
                small += unmasked
            elif length == 126:
                length = (data[at + 2] << 8) | data[at + 3]
                start = at + 8
                end = start + length
                if end > size or length < 126:
                    break
                unmasked = apply_mask(data[start:end], data[at + 4 : start])
                if first == 0x81 and not _is_text(unmasked):
                    break
                small.append(first)
                small.append(126)
                small += data[at + 2 : at + 4]
                if length <= _SMALL:
                    small += unmasked
                else:
                    self._parts.append(small)
                    self._parts.append(unmasked)
                    small = self._small = bytearray()
            else:
                break
            items += 1
            payload += length
            at = end
        self._items += items
        self._payload += payload
        return at

    def _piece(self, payload: bytes, last: bool) -> None:
        n = len(payload)
        if not n and not last:
            return  # an empty fragment says nothing
        self._small += frame_head(CONTINUATION if self._begun else self._kind, n, fin=last)
        if n <= _SMALL:
            self._small += payload
        else:
            self._parts.append(self._small)
            self._parts.append(payload)
            self._small = bytearray()
        self._begun = not last
        self._items += last
        self._payload += n

    def _take_run(self) -> Run | None:
        if self._small:
            self._parts.append(self._small)
            self._small = bytearray()
        if not self._parts:
            return None
        run = Run(self._parts, items=self._items, payload=self._payload)
        self._parts, self._items, self._payload = [], 0, 0
        return run


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_close(payload: bytes) -> CloseFrame:
    if not payload:
        return CloseFrame(_NO_CODE)
    if len(payload) == 1:
        raise FrameError(1002, "a Close has half a code")
    code = int.from_bytes(payload[:2], "big")
    if code not in _VALID_CLOSES and not 3000 <= code < 5000:
        raise FrameError(1002, f"a Close has the code {code}, which may not be sent")
    try:
        return CloseFrame(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise FrameError(1007, "the reason of a Close is not UTF-8") from None
